"""A page from the web: one GET or POST by HTTPS to a server that proves its name, bounded in size and time.

Redirects are not followed, nothing is cached, nothing is decoded (RFC 8461 section 3.3 wants that of those who fetch
policies). Everything that the server sends counts against the bound, headers and handshake too. A page whose end is
marked by nothing but the connection's end is refused: whoever can cut a connection could shorten it.

By twisted.web's Agent, over an endpoint of our own, which asks our resolver and counts octets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IConsumer, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import ClientTLS, PolicyCreator

Addresses = Callable[[str], Awaitable[Sequence[str]]]

_MOST_ADDRESSES: Final = 4
_CONNECT_TIME: Final = 10.0  # seconds for each address
_OVERHEAD: Final = 64 * 1024  # octets for the handshake and headers


class FetchFailed(Exception):
    """There is no page; the text says why. `untrusted` says that the server has not proved its name."""

    def __init__(self, reason: str, *, untrusted: bool = False) -> None:
        super().__init__(reason)
        self.untrusted = untrusted


class Page(NamedTuple):
    """What the server has answered. `media_type` is without its parameters, in lower case."""

    status: int
    media_type: str
    body: bytes


class HttpsClient:
    """Fetches pages.

    `tls` knows the authorities to trust, `addresses` those of a host. A fetch takes at most `seconds`, and a page is of
    `largest` octets at most.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - it has many interfaces at once
        tls: ClientTLS,
        addresses: Addresses,
        *,
        port: int = 443,
        seconds: float = 60.0,
        largest: int = 64 * 1024,
    ) -> None:
        self._reactor = reactor
        self._tls = tls
        self._addresses = addresses
        self._port = port
        self._seconds = seconds
        self._largest = largest

    async def get(self, host: str, path: str) -> Page:
        """The page at `https://host` and the path, which begins with a slash. Raises `FetchFailed`."""
        return await self._visit(host, None, path, {b"Accept": [b"text/plain"]})

    async def post(self, host: str, path: str, data: bytes, media_type: str, *, port: int | None = None) -> Page:
        """Post something there, at the usual port or another one. Raises `FetchFailed`."""
        headers = {b"Content-Type": [media_type.encode("ascii")]}
        return await self._visit(host, port, path, headers, data)

    async def _visit(
        self, host: str, port: int | None, path: str, headers: dict[bytes, list[bytes]], data: bytes | None = None
    ) -> Page:
        visit = _Visit(self._reactor, self._tls.for_host(host, "verified"), self._addresses, host, port or self._port)
        visit.allowance = self._largest + _OVERHEAD
        place = host if port is None else f"{host}:{port}"
        work = Deferred.fromCoroutine(self._exchange(visit, f"https://{place}{path}".encode("ascii"), headers, data))
        late: list[bool] = []

        def be_late() -> None:
            late.append(True)
            work.cancel()

        alarm = IReactorTime(self._reactor).callLater(self._seconds, be_late)
        try:
            return await work
        except (CancelledError, FetchFailed):
            if late:
                raise FetchFailed(f"{host} took more than {self._seconds:g} seconds") from None
            raise
        finally:
            if alarm.active():
                alarm.cancel()
            visit.end()

    async def _exchange(self, visit: _Visit, url: bytes, headers: dict[bytes, list[bytes]], data: bytes | None) -> Page:
        agent = Agent.usingEndpointFactory(self._reactor, visit)  # type: ignore[no-untyped-call]
        said = Headers({b"User-Agent": [b"mailsuite"], **headers})
        body = _Body(self._largest)
        try:
            response: Any = await (
                agent.request(b"GET", url, said) if data is None else agent.request(b"POST", url, said, _Octets(data))
            )
            if isinstance(response.length, int) and response.length > self._largest:
                body.refuse()
            else:
                response.deliverBody(body)
            return Page(response.code, _media_type(response.headers), await body.whole)
        except (CancelledError, FetchFailed):
            raise
        except Exception as error:  # noqa: BLE001 - of Twisted's client, for whatever a server may do
            if any(isinstance(reason, CancelledError) for reason in _reasons(error)):
                raise CancelledError from None
            raise visit.explain(error) from None


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Visit:
    """The way to one server: its addresses in turn, TLS over the one that answers."""

    def __init__(self, reactor: Any, creator: PolicyCreator, addresses: Addresses, host: str, port: int) -> None:  # noqa: ANN401
        self.host = host
        self.allowance = 0
        self._reactor = reactor
        self._creator = creator
        self._addresses = addresses
        self._port = port
        self._layer: _Counted | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> object:
        try:
            addresses = await self._addresses(self.host)
        except DnsFailure as failure:
            raise FetchFailed(str(failure)) from None
        reasons = []
        for address in addresses[:_MOST_ADDRESSES]:
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            endpoint: Any = kind(self._reactor, address, self._port, timeout=_CONNECT_TIME)
            try:
                self._layer = await endpoint.connect(_CountingFactory(self, self._creator, factory, self._reactor))
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - of the operating system, by way of Twisted
                reasons.append(f"{address}: {error}")
            else:
                assert self._layer is not None
                return self._layer.wrappedProtocol
        raise FetchFailed(f"cannot connect to {self.host}: {'; '.join(reasons) or 'it has no address'}")

    def end(self) -> None:
        """Let go of the connection, whatever state it is in."""
        if self._layer is not None and self._layer.connected:
            self._layer.abortConnection()  # type: ignore[no-untyped-call]
        self._layer = None

    def explain(self, error: Exception) -> FetchFailed:
        """What an error of Twisted's means."""
        if self.allowance < 0:
            return FetchFailed(f"{self.host} sends too much")
        if self._creator.problem is not None:
            return FetchFailed(f"{self.host}: {self._creator.problem.text}", untrusted=True)
        reasons = _reasons(error)
        for reason in reasons:
            if isinstance(reason, FetchFailed):
                return reason
        said = "; ".join(str(reason) or type(reason).__name__ for reason in reasons)
        return FetchFailed(f"{self.host}: {said or str(error) or type(error).__name__}")


