"""The session of a customer that pulls its mail from a provider: ATRN (RFC 2645), or ETRN (RFC 1985).

It hears the greeting, says EHLO, takes up TLS and authenticates as its settings say, and asks. After a 250 to ATRN the
roles turn: the connection is handed over to a server's core and session, which are made when they are needed, and what
they take in is counted here. ETRN asks for one node after the other; that mail comes on other connections.

Rules
- Credentials go over TLS only: where there is none, the pull ends before AUTH.
- Every end is a value, `PullSession.end`: it may be read at any time, and is final when the connection has ended.
- A turn has ended well when the provider has said QUIT. A connection that ends without it is a line that broke,
  whatever came before; what was answered with 250 is ours all the same.
- HELO is not tried: a server without EHLO offers neither ATRN nor AUTH.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final

from zope.interface import implementer

from mailsuite.interfaces import IConversation
from mailsuite.mail import replies
from mailsuite.mail.address import Address, domain_key
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Peer, TLSFacts
from mailsuite.session.client_auth import InThread, NotAuthenticated, authenticate
from mailsuite.session.exchange import HungUp, exchange, hear
from mailsuite.session.handover import Handover, Session
from mailsuite.wire.core import ConnectionClosed, Core, Event, PeerTooSlow, RemoteProtocolError
from mailsuite.wire.sasl import ClientCredentials
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.client_states import LEGAL
from mailsuite.wire.smtp.commands import Atrn, Content, ContentEnd, Data, Ehlo, Etrn, Mail, Quit, Rcpt, StartTls

_LOST: Final = (ConnectionClosed, PeerTooSlow, RemoteProtocolError)
# RFC 4954 sections 4 and 6; 530 is RFC 2645's own as well (section 5.2.1).
_DENIALS: Final = frozenset({530, 534, 535, 538})


class PullStage(StrEnum):
    """How far a pull came."""

    CONNECTING = "connecting"
    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    AUTH = "auth"
    ASKING = "asking"
    RECEIVING = "receiving"


class PullResult(StrEnum):
    """What a pull came to."""

    MAIL = "mail"
    NO_MAIL = "no mail"
    STARTED = "started"  # ETRN: the provider sends it by itself now
    CHECKED = "checked"  # a dry run: all is well up to where one would ask
    TEMPORARY = "temporary failure"
    UNAVAILABLE = "unavailable"  # the provider does not do what is asked of it, and will not in a minute
    REFUSED = "refused"  # all that came was refused by us; people can mend that, and the provider may still have it
    DENIED = "denied"  # it does not take us for whom we are, or our credentials may not be sent

    @property
    def is_success(self) -> bool:
        """Whether all went well, mail or no mail."""
        return self in (PullResult.MAIL, PullResult.NO_MAIL, PullResult.STARTED, PullResult.CHECKED)


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What the provider said to ETRN for one node."""

    node: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is: the stage, and what has come in."""

    stage: PullStage
    messages: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class PullEnd:
    """How a pull ended.

    `stage` is what was under way, `reply` the reply that decided, where one did, `text` says what happened in words.
    `messages` were taken in, of `octets` with their headers; `refusals` is how many commands of the provider we have
    refused. `nodes` are the answers to ETRN. `seconds` is how long it took, dialling included.
    """

    stage: PullStage
    result: PullResult
    text: str
    reply: Reply | None = None
    messages: int = 0
    octets: int = 0
    refusals: int = 0
    nodes: tuple[NodeAnswer, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PullSettings:
    """What a pull is told. `host` is the provider's name, `hostname` our own.

    `domains` are what is asked for: with ATRN, none means all that are ours there; with `etrn` they are nodes as RFC
    1985 has them. `tls` is a mode of `NextHop.tls`; "implicit" says that the connection is under TLS already. A
    `dry_run` goes up to where it would ask, and says QUIT.
    """

    hostname: str
    host: str
    domains: tuple[str, ...] = ()
    etrn: bool = False
    tls: str = "verified"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    dry_run: bool = False


class _Ended(Exception):
    """The pull has come to its end, with leave to be taken."""

    def __init__(self, result: PullResult, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.result = result
        self.reply = reply


class PullSession:
    """Asks one provider for mail over one connection.

    `turn` makes the pair that takes the mail in, and is needed for ATRN; `tls` makes the options of `Handover.tls`;
    `in_thread` is for mechanisms that compute for long, and is needed where there are credentials. `progress` is
    called whenever there is some.
    """

    def __init__(
        self,
        settings: PullSettings,
        *,
        turn: Callable[[], tuple[Core, Session]] | None = None,
        tls: Callable[[], Any] | None = None,
        in_thread: InThread | None = None,
        progress: Callable[[PullProgress], object] | None = None,
    ) -> None:
        if settings.username is not None and in_thread is None:
            raise ValueError("credentials need in_thread")
        if turn is None and not (settings.etrn or settings.dry_run):
            raise ValueError("ATRN needs a turn")
        self._settings = settings
        self._turn = turn
        self._tls = tls
        self._in_thread = in_thread
        self._progress = progress
        self._tally = _Tally(self._tell)
        self._nodes: list[NodeAnswer] = []
        self._end = PullEnd(PullStage.GREETING, PullResult.TEMPORARY, "no greeting came")

    @property
    def end(self) -> PullEnd:
        """How it ended, or what its end would be if the connection were lost now."""
        tally = self._tally
        return replace(
            self._end,
            messages=tally.messages,
            octets=tally.octets,
            refusals=tally.refusals,
            nodes=tuple(self._nodes),
        )

    def core(self) -> SmtpClientCore:
        """A core for the connection to the provider."""
        return SmtpClientCore()

    async def __call__(self, conversation: IConversation) -> Handover | None:
        """Talk until the end is known; hand over for STARTTLS, and for the turn."""
        return await self._talk(conversation, greeted=False)

    async def _go_on_secured(self, conversation: IConversation) -> Handover | None:
        """The session behind the handshake."""
        return await self._talk(conversation, greeted=True)

    async def _talk(self, conversation: IConversation, *, greeted: bool) -> Handover | None:
        try:
            handover = await self._make_ready(conversation, greeted=greeted)
            if handover is None:
                handover = await self._ask(conversation)
            return handover
        except _Ended as end:
            self._end_with(end.result, str(end), end.reply)
        except HungUp as hung_up:
            self._end_with(PullResult.TEMPORARY, f"{self._settings.host} hangs up: {hung_up.reply}", hung_up.reply)
            return None
        except _LOST as error:
            self._end_with(PullResult.TEMPORARY, f"the connection was lost ({self._end.stage}): {error}")
            return None
        await self._quit(conversation)
        return None

    # ---------------------------------------------------------------------------------- getting ready

    async def _make_ready(self, conversation: IConversation, *, greeted: bool) -> Handover | None:
        """Come to where one may ask. Raises `_Ended`, and as `exchange`."""
        settings = self._settings
        if not greeted:
            self._enter(PullStage.GREETING)
            greeting = (await hear(conversation)).reply
            if not greeting.is_positive:
                raise self._refused("does not serve us", greeting)
        await self._say_hello(conversation)
        if conversation.tls is None and settings.tls != "none":
            handover = await self._start_tls(conversation)
            if handover is not None:
                return handover
        if settings.username is not None:
            await self._authenticate(conversation, settings.username)
        return None

    async def _say_hello(self, conversation: IConversation) -> None:
        self._enter(PullStage.HELLO)
        reply = await exchange(conversation, Ehlo(self._settings.hostname))
        if not reply.is_positive:
            raise self._refused("refuses EHLO", reply)

    async def _start_tls(self, conversation: IConversation) -> Handover | None:
        """Begin TLS; None to go on without, where that is allowed."""
        self._enter(PullStage.STARTTLS)
        host, optional = self._settings.host, self._settings.tls == "opportunistic"
        if self._settings.tls == "implicit":
            raise _Ended(PullResult.UNAVAILABLE, f"the connection to {host} is not under TLS")
        if self._tls is None or not conversation.core.capabilities.starttls:
            if optional:
                return None
            raise _Ended(PullResult.UNAVAILABLE, f"TLS is required, and {host} does not offer STARTTLS")
        options = self._tls()
        reply = await exchange(conversation, StartTls())
        if reply.is_positive:
            # Whoever reads this later knows that the handshake has failed: else the next stage is entered.
            self._end_with(PullResult.TEMPORARY, f"the TLS handshake with {host} has failed")
            return Handover(SmtpClientCore(greeted=True), self._go_on_secured, options)
        if optional:
            return None
        raise self._refused("refuses STARTTLS, and TLS is required", reply)

    async def _authenticate(self, conversation: IConversation, username: str) -> None:
        self._enter(PullStage.AUTH)
        host = self._settings.host
        if conversation.tls is None:
            raise _Ended(
                PullResult.DENIED, f"credentials go over TLS only, and the connection to {host} is in plaintext"
            )
        assert self._in_thread is not None
        try:
            credentials = ClientCredentials(username, self._settings.password)
            await authenticate(conversation, credentials, self._in_thread)
        except NotAuthenticated as error:
            temporary = error.reply is not None and error.reply.is_transient
            result = PullResult.TEMPORARY if temporary else PullResult.DENIED
            raise _Ended(result, f"authentication with {host} has failed: {error}", error.reply) from error

    # ----------------------------------------------------------------------------------------- asking

    async def _ask(self, conversation: IConversation) -> Handover | None:
        self._enter(PullStage.ASKING)
        await self._expect_offer(conversation)
        settings = self._settings
        if settings.dry_run:
            verb = Etrn.verb if settings.etrn else Atrn.verb
            what = ", ".join(settings.domains) or "all domains"
            login = f"the login as {settings.username} works" if settings.username is not None else "it answers"
            raise _Ended(PullResult.CHECKED, f"{login}; {verb} would be said for {what}")
        if settings.etrn:
            await self._ask_for_nodes(conversation)
            return None
        return await self._ask_for_turn(conversation)

    async def _expect_offer(self, conversation: IConversation) -> None:
        keyword = Etrn.verb if self._settings.etrn else Atrn.verb
        if conversation.core.authenticated and not conversation.core.capabilities.offers(keyword):
            # Some offer it only to whom they know. RFC 4954 section 4 leaves it to the client to ask again.
            await self._say_hello(conversation)
            self._enter(PullStage.ASKING)
        if not conversation.core.capabilities.offers(keyword):
            raise _Ended(PullResult.UNAVAILABLE, f"{self._settings.host} does not offer {keyword}")

    async def _ask_for_turn(self, conversation: IConversation) -> Handover:
        reply = await exchange(conversation, Atrn(self._settings.domains))
        if reply.is_positive:
            # RFC 2645 section 5.3: now we are the server, and greet.
            assert self._turn is not None
            core, session = self._turn()
            self._enter(PullStage.RECEIVING)
            return Handover(core, partial(self._receive, session))
        if reply.code == 453:  # RFC 2645 section 7: "You have no mail"
            raise _Ended(PullResult.NO_MAIL, "there is no mail", reply)
        raise self._refused("refuses ATRN", reply)

    async def _ask_for_nodes(self, conversation: IConversation) -> None:
        for node in self._settings.domains:
            reply = await exchange(conversation, Etrn(node))
            self._nodes.append(NodeAnswer(node, reply))
            self._tell()
        raise _of_nodes(self._nodes)

    async def _receive(self, session: Session, conversation: IConversation) -> Handover | None:
        """The server's session, with somebody who counts."""
        watched = _Watched(conversation, self._tally)
        handover = await session(watched)
        if watched.took_leave:
            self._end_with(*self._of_turn())
        return handover

    def _of_turn(self) -> tuple[PullResult, str]:
        """What a turn that ended well has come to."""
        tally = self._tally
        if tally.last_refusal is None:
            # RFC 2645 section 5.2.1: instead of 453 the provider may turn the line, and say QUIT behind EHLO.
            text = "all the mail has come" if tally.messages else "there is no mail"
            return (PullResult.MAIL if tally.messages else PullResult.NO_MAIL), text
        commands = "1 command" if tally.refusals == 1 else f"{tally.refusals} commands"
        text = f"we have refused {commands}, the last with {tally.last_refusal}"
        if tally.turned_away is not None:
            text += f"; {self._cure(*tally.turned_away)}"
        if tally.messages:
            return PullResult.MAIL, text
        # A full disk, say, mends itself: all of it is still there.
        return (PullResult.TEMPORARY if tally.may_succeed_later else PullResult.REFUSED), text

    def _cure(self, recipient: Address, reply: Reply) -> str:
        """What somebody can do about the recipient that was refused first."""
        domain = recipient.domain or str(recipient)
        if not _is_foreign(reply):
            return f"the first recipient was at {domain}: see who has mailboxes there by `mailsuite user list`"
        asked = self._settings.domains
        if asked and recipient.domain_key not in map(domain_key, asked):
            return f"{domain} was not asked for: add it to `domains` of the pull"
        return f"{domain} is not ours here: add it by `mailsuite domain add {domain}`, or give it a [[route]]"

    # ----------------------------------------------------------------------------------------- ending

    async def _quit(self, conversation: IConversation) -> None:
        """Take leave, and wait for the 221 (RFC 5321 section 4.1.1.10); nothing depends on it any more."""
        if conversation.core.state not in LEGAL[Quit]:
            return
        conversation.send(Quit())
        try:
            await conversation.receive()
        except _LOST:
            return

    def _refused(self, how: str, reply: Reply) -> _Ended:
        return _Ended(_judge(reply), f"{self._settings.host} {how}: {reply}", reply)

    def _enter(self, stage: PullStage) -> None:
        self._end = PullEnd(stage, PullResult.TEMPORARY, f"the line broke ({stage})")
        self._tell()

    def _end_with(self, result: PullResult, text: str, reply: Reply | None = None) -> None:
        self._end = PullEnd(self._end.stage, result, text, reply)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(PullProgress(self._end.stage, self._tally.messages, self._tally.octets))


