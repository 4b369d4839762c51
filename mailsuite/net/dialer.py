"""The dialer: connects to a host and drives a pair of core and session there.

A host is a name, an IP address, or the path of a Unix socket (it begins with `/`). A name's addresses are tried one
after the other, in the resolver's order.
"""

from __future__ import annotations

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
from mailsuite.session.handover import Session
from mailsuite.wire.core import Core


class ConnectFailed(Exception):
    """No connection came about; the text says to what, and why."""


class Dialer:
    """Makes connections in the client's role.

    Without a `resolver`, names are left to the reactor's own.
    """

    def __init__(
        self, reactor: object, *, timeouts: Timeouts = DEFAULT_TIMEOUTS, resolver: Resolver | None = None
    ) -> None:
        self._reactor = reactor
        self._clock = IReactorTime(reactor)
        self._timeouts = timeouts
        self._resolver = resolver

    async def dial(
        self,
        host: str,
        port: int,
        core: Core,
        session: Session,
        *,
        tls: TLSCreator | None = None,
        source_address: str | None = None,
    ) -> Connection:
        """Connect, and return when the session has begun; how it ends tells `Connection.finished`.

        With `tls` TLS begins with the first octet. Raises `ConnectFailed`, and `DnsFailure` where the name has no
        address.
        """
        failures = []
        for address in await self._addresses(host, source_address):
            connection = Connection(core, session, clock=self._clock, timeouts=self._timeouts, tls=tls)
            attempt = _Attempt(connection)
            self._connect(address, port, attempt, source_address)
            try:
                await attempt.established
            except ConnectFailed as failure:
                where = address if address.startswith("/") else f"{address} port {port}"
                failures.append(f"{where}: {failure}")
            else:
                return connection
        raise ConnectFailed("; ".join(failures) or f"{host} has no address that {source_address} could reach")

    async def _addresses(self, host: str, source_address: str | None) -> list[str]:
        if host.startswith("/") or self._resolver is None:
            return [host]
        addresses = await self._resolver.addresses(host)
        source = None if source_address is None else parse_address(source_address)
        if source is None:
            return addresses
        return [address for address in addresses if (":" in address) == (source.version == 6)]

    def _connect(self, address: str, port: int, attempt: _Attempt, source_address: str | None) -> None:
        seconds = self._timeouts.connect
        if address.startswith("/"):
            attempt.connector = IReactorUNIX(self._reactor).connectUNIX(address, attempt, seconds)
        else:
            bind = None if source_address is None else (source_address, 0)
            attempt.connector = IReactorTCP(self._reactor).connectTCP(address, port, attempt, seconds, bind)


class _Attempt(ClientFactory):
    """One try at one address; `established` fires when the session has begun."""

    noisy = False
    connector: IConnector | None = None
    _given_up = False

    def __init__(self, connection: Connection) -> None:
        self.established: Deferred[None] = Deferred(self._give_up)
        self._connection = connection
        connection.started = self._started
        connection.finished().addCallback(self._over)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._connection

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._fail(_in_words(reason.value))

    def _started(self) -> None:
        if not self.established.called:
            self.established.callback(None)

    def _over(self, ending: Exception | None) -> None:
        self._fail(str(ending or "the connection was closed"))

    def _fail(self, why: str) -> None:
        if not (self.established.called or self._given_up):
            self.established.errback(ConnectFailed(why))

    def _give_up(self, _established: Deferred[None]) -> None:
        self._given_up = True
        self._connection.abort()
        if self.connector is not None:
            self.connector.disconnect()


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
