"""The session of an SMTP server: takes mail in and says 250 when it is on stable storage.

One class serves the open port 25, submission, LMTP, on-demand mail relay, and the customer's side of a turn; what
differs is its `Door`. The answers to commands stand by group: those of a session here, those of a message in
`receiving`, those by which held mail leaves in `queueing`.

Rules: replies are sent in one place; what is refused says so by raising `Refused`; anything else that goes wrong
is 451 4.3.0 and a logged failure, because a temporary answer loses nothing. An answer by which the connection becomes
another one is a `Handover`, and has said its reply itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from twisted.logger import Logger

from mailsuite.interfaces import DirectoryUnavailable, IConversation, Refused
from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.session import queueing, receiving
from mailsuite.session.authentication import Authentication
from mailsuite.session.door import DoorSettings
from mailsuite.session.handover import Handover
from mailsuite.session.reception import Reception
from mailsuite.session.visit import ENDINGS, Visit
from mailsuite.wire.core import ConnectionClosed, Event, PeerTooSlow
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    Bdat,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Turn,
    Vrfy,
)
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore

_log = Logger()


@dataclass(frozen=True, slots=True)
class Door(DoorSettings):
    """What one listener is for, and the way in: see `DoorSettings`."""

    def open(self, *, secure: bool = False, greeted: bool = False) -> tuple[SmtpServerCore, InboundSession]:
        """A core and a session for a new connection, or for the same one after STARTTLS (`greeted`)."""
        core = SmtpServerCore(self.secure_offer if secure else self.offer, greeted=greeted)
        return core, InboundSession(self, greeted=greeted)

    def for_turn(self, domains: frozenset[str], peer_name: str = "") -> Door:
        """The door of a turn at the customer's: `Handover(*door.open())` serves the provider `peer_name` through it.

        Takes mail for these domains (domain keys) alone, as far as the router knows them, and asks the provider to keep
        what is for others (450). Nobody logs in through it, no TLS begins behind it and it cannot be turned again (RFC
        2645 section 5.3): the offer is without all that.
        """
        offer = replace(
            self.secure_offer,
            lmtp=False,
            starttls=False,
            mechanisms=(),
            require_tls=False,
            require_auth=False,
            etrn=False,
            atrn=False,
            turn=False,
            odmr=False,
        )
        return replace(
            self,
            offer=offer,
            secure_offer=offer,
            authenticator=None,
            tls=None,
            submission=False,
            trusted=(),
            on_demand=None,
            turn_allowed=False,
            domains=domains,
            peer_name=peer_name,
            service="turn",
        )


class InboundSession:
    """One connection's conversation; see `Door` for what it is about."""

    def __init__(self, door: Door, *, greeted: bool = False) -> None:
        self._door = door
        self._greeted = greeted

    async def __call__(self, conversation: IConversation) -> Handover | None:
        """Talk until the peer quits, or until the connection is to become another one."""
        visit = Visit(self._door, conversation, self._door.trusts(conversation.peer.host))
        try:
            return await self._converse(visit)
        except ENDINGS as ending:
            visit.break_off()
            if isinstance(ending, PeerTooSlow):
                conversation.send(replies.TOO_SLOW)
            elif not isinstance(ending, ConnectionClosed):
                raise
            return None
        finally:
            visit.forget()

    async def _converse(self, visit: Visit) -> Handover | None:
        conversation = visit.conversation
        if not self._greeted:
            dialect = "LMTP" if self._door.offer.lmtp else "ESMTP"
            conversation.send(Reply(220, None, (f"{self._door.hostname} {dialect} mailsuite",)))
        while True:
            if visit.completed:
                visit.note_written()
            event = await conversation.receive()
            kind = type(event)
            if kind is Content:
                await receiving.content(visit, event)
            elif kind is Bdat:
                receiving.begin_chunk(visit)
            elif kind is Quit:
                visit.part()
                conversation.send(replies.BYE)
                return None
            else:
                handover = self._start_tls(visit) if kind is StartTls else await self._respond(visit, event)
                if handover is not None:
                    return handover

    def _start_tls(self, visit: Visit) -> Handover | None:
        """Everything that was said in plaintext is forgotten: core and session are fresh (RFC 3207 section 4.2)."""
        try:
            options = None if self._door.tls is None else self._door.tls()
        except Exception:  # noqa: BLE001 - whatever it is, mail can go on without TLS where that is allowed
            _log.failure("TLS cannot be started")
            options = None
        if options is None:
            visit.conversation.send(replies.TLS_UNAVAILABLE)
            return None
        visit.conversation.send(replies.READY_FOR_TLS)
        core, session = self._door.open(secure=True, greeted=True)
        return Handover(core, session, options)

    async def _respond(self, visit: Visit, event: Event) -> Handover | None:
        """The one place that sends replies to commands."""
        reception = visit.reception
        try:
            answer = await _ANSWERS[type(event)](visit, event)
        except Refused as refused:
            answer = refused.reply
        except ENDINGS:
            raise
        except DirectoryUnavailable as error:  # no defect of ours: one line, not a traceback for each recipient
            _log.error(
                "{event} from {host}: {error}",
                event=type(event).__name__,
                host=visit.conversation.peer.host,
                error=error,
            )
            answer = replies.LOCAL_ERROR
        except Exception:  # noqa: BLE001 - whatever went wrong: a temporary answer loses nothing
            _log.failure("{event} from {host} failed", event=type(event).__name__, host=visit.conversation.peer.host)
            answer = replies.LOCAL_ERROR
        if isinstance(answer, Handover):
            return answer
        if answer.code >= 400:
            _log_refusal(visit, event, reception, answer)
        if type(event) is ContentEnd and event.last and self._door.offer.lmtp:
            # RFC 2033 sections 4.2 and 4.3
            assert reception is not None
            for _ in range(reception.recipients):
                visit.conversation.send(answer)
        else:
            visit.conversation.send(answer)
        return None