def _judge(reply: Reply) -> PullResult:
    """What a refusal means for the next try."""
    if reply.code in _DENIALS:
        return PullResult.DENIED
    return PullResult.UNAVAILABLE if reply.is_permanent else PullResult.TEMPORARY


def _of_nodes(answers: Sequence[NodeAnswer]) -> _Ended:
    """What the answers to ETRN come to together (RFC 1985 section 5.3): where one was refused, that is the end."""
    refused = [answer for answer in answers if not answer.reply.is_positive]
    if refused:
        # 458 is for now; 459, and syntax that is not understood, are for good.
        first = next((answer for answer in refused if answer.reply.code != 458), refused[0])
        result = PullResult.DENIED if first.reply.code == 459 else _judge(first.reply)
        started = f"{len(answers) - len(refused)} of {len(answers)} nodes were taken; " if len(answers) > 1 else ""
        return _Ended(result, f"{started}{first.node}: {first.reply}", first.reply)
    last = answers[-1].reply if answers else None
    if all(answer.reply.code == 251 for answer in answers):
        return _Ended(PullResult.NO_MAIL, "there is no mail", last)
    return _Ended(PullResult.STARTED, "the provider begins to send", last)


def _is_foreign(reply: Reply) -> bool:
    """Whether we have refused a recipient since its domain is not ours."""
    return (reply.code, reply.status) == (replies.NOT_OUR_DOMAIN.code, replies.NOT_OUR_DOMAIN.status)


