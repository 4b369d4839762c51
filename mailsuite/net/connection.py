"""The driver: a connection is a transport plus a replaceable pair (core, session).

It starts the session when the connection is made, gives it a `Conversation`, and does at its end what it asks for:
closes the connection, or puts a fresh pair on the same transport, perhaps with a TLS handshake in between. When the
transport is lost, the session is told, or cancelled where it waits for something else.

An exception out of a server's session is logged and answered by one 421. No octet passes below TLS: there is one place
that writes, and it knows one way out.

Known limits: a peer that ends its side under TLS ends the connection, since TLS in Twisted knows no half-closed
connections. When we close while input is still unread, the peer's system may drop our last reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.net import liveness
from mailsuite.net.addresses import peer_of
from mailsuite.net.conversation import Conversation
from mailsuite.net.immediate import send_now
from mailsuite.net.losses import describe_loss
from mailsuite.net.securing import TLSCreator, start_tls
from mailsuite.net.stepping import SessionRun
from mailsuite.net.timeouts import Timeouts
from mailsuite.net.tls import TLSFailed, describe_failure, tls_facts
from mailsuite.session.handover import Handover, Session
from mailsuite.wire.core import ConnectionClosed, Core, LocalProtocolError, PeerTooSlow, RemoteProtocolError, Role

_log = Logger()

DEFAULT_TIMEOUTS = Timeouts()
_READ_SIZE = FileDescriptor.bufferSize
_BULK_READ_SIZE = 4 * _READ_SIZE


@implementer(IHalfCloseableProtocol, IPushProducer)
class Connection(Protocol):
    """One connection, in either role.

    With `tls` (what `Handover.tls` is) TLS begins with the first octet. `started` is called when the first session has
    begun, `over` (with the connection) when the transport is lost and the last session has ended.
    """

    conversation: Conversation

    _transport: Any  # every transport that is used has what ITCPTransport and IPushProducer promise
    _layer: TLSMemoryBIOProtocol | None = None
    _promised: Handover | None = None  # begins when the handshake is done
    _next: tuple[Core, Session, bytes] | None = None
    _starting = False
    _session: SessionRun | None = None
    _alarm: IDelayedCall | None = None  # of the handshake, or of closing
    _made = False
    _closing = False
    _lost = False
    _is_over = False
    _ending: Exception | None = None

    def __init__(
        self,
        core: Core,
        session: Session,
        *,
        clock: IReactorTime,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        tls: TLSCreator | None = None,
        started: Callable[[], object] | None = None,
        over: Callable[[Connection], object] | None = None,
    ) -> None:
        self._first: Handover | None = Handover(core, session, tls)
        self._clock = clock
        self._timeouts = timeouts
        self.started = started
        self._over = over
        self._finished: list[Deferred[Exception | None]] = []

    # --------------------------------------------------------------------------------- for the owner

    def finished(self) -> Deferred[Exception | None]:
        """Fires when the transport is lost and the last session has ended, with what ended it.

        That is None where the session returned, else the exception: its own, `ConnectionClosed`, `TLSFailed`.
        """
        if self._is_over:
            return succeed(self._ending)
        waiter: Deferred[Exception | None] = Deferred(self._finished.remove)
        self._finished.append(waiter)
        return waiter

    def shutdown(self, reply: Reply) -> None:
        """Ask a server's connection to end by this reply, a 421: as soon as its session waits for a command.

        In the client's role the session goes on to its own end.
        """
        if self._promised is not None:
            self.close()
        elif self._made:
            self.conversation.say_and_close(reply)

    def abort(self) -> None:
        """End the connection now, whatever is still to be written."""
        if self._made and not self._lost:
            self._end_conversation("the connection was aborted")
            abort = getattr(self._transport, "abortConnection", self._transport.loseConnection)
            abort()

    # --------------------------------------------------------------------------- the transport's calls

    def connectionMade(self) -> None:
        transport = self._transport = self.transport
        first, self._first = self._first, None
        assert first is not None
        self._made = True
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        if self._timeouts.dead_line is not None:
            liveness.watch(transport, self._timeouts.dead_line)
        self.conversation = Conversation(
            first.core,
            peer_of(self._transport.getPeer()),
            peer_of(self._transport.getHost()),
            self,
            self._clock,
            self._timeouts,
        )
        self._transport.registerProducer(self, True)
        if first.tls is None:
            self._start(first.core, first.session)
        else:
            self._secure(first)

    def dataReceived(self, data: bytes) -> None:
        if len(data) == _READ_SIZE:
            # The peer has more than one read takes: what comes in bulk is cheaper in larger pieces.
            self._transport.bufferSize = _BULK_READ_SIZE
        if self._layer is None:
            self.conversation.received(data)
        else:
            self._layer.dataReceived(data)  # type: ignore[no-untyped-call]

    def readConnectionLost(self) -> None:
        if self._layer is None:
            self.conversation.input_ended()
        elif not self._lost:
            self._set_alarm(self._timeouts.closing, self.abort)
            self._transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Only `loseWriteConnection` would lead here, and nobody calls it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._layer is None:
            self.transport_lost(reason)
        else:
            self._layer.connectionLost(reason)  # type: ignore[no-untyped-call]

    def pauseProducing(self) -> None:
        self.conversation.room(full=True)

    def resumeProducing(self) -> None:
        self.conversation.room(full=False)

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    # -------------------------------------------------------------------------- the TLS layer's calls

    def plaintext_received(self, data: bytes) -> None:
        self.conversation.received(data)

    def handshake_completed(self, handle: SSL.Connection) -> None:
        promised, self._promised = self._promised, None
        self._set_alarm(None)
        if promised is not None and not self._closing:
            self.conversation.tls = tls_facts(handle)
            self._start(promised.core, promised.session)

    def transport_lost(self, reason: Failure) -> None:
        self._lost = True
        layer, self._layer = self._layer, None
        self._set_alarm(None)
        why = describe_loss(reason)
        if self._promised is not None:
            self._promised = None
            if self._ending is None:
                handle = None if layer is None else layer.getHandle()  # type: ignore[no-untyped-call]
                self._ending = TLSFailed(describe_failure(reason.value, handle))
            _log.info("no TLS with {peer}: {reason}", peer=self.conversation.peer, reason=self._ending)
        told = self.conversation.lost(why)
        if self._session is not None and not told:
            self._session.cancel()
        self._look_whether_over()

    # ------------------------------------------------------------------------- the conversation's calls

    def write(self, data: bytes) -> None:
        if self._lost:
            return
        if self._layer is None:
            send_now(self._transport, data)
        elif self.conversation.line_by_line:
            for line in data.splitlines(keepends=True):
                self._layer.write(line)  # type: ignore[no-untyped-call]
        else:
            self._layer.write(data)  # type: ignore[no-untyped-call]

    def pause_input(self) -> None:
        self._transport.pauseProducing()

    def resume_input(self) -> None:
        if not (self._lost or self._closing):
            self._transport.resumeProducing()

    def close(self) -> None:
        if self._closing:
            return
        self.conversation.flush()
        self._end_conversation("we have ended the connection")
        if self._lost:
            return
        self._set_alarm(self._timeouts.closing, self.abort)
        outlet = self._transport if self._layer is None else self._layer
        outlet.unregisterProducer()  # a transport with a producer stays open for it
        if self._layer is not None:
            self._transport.resumeProducing()  # TLS waits for the peer to take leave as well
        outlet.loseConnection()

    def _end_conversation(self, why: str) -> None:
        self._closing = True
        self.conversation.close(why)

    # --------------------------------------------------------------------------------- one pair's life

    def _start(self, core: Core, session: Session, data: bytes = b"") -> None:
        """Begin a pair. A session that ends without ever waiting makes no deeper stack, however many follow."""
        self._next = (core, session, data)
        if self._starting:
            return
        self._starting = True
        try:
            while self._next is not None:
                (core, session, data), self._next = self._next, None
                self.conversation.replace_core(core, data)
                self._run(session)
                started, self.started = self.started, None
                if started is not None:
                    started()
        finally:
            self._starting = False
        self._look_whether_over()

    def _run(self, session: Session) -> None:
        try:
            coroutine = session(self.conversation)
        except Exception:  # noqa: BLE001 - what is raised where the coroutine is made counts as raised within
            self._failed(Failure())  # type: ignore[no-untyped-call]
            return
        self._session = SessionRun(coroutine, self._ended, self._failed)
        self._session.step()

    def _ended(self, handover: Handover | None) -> None:
        self._session = None
        try:
            self._go_on_to(handover)
        except Exception:  # noqa: BLE001 - what the session wants cannot be done
            self._at_fault(Failure())  # type: ignore[no-untyped-call]

    def _go_on_to(self, handover: Handover | None) -> None:
        if handover is None or self._closing:
            self.close()
        elif self._lost:
            self._ending = ConnectionClosed(self.conversation.closed or "")
        else:
            self._hand_over(handover)
        self._look_whether_over()

    def _failed(self, failure: Failure) -> None:
        self._session = None
        error = failure.value
        self._ending = error if isinstance(error, Exception) else RuntimeError(repr(error))
        if isinstance(error, CancelledError):
            if self._lost:
                self._ending = ConnectionClosed(self.conversation.closed or "")
        elif isinstance(error, PeerTooSlow):
            self.conversation.say(replies.TOO_SLOW)
        elif not isinstance(error, (ConnectionClosed, RemoteProtocolError)):
            _log.failure("the session with {peer} has failed", failure=failure, peer=self.conversation.peer)
            self.conversation.say(replies.SESSION_FAILED)
        self.close()
        self._look_whether_over()

    def _at_fault(self, failure: Failure) -> None:
        _log.failure("{peer}: what its session wants cannot be done", failure=failure, peer=self.conversation.peer)
        self._ending = failure.value if isinstance(failure.value, Exception) else None
        self.abort()
        self._look_whether_over()

    def _hand_over(self, handover: Handover) -> None:
        core = self.conversation.core
        left = core.trailing_data
        if handover.tls is None:
            self.conversation.flush()
            self._start(handover.core, handover.session, left)
        elif left:
            # RFC 3207 section 4.2: nothing that came before the handshake may count after it.
            _log.warn(
                "{peer} has sent {count} octets in plaintext behind STARTTLS: the connection is dropped",
                peer=self.conversation.peer,
                count=len(left),
            )
            self._ending = RemoteProtocolError("plaintext stood behind STARTTLS")
            self.conversation.discard()
            self.close()
        elif self._layer is not None:
            raise LocalProtocolError("a session has asked for TLS within TLS")
        else:
            self.conversation.flush()
            self._secure(handover, as_client=core.role is Role.CLIENT)

    # ---------------------------------------------------------------------------------- TLS and time

    def _secure(self, handover: Handover, *, as_client: bool | None = None) -> None:
        """Shake hands, then begin the pair. The client of the mail protocol is that of TLS (RFC 3207 section 4)."""
        if as_client is None:
            as_client = handover.core.role is Role.CLIENT
        self._promised = handover
        self._set_alarm(self._timeouts.handshake, self._handshake_is_late)
        self._transport.unregisterProducer()
        self.conversation.room(full=False)
        try:
            self._layer = start_tls(self._transport, handover.tls, self, self._clock, as_client=as_client)
        except Exception as error:  # noqa: BLE001 - whatever the settings may raise
            _log.failure("TLS with {peer} cannot be started", peer=self.conversation.peer)
            self._ending = TLSFailed(str(error))
            self._promised = None
            self._transport.registerProducer(self, True)
            self.close()
        else:
            self._layer.registerProducer(self, True)  # type: ignore[no-untyped-call]

    def _handshake_is_late(self) -> None:
        self._alarm = None
        self._ending = TLSFailed("the handshake took too long")
        self.abort()

    def _set_alarm(self, seconds: float | None, call: Callable[[], None] | None = None) -> None:
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None if seconds is None or call is None else self._clock.callLater(seconds, call)

    def _look_whether_over(self) -> None:
        if self._is_over or not self._lost or self._session is not None or self._starting:
            return
        self._is_over = True
        waiting, self._finished = self._finished, []
        for waiter in waiting:
            waiter.callback(self._ending)
        if self._over is not None:
            self._over(self)
