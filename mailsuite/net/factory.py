"""The factory that serves: makes a connection of everything that a port accepts, and ends them all when asked.

It is an `IProtocolFactory` and can be given to any endpoint in any Twisted program; `mailsuite.net.listener` makes a
service of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.net.addresses import peer_of
from mailsuite.net.connection import DEFAULT_TIMEOUTS, Connection
from mailsuite.net.limits import ConnectionLimits
from mailsuite.net.securing import TLSCreator
from mailsuite.net.timeouts import Timeouts
from mailsuite.session.handover import Session
from mailsuite.wire.core import Core

_log = Logger()

_REFUSAL_LINGERS = 5.0  # seconds


class ConnectionFactory(Factory):
    """Serves connections, each with a fresh pair of `make_pair`.

    `tls` (a `ServerTLS`, or what `startTLS` takes) makes TLS begin with the first octet. A connection past the `limits`
    is told 421 in one write and closed; where TLS should begin, it is closed without a word.
    """

    noisy = False

    def __init__(
        self,
        make_pair: Callable[[], tuple[Core, Session]],
        clock: IReactorTime,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        limits: ConnectionLimits | None = None,
        tls: TLSCreator | None = None,
    ) -> None:
        self._make_pair = make_pair
        self._clock = clock
        self._timeouts = timeouts
        self._limits = ConnectionLimits() if limits is None else limits
        self._tls = tls
        self._closing = False
        self._idle: list[Deferred[None]] = []
        self.connections: set[Connection] = set()

    def startFactory(self) -> None:
        self._closing = False  # a service that was stopped may be started again

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        if self._closing:
            return None
        host = peer_of(addr).host
        if not self._limits.admit(host):
            return _Refusal(None if self._tls is not None else replies.TOO_MANY_CONNECTIONS, self._clock)

        def over(connection: Connection) -> None:
            self._limits.release(host)
            self.connections.discard(connection)
            if not self.connections:
                waiting, self._idle = self._idle, []
                for waiter in waiting:
                    waiter.callback(None)

        try:
            core, session = self._make_pair()
        except Exception:  # noqa: BLE001 - this connection is refused, the next may fare better
            self._limits.release(host)
            _log.failure("no session can be made for {host}", host=host)
            return None
        connection = Connection(core, session, clock=self._clock, timeouts=self._timeouts, tls=self._tls, over=over)
        self.connections.add(connection)
        return connection

    async def close(self, grace: float, reply: Reply = replies.SHUTTING_DOWN) -> None:
        """Serve nobody any more: say `reply` to all as soon as possible, and abort who is left after `grace` seconds.

        Returns when all sessions have ended; one that has not, `grace` seconds after it was aborted, is left alone.
        """
        self._closing = True
        for connection in list(self.connections):
            connection.shutdown(reply)
        if not await self._empties_within(grace):
            for connection in list(self.connections):
                connection.abort()
            if not await self._empties_within(grace):
                _log.error("{count} sessions do not end", count=len(self.connections))

    async def _empties_within(self, seconds: float) -> bool:
        if not self.connections:
            return True
        empty: Deferred[None] = Deferred(self._idle.remove)
        self._idle.append(empty)
        late = deferLater(self._clock, seconds, empty.cancel)
        late.addErrback(lambda _cancelled: None)
        empty.addErrback(lambda _cancelled: None)
        await empty
        late.cancel()
        return not self.connections


class _Refusal(Protocol):
    """Says one reply, if any, and closes."""

    def __init__(self, reply: Reply | None, clock: IReactorTime) -> None:
        self._reply = reply
        self._clock = clock

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if self._reply is not None:
            transport.write(self._reply.encoded)
        transport.loseConnection()
        abort = getattr(transport, "abortConnection", transport.loseConnection)
        self._abort = self._clock.callLater(_REFUSAL_LINGERS, abort)

    def connectionLost(self, reason: object = None) -> None:
        if self._abort.active():
            self._abort.cancel()