# ------------------------------------------------------------------------------------------------ counting


class _Tally:
    """What has come in, and what we have refused; calls `changed` whenever there is more of it.

    `turned_away` is the recipient to be told of: the first whose domain is not ours, or else the first of all.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.messages = 0
        self.octets = 0
        self.refusals = 0
        self.last_refusal: Reply | None = None
        self.turned_away: tuple[Address, Reply] | None = None
        self.may_succeed_later = False

    def content(self, octets: int) -> None:
        """Some content has come."""
        self.octets += octets
        self._changed()

    def answered(self, event: Event, reply: Reply) -> None:
        """A command of the provider was answered."""
        if reply.code >= 400 and isinstance(event, Mail | Rcpt | Data | ContentEnd):
            self.refusals += 1
            self.last_refusal = reply
            self.may_succeed_later = self.may_succeed_later or (reply.is_transient and not _is_foreign(reply))
            if isinstance(event, Rcpt):
                first = self.turned_away
                if first is None or (_is_foreign(reply) and not _is_foreign(first[1])):
                    self.turned_away = event.address, reply
            self._changed()
        elif isinstance(event, ContentEnd) and event.last and reply.is_positive:
            self.messages += 1
            self._changed()


@implementer(IConversation)
class _Watched:
    """A conversation that is overheard: the server's session talks through it and need not know."""

    def __init__(self, conversation: IConversation, tally: _Tally) -> None:
        self._conversation = conversation
        self._tally = tally
        self._event: Event | None = None
        self.took_leave = False
        self.peer: Peer = conversation.peer
        self.local: Peer = conversation.local
        self.tls: TLSFacts | None = conversation.tls
        self.core: Any = conversation.core

    @property
    def line_by_line(self) -> bool:
        return bool(self._conversation.line_by_line)

    @line_by_line.setter
    def line_by_line(self, value: bool) -> None:
        self._conversation.line_by_line = value

    async def receive(self) -> Any:  # noqa: ANN401 - each core has events of its own
        event = await self._conversation.receive()
        if isinstance(event, Content):
            self._tally.content(len(event.data))
        else:
            self._event = event
            self.took_leave = isinstance(event, Quit)
        return event

    def send(self, message: Any) -> None:  # noqa: ANN401 - as there
        self._conversation.send(message)
        event, self._event = self._event, None
        if event is not None and isinstance(message, Reply):
            self._tally.answered(event, message)

    def drain(self) -> Awaitable[None]:
        return self._conversation.drain()
