"""The session of an SMTP or LMTP client that drains a queue run, whoever dialled.

It says EHLO, takes up TLS and authenticates as the next hop's settings say, and then holds one transaction after the
other for as long as the run has deliveries. Every delivery that it takes from the run it settles or gives back.

Rules
- Before the next hop is ready (greeting, EHLO, STARTTLS, AUTH) no delivery is taken, and a refusal is nobody's outcome
  yet: it stands in `RelaySession.end`, and whoever dialled may try another host, or settle the run by it.
- A recipient fails only by a 5yz of the peer, or by what EHLO has told. A 421, a lost connection, too slow a peer, a
  protocol that is broken: whoever has no answer yet is deferred. That includes the time between the final dot and its
  reply: a second copy is possible then, a lost message is not (RFC 1047).
- A delivery whose MAIL has found no answer on a connection that was used before is given back, not deferred: servers
  end connections when they have served enough messages. Where its content was said ahead of that answer, and the
  connection ends without a 421, it is deferred: another host must not be given what this one may have.
- In a customer's turn (`breaks_count` false) a line that breaks is nobody's attempt: what was under way is given back,
  and repeated in the next turn, unless somebody has it or all have been answered.
- Where the next hop takes TRANSIDs (RFC 1845), every transaction has one, so that what the line has cut short goes on
  where it was, and what has arrived unnoticed does not come twice. Only then are many messages under way at once.
- A defect of ours settles and releases nothing but what has arrived: the exception leaves the session, and the rest is
  for whoever has the run.
- With `quit_early`, QUIT ends the group of the last content (RFC 2920 section 3.1), unless the connection is to stay
  for a moment; what comes while it stays, and finds the server gone, is given back.
- Content that cannot be read any further is never ended: the connection is dropped in the midst of it.
- Credentials go over TLS only, and their refusal defers: our own configuration must not bounce mail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError

from mailsuite.interfaces import IConversation, IQueueRun
from mailsuite.mail.networks import LOOPBACK, is_within
from mailsuite.mail.queue import Outcome, Via
from mailsuite.mail.route import NextHop
from mailsuite.mail.session import Peer
from mailsuite.mail.status import EnhancedStatus
from mailsuite.session.attempt import Attempt, deferred
from mailsuite.session.client_auth import InThread, NotAuthenticated, authenticate
from mailsuite.session.exchange import HungUp, exchange, hear
from mailsuite.session.fitting import fit
from mailsuite.session.handover import Handover
from mailsuite.session.pipeline import Pipeline
from mailsuite.session.reading import ContentUnreadable
from mailsuite.session.streaming import Stream
from mailsuite.session.transaction import UNREADABLE, Terms, Transaction
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow, RemoteProtocolError
from mailsuite.wire.sasl import ClientCredentials
from mailsuite.wire.smtp.capabilities import Capabilities
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.client_states import LEGAL
from mailsuite.wire.smtp.commands import Ehlo, Helo, Quit, StartTls
from mailsuite.wire.smtp.response import ReplyLimits

_BAD_CONNECTION: Final = EnhancedStatus(4, 4, 2)  # RFC 3463 section 3.5
_NO_TLS: Final = EnhancedStatus(4, 7, 4)  # "Security features not supported", RFC 3463 section 3.8
_TLS_FAILED: Final = EnhancedStatus(4, 7, 0)
_NOT_AUTHENTICATED: Final = EnhancedStatus(4, 7, 8)  # RFC 4954 section 6

_LOST: Final = (ConnectionClosed, PeerTooSlow, RemoteProtocolError)


class Stage(StrEnum):
    """How far a relay session came."""

    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    AUTH = "auth"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """How a relay session ended, for whoever dialled.

    `stage` is what was under way. Before `Stage.READY` no delivery has been taken, and `outcome` is what the recipients
    of the run would come to if no other host were tried: failed after a 5yz greeting or answer to HELO, else deferred.
    At `Stage.READY` it is None when the run was drained, else it says why the connection ended before. `settled` counts
    deliveries with outcomes.
    """

    stage: Stage
    outcome: Outcome | None
    settled: int = 0

    @property
    def reached(self) -> bool:
        """Whether the host was ready for mail: trying another one is not called for."""
        return self.stage is Stage.READY

    @property
    def tls_failed(self) -> bool:
        """Whether it failed at STARTTLS, so that a connection without TLS may do where TLS is opportunistic."""
        return self.stage is Stage.STARTTLS


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """What a relay session is told of its next hop.

    `hostname` is what we call ourselves. `hop.host` is the host that was dialled: outcomes name it as the remote.
    `policy` says by what policy `hop.tls` was chosen, for the history.
    `pipelining`, `chunking` and `checkpoint` false do without, for peers that offer what they do not do. `window` is
    how many commands may be without an answer (RFC 2920 section 3.1); in `streaming`, how many recipients, and `ahead`
    is how many messages. `breaks_count` says whether a delivery that was under way when the connection broke counts as
    attempted. With `quit_early` QUIT stands behind the last content, where the server takes pipelining and no more is
    expected; what comes after that is for another connection.
    """

    hostname: str
    hop: NextHop
    pipelining: bool = True
    chunking: bool = True
    checkpoint: bool = True
    window: int = 100
    ahead: int = 50
    limits: ReplyLimits | None = None
    breaks_count: bool = True
    policy: str = ""
    quit_early: bool = False

    def core(self, *, greeted: bool = False) -> SmtpClientCore:
        """A core for a connection to this hop."""
        return SmtpClientCore(lmtp=self.hop.lmtp, greeted=greeted, limits=self.limits)


class _NotReady(Exception):
    """The next hop cannot be used."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class Lingers(Protocol):
    """Knows whether a connection should stay for a moment when its run is drained."""

    @property
    def is_worthwhile(self) -> bool:
        """Whether it should, as it looks now."""

    async def more(self) -> bool:
        """Wait. True where the run may have more; where it has not, one may wait again."""


