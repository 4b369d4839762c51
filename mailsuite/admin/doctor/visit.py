"""One visit to a server: what it says as greeting and to EHLO, how TLS goes, whether it takes our login; then QUIT.

Nothing is asked for and nothing is changed there. Credentials go over TLS only.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from cryptography import x509

from mailsuite.interfaces import IConversation
from mailsuite.mail.reply import Reply
from mailsuite.session.client_auth import InThread, NotAuthenticated, authenticate
from mailsuite.session.exchange import HungUp, exchange, hear
from mailsuite.session.handover import Handover
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow, RemoteProtocolError
from mailsuite.wire.sasl import ClientCredentials
from mailsuite.wire.smtp.capabilities import Capabilities
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.client_states import LEGAL
from mailsuite.wire.smtp.commands import Ehlo, Quit, StartTls

_LOST = (ConnectionClosed, PeerTooSlow, RemoteProtocolError)


class Reached(IntEnum):
    """How far a visit came: the last thing that went well."""

    NOWHERE = 0
    CONNECTED = 1
    GREETED = 2
    HEARD = 3  # EHLO was answered
    SECURED = 4
    AUTHENTICATED = 5
    DONE = 6


@dataclass(frozen=True, slots=True)
class Place:
    """A server to visit. `host` is its name as TLS knows it, `address` where it is reached where that is not its name.

    `tls` is a mode of `NextHop.tls`; `implicit` says that TLS begins with the first octet.
    """

    host: str
    port: int
    tls: str = "required"
    implicit: bool = False
    address: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        where = self.address or self.host
        return where if where.startswith("/") else f"{where} port {self.port}"


@dataclass(slots=True)
class Seen:
    """What a visit has seen. `trouble` says why it ended before its end, `reply` what the server said then.

    `plain` is what was offered at first, `secure` what was offered under TLS; None where it did not come to that.
    """

    reached: Reached = Reached.NOWHERE
    trouble: str | None = None
    reply: Reply | None = None
    greeting: str = ""
    plain: Capabilities | None = None
    secure: Capabilities | None = None
    protocol: str | None = None
    certificate: x509.Certificate | None = None

    @property
    def offered(self) -> Capabilities:
        """What was offered last."""
        return self.secure or self.plain or Capabilities()


class _Ended(Exception):
    """The visit has come to its end, with leave to be taken."""

    def __init__(self, trouble: str, reply: Reply | None = None) -> None:
        super().__init__(trouble)
        self.reply = reply


class VisitSession:
    """Visits; `seen` is filled in on the way. `tls` is what `Handover.tls` takes, None for a visit without STARTTLS."""

    def __init__(self, place: Place, hostname: str, *, tls: Any, in_thread: InThread) -> None:  # noqa: ANN401 - as there
        self._place = place
        self._hostname = hostname
        self._tls = tls
        self._in_thread = in_thread
        self.seen = Seen()

    async def __call__(self, conversation: IConversation) -> Handover | None:
        """Talk up to the end, or to STARTTLS."""
        seen = self.seen
        seen.reached = Reached.CONNECTED
        return await self._guarded(self._begin, conversation)

    async def _go_on_secured(self, conversation: IConversation) -> Handover | None:
        self.seen.trouble = None
        self.seen.reached = Reached.SECURED
        return await self._guarded(self._finish, conversation)

    async def _guarded(self, talk: Any, conversation: IConversation) -> Handover | None:  # noqa: ANN401 - one of ours
        try:
            handover: Handover | None = await talk(conversation)
        except _Ended as end:
            self._note(str(end), end.reply)
            await self._quit(conversation)
            return None
        except HungUp as hung_up:
            self._note(f"it hangs up: {hung_up.reply}", hung_up.reply)
            return None
        except _LOST as error:
            self._note(f"the connection was lost: {error}")
            return None
        return handover

    async def _begin(self, conversation: IConversation) -> Handover | None:
        seen, place = self.seen, self._place
        reply = (await hear(conversation)).reply
        seen.greeting = str(reply).partition("\n")[0]
        if not reply.is_positive:
            raise _Ended(f"it does not serve us: {reply}", reply)
        seen.reached = Reached.GREETED
        await self._say_hello(conversation)
        seen.plain = conversation.core.capabilities
        seen.reached = Reached.HEARD
        if conversation.tls is not None:
            seen.secure = seen.plain
            seen.protocol = conversation.tls.version
            seen.reached = Reached.SECURED
        elif self._tls is not None and place.tls != "none":
            if seen.plain.starttls:
                reply = await exchange(conversation, StartTls())
                if reply.is_positive:
                    seen.trouble = "the TLS handshake has failed"  # until it has not
                    return Handover(SmtpClientCore(greeted=True), self._go_on_secured, self._tls)
                if place.tls != "opportunistic":
                    raise _Ended(f"it refuses STARTTLS: {reply}", reply)
            elif place.tls != "opportunistic":
                raise _Ended("it does not offer STARTTLS")
        return await self._log_in(conversation)

    async def _finish(self, conversation: IConversation) -> Handover | None:
        """Behind STARTTLS."""
        if conversation.tls is not None:
            self.seen.protocol = conversation.tls.version
        await self._say_hello(conversation)
        self.seen.secure = conversation.core.capabilities
        return await self._log_in(conversation)

    async def _say_hello(self, conversation: IConversation) -> None:
        reply = await exchange(conversation, Ehlo(self._hostname))
        if not reply.is_positive:
            raise _Ended(f"it refuses EHLO: {reply}", reply)

    async def _log_in(self, conversation: IConversation) -> Handover | None:
        place = self._place
        if place.username is not None:
            if conversation.tls is None:
                raise _Ended("credentials go over TLS only, and it is in plaintext")
            try:
                credentials = ClientCredentials(place.username, place.password)
                await authenticate(conversation, credentials, self._in_thread)
            except NotAuthenticated as error:
                raise _Ended(str(error), error.reply) from None
            self.seen.reached = Reached.AUTHENTICATED
        self.seen.reached = Reached.DONE
        await self._quit(conversation)
        return None

    async def _quit(self, conversation: IConversation) -> None:
        """Take leave; nothing depends on it any more."""
        if conversation.core.state in LEGAL[Quit]:
            with suppress(HungUp, *_LOST):
                await exchange(conversation, Quit())

    def _note(self, trouble: str, reply: Reply | None = None) -> None:
        self.seen.trouble, self.seen.reply = trouble, reply