class _Counted(TLSMemoryBIOProtocol):
    """TLS that ends when there is more than allowed."""

    factory: _CountingFactory

    def dataReceived(self, data: bytes) -> None:
        visit = self.factory.visit
        visit.allowance -= len(data)
        if visit.allowance < 0:
            self.abortConnection()  # type: ignore[no-untyped-call]
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]


class _CountingFactory(TLSMemoryBIOFactory):
    """Makes the one layer of TLS."""

    noisy = False
    protocol = _Counted

    def __init__(self, visit: _Visit, creator: PolicyCreator, factory: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(creator, True, factory, clock)
        self.visit = visit


@implementer(IBodyProducer)
class _Octets:
    """What is posted, in one piece."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing more."""

    def resumeProducing(self) -> None:
        """There is nothing more."""

    def stopProducing(self) -> None:
        """There is nothing more."""


class _Body(Protocol):
    """Gathers a page; `whole` fires when its end has come."""

    def __init__(self, largest: int) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._largest = largest
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if len(self._octets) > self._largest:
            self._octets.clear()
            self.refuse()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not isinstance(reason.value, ResponseDone):
            self._fail("the page has no end")
        elif not self.whole.called:
            self.whole.callback(bytes(self._octets))

    def refuse(self) -> None:
        """It is longer than we take."""
        self._fail("the page is too long")

    def _fail(self, why: str) -> None:
        if not self.whole.called:
            self.whole.errback(FetchFailed(why))


def _reasons(error: Exception) -> list[BaseException]:
    """What is within an error that gathers others, as those of Twisted's client do."""
    return [failure.value for failure in getattr(error, "reasons", ())]


def _media_type(headers: Headers) -> str:
    values = headers.getRawHeaders(b"content-type") or [b""]
    return values[0].partition(b";")[0].strip().lower().decode("ascii", "replace")