class RelaySession:
    """Drains one `IQueueRun` over one connection.

    `tls` makes the options of `Handover.tls` for this hop, None where there are none. `in_thread` is for mechanisms
    that compute for long, and is needed where the hop has credentials. `ready` is called when mail may be sent.
    `lingers` has a drained connection stay for a moment. `end` may be read at any time, and is final when the
    connection has ended; so may `via`, the connection, `local`, our own side of it, and `offers`, what the peer has
    offered last.
    """

    def __init__(
        self,
        run: IQueueRun,
        settings: RelaySettings,
        *,
        tls: Callable[[], Any] | None = None,
        in_thread: InThread | None = None,
        ready: Callable[[], object] | None = None,
        lingers: Lingers | None = None,
    ) -> None:
        if settings.hop.username is not None and in_thread is None:
            raise ValueError("credentials need in_thread")
        self._run = run
        self._settings = settings
        self._hop = settings.hop
        self._tls = tls
        self._in_thread = in_thread
        self._ready = ready
        self._lingers = lingers
        self._is_lingering = False
        self._pipeline: Pipeline | None = None
        self._was_told = False  # by a 421: what was said behind it was not taken
        self._held: list[Attempt] = []  # taken from the run and not settled
        self.via = Via(settings.hop.host, port=settings.hop.port, policy=settings.policy)
        self.local = Peer("")
        self.offers = Capabilities()
        self._stage = Stage.GREETING
        self._outcome: Outcome | None = None  # None before READY: the connection was lost there
        self._settled = 0

    @property
    def end(self) -> RelayEnd:
        """How it ended, or would end now."""
        outcome = self._outcome
        if outcome is None and self._stage is not Stage.READY:
            is_first = self._stage is Stage.GREETING
            outcome = self._lost("no greeting came" if is_first else f"the connection was lost at {self._stage}")
        return RelayEnd(self._stage, outcome, self._settled)

    async def __call__(self, conversation: IConversation) -> Handover | None:
        """Talk until the run is drained or the connection ends; hand over for STARTTLS."""
        return await self._talk(conversation, greeted=False)

    async def _go_on_secured(self, conversation: IConversation) -> Handover | None:
        """The session behind the handshake."""
        return await self._talk(conversation, greeted=True)

    async def _talk(self, conversation: IConversation, *, greeted: bool) -> Handover | None:
        peer, self.local = conversation.peer, conversation.local
        self.via = Via(self._hop.host, peer.host, peer.port, conversation.tls, self._settings.policy)
        try:
            handover = await self._make_ready(conversation, greeted=greeted)
            if handover is not None:
                return handover
            await self._relay(conversation)
        except _NotReady as refusal:
            self._end_with(refusal.outcome)
        except ContentUnreadable as error:
            unreadable = deferred(UNREADABLE, str(error), self._hop.host)
            self._end_with(unreadable)
            self._settle(self._held[0], unreadable)  # it is not the line that has failed here, so it counts
            return None
        except HungUp as hung_up:
            reply = hung_up.reply
            self._was_told = True
            self._end_with(deferred(reply.status or _BAD_CONNECTION, reply.text, self._hop.host, reply))
            return None
        except _LOST as error:
            self._end_with(self._lost(str(error)))
            if not isinstance(error, RemoteProtocolError):
                self._hear_last_words()
            return None
        except CancelledError:  # the connection was lost while we waited for something else
            if not self._is_lingering:  # else it was drained, and is so still
                self._end_with(self._lost("the session was ended"))
            self._hear_last_words()
            raise
        except Exception:
            self._end_with(self._lost("the session has met a defect"))
            self._leave()
            raise
        finally:
            self._give_back()
        await self._quit(conversation)
        return None

    # ---------------------------------------------------------------------------------- getting ready

    async def _make_ready(self, conversation: IConversation, *, greeted: bool) -> Handover | None:
        """Come to where MAIL may be said. Raises `_NotReady`, and as `exchange`."""
        if not greeted:
            greeting = (await hear(conversation)).reply
            if not greeting.is_positive:
                # RFC 5321 section 3.1, RFC 7504 section 3
                raise _NotReady(Outcome.of_reply(greeting, self._hop.host))
        await self._say_hello(conversation)
        if conversation.tls is None and self._hop.tls != "none":
            handover = await self._start_tls(conversation)
            if handover is not None:
                return handover
        if self._hop.username is not None:
            await self._authenticate(conversation, self._hop.username)
        self.offers = conversation.core.capabilities
        self._enter(Stage.READY)
        if self._ready is not None:
            self._ready()
        return None

    async def _say_hello(self, conversation: IConversation) -> None:
        self._enter(Stage.HELLO)
        hostname = self._settings.hostname
        reply = await exchange(conversation, Ehlo(hostname, lmtp=self._hop.lmtp))
        if reply.is_permanent and not self._hop.lmtp:
            # RFC 5321 section 4.1.1.1: a server that does not know EHLO answers by an error.
            reply = await exchange(conversation, Helo(hostname))
        if not reply.is_positive:
            raise _NotReady(Outcome.of_reply(reply, self._hop.host))

    async def _start_tls(self, conversation: IConversation) -> Handover | None:
        """Begin TLS where it is offered; None to go on without."""
        self._enter(Stage.STARTTLS)
        host = self._hop.host
        required = self._hop.tls != "opportunistic"
        if self._hop.tls == "implicit":
            raise _NotReady(deferred(_NO_TLS, f"the connection to {host} is not under TLS", host))
        if self._tls is None or not conversation.core.capabilities.starttls:
            if required:
                raise _NotReady(deferred(_NO_TLS, f"TLS is required, and {host} does not offer STARTTLS", host))
            return None
        options = self._tls()
        reply = await exchange(conversation, StartTls())
        if reply.is_positive:
            # Whoever reads this later knows that the handshake has failed: else the next stage is entered.
            self._end_with(deferred(_TLS_FAILED, f"the TLS handshake with {host} has failed", host))
            return Handover(self._settings.core(greeted=True), self._go_on_secured, options)
        if required:
            text = f"TLS is required, and {host} refuses STARTTLS: {reply.text}"
            raise _NotReady(deferred(reply.status or _TLS_FAILED, text, host, reply))
        # RFC 3207 section 4: "whether to send the message anyway with no TLS encryption"; opportunistic means that.
        return None

    async def _authenticate(self, conversation: IConversation, username: str) -> None:
        self._enter(Stage.AUTH)
        host = self._hop.host
        if conversation.tls is None:
            raise _NotReady(deferred(_NO_TLS, f"credentials go over TLS only, and {host} offers none", host))
        assert self._in_thread is not None
        try:
            credentials = ClientCredentials(username, self._hop.password)
            await authenticate(conversation, credentials, self._in_thread)
        except NotAuthenticated as error:
            status = error.reply.status if error.reply is not None else None
            text = f"authentication with {host} has failed: {error}"
            raise _NotReady(deferred(status or _NOT_AUTHENTICATED, text, host, error.reply)) from error

    # --------------------------------------------------------------------------------------- relaying

    async def _relay(self, conversation: IConversation) -> None:
        core: SmtpClientCore = conversation.core
        offers = core.capabilities
        # There is no TRANSID in LMTP: nobody could tell how many replies a transaction that is resumed would have.
        checkpoint = offers.checkpoint and self._settings.checkpoint and not self._hop.lmtp
        terms = Terms(
            pipelining=offers.pipelining and self._settings.pipelining,
            chunking=offers.chunking and self._settings.chunking,
            lmtp=self._hop.lmtp,
            window=self._settings.window,
            names=self._settings.hostname if checkpoint else None,
            dsn=offers.dsn,
            secure=None if self._is_at_home(conversation.peer) else conversation.tls is not None,
        )
        self._pipeline = pipeline = Pipeline(conversation)
        if terms.pipelining and terms.chunking and checkpoint and offers.size:
            await Stream(
                pipeline,
                lambda: self._next(pipeline, terms),
                self._settle,
                ahead=self._settings.ahead,
                window=self._settings.window,
                breaks_count=self._settings.breaks_count,
            ).drain()
        else:
            await self._overlap(pipeline, terms)

    async def _overlap(self, pipeline: Pipeline, terms: Terms) -> None:
        """One message after the other; with pipelining the next begins behind the content of the one before."""
        core = pipeline.core
        current = await self._next(pipeline, terms)
        while current is not None:
            if not current.begun:
                current.begin()
            await current.open()
            # Taken before the content is said: once it is, nothing but its reply is waited for.
            following = current.successor() or await self._next(pipeline, terms)
            await current.say_content()
            if following is not None and terms.pipelining and not core.over:
                current.make_room()
                following.begin()
            elif following is None and terms.pipelining and not core.over and self._quits_early():
                pipeline.quit()
            await current.finish()
            if following is None or following.attempt is not current.attempt:
                self._settle(current.attempt)
            if following is not None and core.over:
                raise ConnectionClosed("the peer has refused content before its end")
            if following is None and not (core.over or pipeline.has_quit):
                following = await self._next(pipeline, terms)  # what has come since it was asked
                while following is None and await self._more():
                    following = await self._next(pipeline, terms)
            current = following

    def _quits_early(self) -> bool:
        """Whether to take leave behind the last content (RFC 2920 section 3.1), not behind its reply."""
        return self._settings.quit_early and not (self._lingers is not None and self._lingers.is_worthwhile)

    async def _more(self) -> bool:
        """Wait for a moment whether there is more, where that makes sense."""
        lingers = self._lingers
        if lingers is None or not lingers.is_worthwhile:
            return False
        self._is_lingering = True
        more = await lingers.more()
        self._is_lingering = False
        return more

    async def _next(self, pipeline: Pipeline, terms: Terms) -> Transaction | None:
        """The transaction for the next delivery that the next hop can serve; None when the run is drained."""
        core = pipeline.core
        while (delivery := await self._run.next()) is not None:
            attempt = Attempt(delivery, self._hop.host, final=self._hop.lmtp, via=self.via)
            self._held.append(attempt)
            try:
                mail = await fit(
                    attempt,
                    core.capabilities,
                    chunking=terms.chunking,
                    authenticated=core.authenticated,
                    secure=terms.secure,
                )
            except OSError as error:
                unreadable = deferred(UNREADABLE, f"the message cannot be read: {error}", self._hop.host)
                self._settle(attempt, unreadable)
                continue
            if mail is not None:
                return Transaction(pipeline, attempt, mail, terms, attempt.waiting)
            self._settle(attempt)
        return None

    def _is_at_home(self, peer: Peer) -> bool:
        """Whether this is a mail store on our own machine."""
        return self._hop.lmtp and (peer.is_local_socket or is_within(peer.host, LOOPBACK))

    def _settle(self, attempt: Attempt, rest: Outcome | None = None) -> None:
        self._held.remove(attempt)
        self._report(attempt, rest)

    def _report(self, attempt: Attempt, rest: Outcome | None = None) -> None:
        self._settled += 1
        if rest is None and not attempt.is_judged:
            rest = self._lost("the outcome is unknown")
        self._run.settle(attempt.delivery, attempt.finish(rest))

    def _hear_last_words(self) -> None:
        """What was answered before the connection ended still counts."""
        if self._pipeline is not None:
            self._pipeline.hear_last_words()

    def _give_back(self) -> None:
        """Settle what was attempted and release what was not. Does nothing where all went well."""
        if not self._held:
            return
        why = self.end.outcome
        first = not self._settled
        untried = []
        for attempt in tuple(self._held):
            if self._was_tried(attempt, first=first):
                self._settle(attempt, why)
            else:
                untried.append(attempt)
            first = False
        for attempt in reversed(untried):  # so that a run which puts each in front has them in order again
            self._held.remove(attempt)
            self._run.release(attempt.delivery)

    def _leave(self) -> None:
        """Leave what was taken to whoever has the run, who is told of the defect; but what has arrived is settled."""
        held, self._held = self._held, []
        for attempt in held:
            if attempt.arrived or not attempt.waiting:
                self._report(attempt)

    def _was_tried(self, attempt: Attempt, *, first: bool) -> bool:
        """Whether what the end of the connection has left unsettled counts as an attempt."""
        if self._settings.breaks_count:
            return attempt.heard or first or (attempt.sent and not self._was_told)
        return attempt.arrived or not attempt.waiting

    # ----------------------------------------------------------------------------------------- ending

    async def _quit(self, conversation: IConversation) -> None:
        """Take leave, and wait for the 221 (RFC 5321 section 4.1.1.10); nothing depends on it any more."""
        if self._pipeline is None or not self._pipeline.has_quit:
            if conversation.core.state not in LEGAL[Quit]:
                return
            conversation.send(Quit())
        try:
            await conversation.receive()
        except _LOST:
            return

    def _enter(self, stage: Stage) -> None:
        self._stage, self._outcome = stage, None

    def _end_with(self, outcome: Outcome) -> None:
        self._outcome = outcome if outcome.via is not None else replace(outcome, via=self.via)

    def _lost(self, text: str) -> Outcome:
        return deferred(_BAD_CONNECTION, text, self._hop.host)
