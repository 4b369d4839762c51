"""For other people's Twisted programs: what `service` makes of settings, made of plain arguments.

`smtp_factory` gives an `IProtocolFactory` for any endpoint: SMTP, LMTP, or submission, with a router and a spool of
your choice. `Intake` stands where a spool would stand, and gives each message to a coroutine. docs/embedding.md has
examples that run.

Rules: nothing here touches the global reactor. PLAIN and LOGIN are offered under TLS only, whoever the authenticator
is. For limits, time-outs or anything else that is not an argument here, make `Door` and `ConnectionFactory` as
`smtp_factory` does: they take all there is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.delivery.tasks import uncancelled
from mailsuite.interfaces import IAuthenticator, IDraft, IRouter, ISpool
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.origin import Origin
from mailsuite.mail.route import Target
from mailsuite.net.factory import ConnectionFactory
from mailsuite.net.tls import ServerTLS
from mailsuite.session.inbound import Door
from mailsuite.spool.ids import QueueIds
from mailsuite.wire import sasl
from mailsuite.wire.smtp.offer import Offer

_MECHANISMS = (b"SCRAM-SHA-256", b"CRAM-MD5", b"PLAIN", b"LOGIN")
# RFC 4954 section 4: what shows the password is not there without TLS.
_IN_PLAINTEXT = frozenset({b"SCRAM-SHA-256", b"CRAM-MD5"})


def smtp_factory(
    offer: Offer,
    router: IRouter,
    spool: ISpool | Intake,
    reactor: IReactorTime,
    *,
    tls: ServerTLS | None = None,
    implicit: bool = False,
    authenticator: IAuthenticator | None = None,
    submission: bool = False,
) -> ConnectionFactory:
    """A factory that takes mail in, for `endpoint.listen`.

    `offer` says who we are and what we take: `Offer("mail.example.org")`, with `lmtp=True` for LMTP. What depends on
    TLS in it is set here: with `tls` STARTTLS is offered, or TLS begins with the first octet where it is `implicit`.
    With an `authenticator` AUTH is offered, by `offer.mechanisms` or by all that take a name and a password.
    `submission` demands TLS, then AUTH, binds senders to the account and completes messages (RFC 6409). Raises
    `ValueError` for what cannot be together.
    """
    if implicit and tls is None:
        raise ValueError("implicit TLS needs tls")
    if submission and (tls is None or authenticator is None):
        raise ValueError("submission needs tls and an authenticator")
    # Only a spool keeps parts of messages, and the names of those that are complete (RFC 1845).
    offer = replace(offer, checkpoint=offer.checkpoint and not isinstance(spool, Intake))
    mechanisms = (offer.mechanisms or _MECHANISMS) if authenticator is not None else ()
    in_plaintext = () if submission else tuple(name for name in mechanisms if name in _IN_PLAINTEXT)
    secure = replace(offer, starttls=False, mechanisms=mechanisms, require_tls=False, require_auth=submission)
    door = Door(
        offer.hostname,
        replace(secure, starttls=tls is not None, mechanisms=in_plaintext, require_tls=submission),
        secure,
        router,
        cast("ISpool", spool),  # without CHECKPOINT a door asks for nothing but drafts
        reactor.seconds,
        authenticator=authenticator,
        sasl=sasl.ServerParameters(hostname=offer.hostname.encode("ascii", "replace"), clock=reactor.seconds),
        tls=None if tls is None else lambda: tls,
        submission=submission,
    )
    return ConnectionFactory(partial(door.open, secure=implicit), reactor, tls=tls if implicit else None)


@dataclass(frozen=True, slots=True)
class Received:
    """A message that has come whole, and has not been answered for.

    `content` begins with our Received line; its line ends are CR LF. `targets` are what the router gave for the
    recipients.
    """

    queue_id: str
    envelope: Envelope
    targets: tuple[Target, ...]
    content: bytes


class Intake:
    """Gives each message to your coroutine; when `take` returns, the peer is told 250, and the message is yours.

    `take` may raise `Refused` with the reply that the peer gets; for any other exception it gets 451 4.3.0 and tries
    again. A `take` that has begun is not broken off when the peer goes away; that one will send the message again.
    Messages lie in memory whole: bound them by `Offer.max_size`. `clock` is the reactor; queue ids are made of its
    time.
    """

    def __init__(self, take: Callable[[Received], Awaitable[object]], clock: IReactorTime) -> None:
        self._take = take
        self._ids = QueueIds(clock, 0)

    def draft(self) -> IDraft:
        """What a session asks a spool for."""
        draft: IDraft = _Draft(self._ids.next(), self._take)
        return draft


@implementer(IDraft)
class _Draft:
    """A message while it comes."""

    def __init__(self, queue_id: str, take: Callable[[Received], Awaitable[object]]) -> None:
        self.queue_id = queue_id
        self.size = 0
        self._take = take
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._chunks.append(data)

    async def commit(
        self,
        envelope: Envelope,
        targets: Sequence[Target],
        *,
        name: str | None = None,
        received: int = 0,
        origin: Origin | None = None,
    ) -> None:
        chunks, self._chunks = self._chunks, []
        await uncancelled(self._take(Received(self.queue_id, envelope, tuple(targets), b"".join(chunks))))

    def abort(self) -> None:
        self._chunks.clear()
