"""The session of an SMTP server: takes mail in and says 250 when it is on stable storage.

One class serves the open port 25, submission and LMTP; what differs is its `Door`. LMTP answers once for each recipient
(RFC 2033 section 4.2); here as there the answer says that the message is in the queue, on stable storage.

Rules: replies are sent in one place; what is refused says so by raising `Refused`; anything else that goes wrong
is 451 4.3.0 and a logged failure, because a temporary answer loses nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from mailsuite.interfaces import DirectoryUnavailable, IAuthenticator, IConversation, IRouter, ISpool, Refused
from mailsuite.mail import replies
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Identity
from mailsuite.mail.trace import received_line, with_protocol
from mailsuite.session.authentication import Authentication
from mailsuite.session.handover import Handover
from mailsuite.session.loglines import LogLines
from mailsuite.session.reception import Amendments, Reception
from mailsuite.wire.core import ConnectionClosed, Event, PeerTooSlow
from mailsuite.wire.sasl import ServerParameters
from mailsuite.wire.smtp.commands import (
    Auth,
    Bdat,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore

_log = Logger()

# What ends a session from outside, wherever it waits: never answered.
_ENDINGS = (ConnectionClosed, PeerTooSlow, CancelledError)


@dataclass(frozen=True, slots=True)
class Door:
    """What one listener is for, and whom a session asks.

    `offer` is what is offered in plaintext, `secure_offer` under TLS. `tls` is what STARTTLS hands over to.
    `submission` demands authentication, binds senders to the account and completes messages (RFC 6409).
    `trusted` are networks whose peers may relay without authentication. `now` gives POSIX seconds. `log` takes a line
    for each message that was queued.
    """

    hostname: str
    offer: Offer
    secure_offer: Offer
    router: IRouter
    spool: ISpool
    now: Callable[[], float]
    authenticator: IAuthenticator | None = None
    sasl: ServerParameters = field(default_factory=ServerParameters)
    tls: Callable[[], Any] | None = None
    submission: bool = False
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    max_recipients: int = 1000  # RFC 5321 section 4.5.3.1.8 asks for 100 at least
    log: Callable[[str], None] = field(default_factory=LogLines)

    def open(self, *, secure: bool = False, greeted: bool = False) -> tuple[SmtpServerCore, InboundSession]:
        """A core and a session for a new connection, or for the same one after STARTTLS (`greeted`)."""
        core = SmtpServerCore(self.secure_offer if secure else self.offer, greeted=greeted)
        return core, InboundSession(self, greeted=greeted)

    def trusts(self, host: str) -> bool:
        """Whether a peer at this address may relay."""
        if not self.trusted or not host:
            return False
        address = ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.trusted)


class InboundSession:
    """One connection's conversation; see `Door` for what it is about."""

    _conversation: IConversation

    def __init__(self, door: Door, *, greeted: bool = False) -> None:
        self._door = door
        self._greeted = greeted
        self._hello: Ehlo | Helo | None = None
        self._identity: Identity | None = None
        self._trusted = False
        self._reception: Reception | None = None

    async def __call__(self, conversation: IConversation) -> Handover | None:
        """Talk until the peer quits, or until the connection is to become another one."""
        self._conversation = conversation
        self._trusted = self._door.trusts(conversation.peer.host)
        try:
            return await self._converse(conversation)
        except ConnectionClosed:
            return None
        except PeerTooSlow:
            conversation.send(replies.TOO_SLOW)
            return None
        finally:
            self._forget()

    async def _converse(self, conversation: IConversation) -> Handover | None:
        if not self._greeted:
            dialect = "LMTP" if self._door.offer.lmtp else "ESMTP"
            conversation.send(Reply(220, None, (f"{self._door.hostname} {dialect} mailsuite",)))
        while True:
            event = await conversation.receive()
            kind = type(event)
            if kind is Content:
                await self._content(event)
            elif kind is Bdat:
                self._begin_chunk()
            elif kind is Quit:
                conversation.send(replies.BYE)
                return None
            elif kind is StartTls:
                handover = self._start_tls()
                if handover is not None:
                    return handover
            else:
                await self._respond(event)

    async def _respond(self, event: Event) -> None:
        """The one place that sends replies to commands."""
        reception = self._reception
        try:
            reply = await self._ANSWERS[type(event)](self, event)
        except Refused as refused:
            reply = refused.reply
        except _ENDINGS:
            raise
        except DirectoryUnavailable as error:  # no defect of ours: one line, not a traceback for each recipient
            _log.error(
                "{event} from {host}: {error}",
                event=type(event).__name__,
                host=self._conversation.peer.host,
                error=error,
            )
            reply = replies.LOCAL_ERROR
        except Exception:  # noqa: BLE001 - whatever went wrong: a temporary answer loses nothing
            self._log_failure(event)
            reply = replies.LOCAL_ERROR
        if reply.code >= 400:
            self._log_refusal(event, reception, reply)
        if type(event) is ContentEnd and event.last and self._door.offer.lmtp:
            # RFC 2033 sections 4.2 and 4.3
            assert reception is not None
            for _ in range(reception.recipients):
                self._conversation.send(reply)
        else:
            self._conversation.send(reply)

    def _log_refusal(self, event: Event, reception: Reception | None, reply: Reply) -> None:
        """For the operator who is asked why somebody's mail was refused."""
        if isinstance(event, Mail):
            sender, recipient = event.reverse_path, ""
        elif reception is not None and isinstance(event, Rcpt | Data | ContentEnd):
            sender = reception.envelope.reverse_path
            recipient = f" to=<{event.address}>" if isinstance(event, Rcpt) else ""
        else:
            return
        host = self._conversation.peer.host or "a local socket"
        self._door.log(f"refused: from=<{sender or ''}>{recipient} of {host}: {reply}")

    def _log_failure(self, event: Event) -> None:
        _log.failure("{event} from {host} failed", event=type(event).__name__, host=self._conversation.peer.host)

    # ----------------------------------------------------------------------------------- before mail

    async def _ehlo(self, command: Ehlo) -> Reply:
        self._hello = command
        self._forget()
        offer: Offer = self._conversation.core.offer
        return offer.ehlo_reply(command.domain)

    async def _helo(self, command: Helo) -> Reply:
        self._hello = command
        self._forget()
        return Reply(250, None, (self._door.hostname,))

    def _start_tls(self) -> Handover | None:
        """Everything that was said in plaintext is forgotten: core and session are fresh (RFC 3207 section 4.2)."""
        try:
            options = None if self._door.tls is None else self._door.tls()
        except Exception:  # noqa: BLE001 - whatever it is, mail can go on without TLS where that is allowed
            _log.failure("TLS cannot be started")
            options = None
        if options is None:
            self._conversation.send(replies.TLS_UNAVAILABLE)
            return None
        self._conversation.send(replies.READY_FOR_TLS)
        core, session = self._door.open(secure=True, greeted=True)
        return Handover(core, session, options)

    async def _auth(self, command: Auth) -> Reply:
        authenticator = self._door.authenticator
        if authenticator is None:
            raise Refused(replies.NOT_IMPLEMENTED)
        mechanisms = self._conversation.core.offer.mechanisms
        exchange = Authentication(authenticator, self._door.sasl, mechanisms)
        self._identity = await exchange.run(self._conversation, command)
        return replies.AUTHENTICATED

    async def _vrfy(self, _command: Vrfy) -> Reply:
        return replies.CANNOT_VRFY  # RFC 5321 section 3.5.3 and 7.3

    async def _noop(self, _command: Noop) -> Reply:
        return replies.OK

    async def _help(self, _command: Help) -> Reply:
        return replies.HELP

    async def _rset(self, _command: Rset) -> Reply:
        self._forget()
        return replies.RESET

    # ------------------------------------------------------------------------------- the transaction

    async def _mail(self, command: Mail) -> Reply:
        identity = self._identity
        sender = command.reverse_path
        # RFC 6409 section 6.1. On other doors it is mail servers that log in, and what they relay has any sender.
        if self._door.submission and identity is not None and sender is not None and not identity.may_send_as(sender):
            raise Refused(replies.NOT_YOUR_ADDRESS)
        envelope = Envelope(
            sender,
            command.body or Body.SEVEN_BIT,
            command.smtputf8,
            None if identity is None else identity.name,
        )
        amendments = Amendments(self._door.hostname, self._door.now) if self._door.submission else None
        self._reception = Reception(envelope, amendments)
        return replies.SENDER_OK

    async def _rcpt(self, command: Rcpt) -> Reply:
        reception = self._reception
        assert reception is not None
        if reception.recipients >= self._door.max_recipients:
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        targets = await self._door.router.resolve(command.address, self._identity, trusted=self._trusted)
        reception.accept(command.address, targets)
        return replies.RECIPIENT_OK

    async def _data(self, _command: Data) -> Reply:
        self._begin_content()
        return replies.START_CONTENT

    def _begin_chunk(self) -> None:
        """A chunk wants no answer: what goes wrong is told at its end."""
        reception = self._reception
        assert reception is not None
        if reception.begun:
            return
        try:
            self._begin_content()
        except Refused as refused:
            reception.fail(refused.reply)
        except Exception:  # noqa: BLE001 - as in `_respond`
            _log.failure("no draft can be begun")
            reception.fail(replies.LOCAL_ERROR)

    def _begin_content(self) -> None:
        assert self._reception is not None
        self._reception.begin(self._door.spool, self._trace)

    async def _content(self, event: Content) -> None:
        """Content wants no answer: what goes wrong is told at its end."""
        reception = self._reception
        assert reception is not None
        try:
            await reception.write(event.data)
        except _ENDINGS:
            raise
        except Exception:  # noqa: BLE001 - as in `_respond`
            self._log_failure(event)
            reception.fail(replies.LOCAL_ERROR)

    async def _content_end(self, event: ContentEnd) -> Reply:
        reception = self._reception
        assert reception is not None
        fault = event.fault or reception.fault
        if fault is not None:
            self._forget()
            return fault
        if not event.last:
            return replies.CHUNK_OK
        queue_id = reception.queue_id
        try:
            size = await reception.commit()
        finally:
            self._forget()
        envelope, host = reception.envelope, self._conversation.peer.host or "a local socket"
        who = f" as {envelope.submitter}" if envelope.submitter else ""
        self._door.log(
            f"{queue_id}: from=<{envelope.reverse_path or ''}> of {host}{who} "
            f"for {len(reception.targets)} recipients, {size} octets: queued"
        )
        return replies.QUEUED.saying(f"Queued as {queue_id}")

    def _forget(self) -> None:
        if self._reception is not None:
            self._reception.abort()
            self._reception = None

    def _trace(self, queue_id: str) -> bytes:
        """Our Received line (RFC 5321 section 4.4)."""
        conversation, reception, hello = self._conversation, self._reception, self._hello
        assert reception is not None
        assert hello is not None
        smtputf8 = reception.envelope.smtputf8
        protocol = with_protocol(
            lmtp=self._door.offer.lmtp,
            extended=type(hello) is Ehlo,
            tls=conversation.tls is not None,
            authenticated=self._identity is not None,
            smtputf8=smtputf8,
        )
        return received_line(
            helo=hello.domain,
            peer=conversation.peer,
            hostname=self._door.hostname,
            protocol=protocol,
            queue_id=queue_id,
            now=self._door.now(),
            recipient=reception.only_recipient,
            tls=conversation.tls,
            smtputf8=smtputf8,
        )

    _ANSWERS: ClassVar[dict[type[Event], Callable[[InboundSession, Any], Awaitable[Reply]]]] = {
        Mail: _mail,
        Rcpt: _rcpt,
        Data: _data,
        ContentEnd: _content_end,
        Ehlo: _ehlo,
        Helo: _helo,
        Rset: _rset,
        Auth: _auth,
        Vrfy: _vrfy,
        Noop: _noop,
        Help: _help,
    }
