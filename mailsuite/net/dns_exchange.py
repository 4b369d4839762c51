"""One question to one name server: by UDP, and by TCP where the answer does not fit.

Each question has a socket of its own, so that its port is one of chance, and connected, so that others are not heard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTCP, IReactorTime, IReactorUDP
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

_T = TypeVar("_T")
Server = tuple[str, int]
Accept = Callable[[bytes], _T | None]

LARGEST: Final = 16 * 1024  # octets of an answer: no honest zone needs more
_DATAGRAM: Final = 2048  # octets of one by UDP: more than is asked for


class NoAnswer(Exception):
    """The server has not answered, or nothing that fits the question."""


class DnsExchange:
    """Asks name servers. `accept` of a question returns None for what is no answer to it."""

    def __init__(self, reactor: object) -> None:
        self._reactor = reactor
        self._clock = IReactorTime(reactor)

    async def by_udp(self, server: Server, question: bytes, accept: Accept[_T], seconds: float) -> _T:
        """Ask by UDP. Datagrams that are not accepted are not heard. Raises `NoAnswer`."""
        asking = _Datagrams(accept)
        try:
            interface = "::" if ":" in server[0] else ""
            port: Any = IReactorUDP(self._reactor).listenUDP(0, asking, interface, _DATAGRAM)
        except Exception as error:  # noqa: BLE001 - no socket: CannotListenError and OSError alike
            raise NoAnswer(str(error)) from None
        try:
            port.connect(*server)
            port.write(question)
            answer: _T = await self._within(seconds, asking.answered)
            return answer
        except OSError as error:
            raise NoAnswer(error.strerror or str(error)) from None
        finally:
            port.stopListening()

    async def by_tcp(
        self, server: Server, question: bytes, accept: Accept[_T], seconds: float, *, longest: int = LARGEST
    ) -> _T:
        """Ask by TCP (RFC 7766), for an answer of so many octets at most. Raises `NoAnswer`."""
        asking = _Stream(question, accept, longest)
        connector = IReactorTCP(self._reactor).connectTCP(server[0], server[1], _Once(asking), seconds)
        try:
            answer: _T = await self._within(seconds, asking.answered)
            return answer
        finally:
            asking.done()
            connector.disconnect()

    async def _within(self, seconds: float, answered: Deferred[_T]) -> _T:
        late: list[bool] = []

        def be_late() -> None:
            late.append(True)
            answered.cancel()

        alarm = self._clock.callLater(seconds, be_late)
        try:
            return await answered
        except CancelledError:
            if late:
                raise NoAnswer("no answer in time") from None
            raise
        finally:
            if alarm.active():
                alarm.cancel()


class _Datagrams(DatagramProtocol):
    """Hears one server, until an answer is accepted."""

    noisy = False

    def __init__(self, accept: Accept[Any]) -> None:
        self.answered: Deferred[Any] = Deferred()
        self._accept = accept

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: ANN401 - as there
        if self.answered.called:
            return
        answer = self._accept(datagram)
        if answer is not None:
            self.answered.callback(answer)

    def connectionRefused(self) -> None:
        self._fail("connection refused")

    def stopProtocol(self) -> None:
        # Some reactors take a refusal for the end of the socket.
        self._fail("connection refused")

    def _fail(self, why: str) -> None:
        if not self.answered.called:
            self.answered.errback(NoAnswer(why))


class _Stream(Int16StringReceiver):
    """Asks once it is connected; the first answer is the one (RFC 7766 section 8: with its length before it)."""

    noisy = False

    def __init__(self, question: bytes, accept: Accept[Any], longest: int) -> None:
        self.MAX_LENGTH = longest
        self.answered: Deferred[Any] = Deferred()
        self._question = question
        self._accept = accept

    def connectionMade(self) -> None:
        self.sendString(self._question)  # type: ignore[no-untyped-call]

    def stringReceived(self, string: bytes) -> None:
        if self.answered.called:
            return
        answer = self._accept(string)
        if answer is None:
            self.fail("the answer is to another question")
        else:
            self.answered.callback(answer)

    def lengthLimitExceeded(self, length: int) -> None:
        self.fail(f"the answer is too long ({length} octets)")
        self.done()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.fail("the connection was closed")

    def fail(self, why: str) -> None:
        if not self.answered.called:
            self.answered.errback(NoAnswer(why))

    def done(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()


class _Once(ClientFactory):
    """Gives the connection to the one who asks."""

    noisy = False

    def __init__(self, asking: _Stream) -> None:
        self._asking = asking

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return self._asking

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._asking.fail(str(reason.value))
