"""The dialer: connects to a host and drives a pair of core and session there.

A host is a name, an IP address, or the `SocketPath` of a Unix socket; a name that looks like a path is none. Where it
has several addresses they race (RFC 8305): each next attempt begins a moment after the one before, or when that has
failed, and IPv4 and IPv6 take turns, so that a dead address costs a quarter of a second and not its time limit. The
session is held on the first connection that comes about; the other attempts are broken off, and taken up again where
TLS from the first octet then fails there.

Known limits: both kinds of addresses are waited for before the race begins, its order is the resolver's, and the delay
is one for all hosts.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,  # noqa: A004 - Twisted's own
    NoRouteError,
    TimeoutError,  # noqa: A004 - Twisted's own
    UserError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from mailsuite.net.addresses import parse_address
from mailsuite.net.connection import DEFAULT_TIMEOUTS, Connection
from mailsuite.net.resolver import Resolver
from mailsuite.net.securing import TLSCreator
from mailsuite.net.timeouts import Timeouts
from mailsuite.net.tls import TLSFailed
from mailsuite.session.handover import Session
from mailsuite.wire.core import Core

ATTEMPT_DELAY: Final = 0.25  # seconds; RFC 8305 section 5
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

Failed = Callable[[str, str], object]


class SocketPath(str):
    """The path of a Unix socket. Whoever makes one has it from the configuration, never from the network."""

    __slots__ = ()


class ConnectFailed(Exception):
    """No connection came about; the text says to what, and why. `tls` is there where the last one came to TLS."""

    def __init__(self, text: str, tls: TLSFailed | None = None) -> None:
        super().__init__(text)
        self.tls = tls


class Dialer:
    """Makes connections in the client's role.

    Without a `resolver`, names are left to the reactor's own. `delay` is how many seconds an address has before the
    next one is tried beside it.
    """

    def __init__(
        self,
        reactor: object,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        resolver: Resolver | None = None,
        delay: float = ATTEMPT_DELAY,
    ) -> None:
        self._reactor = reactor
        self._clock = IReactorTime(reactor)
        self._timeouts = timeouts
        self._resolver = resolver
        self._delay = delay

    async def dial(
        self,
        host: str,
        port: int,
        core: Core,
        session: Session,
        *,
        tls: TLSCreator | None = None,
        source_address: str | None = None,
        addresses: Sequence[str] | None = None,
        failed: Failed | None = None,
    ) -> Connection:
        """Connect, and return when the session has begun; how it ends tells `Connection.finished`.

        `addresses` are those of the host, where they are known already. With `tls` TLS begins with the first octet.
        `failed` is told of each address that no connection came about to, and why, unless that lay with us. Raises
        `ConnectFailed`, and `DnsFailure` where the name has no address.
        """
        if addresses is None:
            addresses = await self._addresses(host)
        within_reach = reachable(addresses, source_address)
        if not within_reach:
            raise ConnectFailed(f"{host} has no address that {source_address} could reach")

        def connect(address: str, attempt: _Attempt) -> IConnector:
            seconds = self._timeouts.connect
            if isinstance(address, SocketPath):
                connector: IConnector = IReactorUNIX(self._reactor).connectUNIX(address, attempt, seconds)
            else:
                bind = None if source_address is None else (source_address, 0)
                connector = IReactorTCP(self._reactor).connectTCP(address, port, attempt, seconds, bind)
            return connector

        def make() -> Connection:
            return Connection(core, session, clock=self._clock, timeouts=self._timeouts, tls=tls)

        race = _Race(within_reach, port, connect, make, self._clock, self._delay, failed)
        return await race.established

    async def _addresses(self, host: str) -> Sequence[str]:
        if isinstance(host, SocketPath) or self._resolver is None:
            return (host,)
        return await self._resolver.addresses(host)


def reachable(addresses: Sequence[str], source_address: str | None) -> Sequence[str]:
    """Those that a connection from this address may go to: an IPv4 address reaches no IPv6 address."""
    source = None if source_address is None else parse_address(source_address)
    if source is None:
        return addresses
    return [one for one in addresses if isinstance(one, SocketPath) or (":" in one) == (source.version == 6)]


def in_turns(addresses: Sequence[str]) -> Sequence[str]:
    """IPv6 and IPv4 by turns, the kind of the first one first (RFC 8305 section 4)."""
    if len(addresses) < 2:
        return addresses
    is_six = ":" in addresses[0]
    same = [one for one in addresses if (":" in one) == is_six]
    other = [one for one in addresses if (":" in one) != is_six]
    return [one for one in chain.from_iterable(zip_longest(same, other)) if one is not None]


class _Race:
    """Attempts at the addresses of one host; `established` fires with the connection whose session has begun."""

    def __init__(
        self,
        addresses: Sequence[str],
        port: int,
        connect: Callable[[str, _Attempt], IConnector],
        make: Callable[[], Connection],
        clock: IReactorTime,
        delay: float,
        failed: Failed | None,
    ) -> None:
        self.established: Deferred[Connection] = Deferred(self._give_up)
        self._waiting = deque(in_turns(addresses))
        self._port = port
        self._connect = connect
        self._make = make
        self._clock = clock
        self._delay = delay
        self._failed = failed
        self._under_way: dict[_Attempt, None] = {}
        self._connection: Connection | None = None
        self._tls: TLSFailed | None = None
        self._failures: list[str] = []
        self._timer: IDelayedCall | None = None
        self._is_over = False
        self._try_next()

    def _try_next(self) -> None:
        self._timer = None
        attempt = _Attempt(self, self._waiting.popleft())
        self._under_way[attempt] = None
        if self._waiting:
            self._timer = self._clock.callLater(self._delay, self._try_next)
        connector = self._connect(attempt.address, attempt)
        attempt.connector = connector
        if attempt not in self._under_way and self._connection is None:
            connector.disconnect()  # it was given up while it began

    def connected(self, attempt: _Attempt) -> Connection | None:
        """The connection for an attempt that has come through; None where it is not wanted any more."""
        if self._is_over or self._connection is not None:
            return None
        del self._under_way[attempt]
        self._hold()
        connection = self._connection = self._make()
        connection.started = self._succeed
        connection.finished().addCallback(self._lost, attempt)
        return connection

    def failed(self, attempt: _Attempt, error: BaseException | None) -> None:
        """No connection came about to this address."""
        if attempt not in self._under_way:
            return  # it was broken off
        del self._under_way[attempt]
        self._note(attempt, _in_words(error))
        if self._failed is not None and not _is_ours(error):
            self._failed(attempt.address, _in_words(error))
        self._go_on()

    def _lost(self, ending: Exception | None, attempt: _Attempt) -> None:
        """The connection has ended; if that was before its session began, another address may do."""
        if self._is_over:
            return
        self._connection = None
        self._tls = ending if isinstance(ending, TLSFailed) else None
        why = str(ending or "the connection was closed")
        self._note(attempt, why)
        if self._failed is not None and self._tls is None:
            self._failed(attempt.address, why)
        self._go_on()

    def _go_on(self) -> None:
        if self._is_over:
            return
        if self._waiting:
            self._stop_timer()
            self._try_next()
        elif not self._under_way:
            self._is_over = True
            self.established.errback(ConnectFailed("; ".join(self._failures), self._tls))

    def _succeed(self) -> None:
        if not self._is_over and self._connection is not None:
            self._is_over = True
            self.established.callback(self._connection)

    def _hold(self) -> None:
        """Break the other attempts off; their addresses come first if there must be another."""
        self._stop_timer()
        others, self._under_way = list(self._under_way), {}
        self._waiting.extendleft(attempt.address for attempt in reversed(others))
        for attempt in others:
            attempt.give_up()

    def _give_up(self, _established: Deferred[Connection]) -> None:
        self._is_over = True
        self._hold()
        if self._connection is not None:
            self._connection.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, attempt: _Attempt, why: str) -> None:
        address = attempt.address
        where = address if isinstance(address, SocketPath) else f"{address} port {self._port}"
        self._failures.append(f"{where}: {why}")


class _Attempt(ClientFactory):
    """One try at one address."""

    noisy = False
    connector: IConnector | None = None

    def __init__(self, race: _Race, address: str) -> None:
        self.address = address
        self._race = race

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return self._race.connected(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._race.failed(self, reason.value)

    def give_up(self) -> None:
        """Break it off."""
        if self.connector is not None:
            self.connector.disconnect()


def _is_ours(error: BaseException | None) -> bool:
    """Whether it is no fault of the host: our source address, or too few descriptors."""
    if isinstance(error, ConnectBindError):
        return True
    number = getattr(getattr(error, "osError", None), "errno", None)
    return number in _OURS


def _in_words(error: BaseException | None) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, NoRouteError):
        return "no route"
    if isinstance(error, ConnectBindError):
        return f"the source address cannot be used ({error})"
    if isinstance(error, UserError):
        return "given up"
    if isinstance(error, ConnectError) and error.osError is not None:
        return str(error.osError)
    return str(error)