def _log_refusal(visit: Visit, event: Event, reception: Reception | None, reply: Reply) -> None:
    """For the operator who is asked why somebody's mail was refused."""
    if isinstance(event, Mail):
        what = f"from=<{event.reverse_path or ''}>"
    elif isinstance(event, Atrn | Turn | Etrn):
        if reply.code == replies.NO_MAIL.code:
            return  # an answer, not a refusal, and whoever gave it has logged it
        who = "" if visit.identity is None else f" as {visit.identity.name}"
        what = event.line().decode("ascii", "replace").rstrip() + who
    elif reception is not None and isinstance(event, Rcpt | Data | ContentEnd):
        recipient = f" to=<{event.address}>" if isinstance(event, Rcpt) else ""
        what = f"from=<{reception.envelope.reverse_path or ''}>{recipient}"
    else:
        return
    visit.door.log(f"refused: {what} of {visit.peer_name}: {reply}")


# ---------------------------------------------------------------------------- the commands of a session


async def _ehlo(visit: Visit, command: Ehlo) -> Reply:
    visit.hello = command
    visit.forget()
    offer: Offer = visit.conversation.core.offer
    return offer.ehlo_reply(command.domain, secure=visit.conversation.tls is not None)


async def _helo(visit: Visit, command: Helo) -> Reply:
    visit.hello = command
    visit.forget()
    return Reply(250, None, (visit.door.hostname,))


async def _auth(visit: Visit, command: Auth) -> Reply:
    authenticator = visit.door.authenticator
    if authenticator is None:
        raise Refused(replies.NOT_IMPLEMENTED)
    mechanisms = visit.conversation.core.offer.mechanisms
    exchange = Authentication(authenticator, visit.door.sasl, mechanisms, visit.door.admits, visit.refuse_login)
    visit.identity = await exchange.run(visit.conversation, command)
    return replies.AUTHENTICATED


async def _vrfy(_visit: Visit, _command: Vrfy) -> Reply:
    return replies.CANNOT_VRFY  # RFC 5321 section 3.5.3 and 7.3


async def _noop(_visit: Visit, _command: Noop) -> Reply:
    return replies.OK


async def _help(_visit: Visit, _command: Help) -> Reply:
    return replies.HELP


async def _rset(visit: Visit, _command: Rset) -> Reply:
    visit.forget()
    return replies.RESET


_ANSWERS: dict[type[Event], Callable[[Visit, Any], Awaitable[Reply | Handover]]] = {
    Mail: receiving.mail,
    Rcpt: receiving.rcpt,
    Data: receiving.data,
    ContentEnd: receiving.content_end,
    Ehlo: _ehlo,
    Helo: _helo,
    Rset: _rset,
    Auth: _auth,
    Atrn: queueing.atrn,
    Turn: queueing.turn,
    Etrn: queueing.etrn,
    Vrfy: _vrfy,
    Noop: _noop,
    Help: _help,
}
