"""TLS on a transport that carries plaintext already, or that was just opened.

This does what the transport's own `startTLS` does, but over any transport, with a clock that is given (not the global
reactor's), and with the side chosen by who speaks which role rather than by who opened the connection. Twisted's
`TLSMemoryBIOProtocol` stands between the transport and the driver: octets from the transport are given to
`layer.dataReceived`, what the driver says goes to `layer.write`, and only ciphertext reaches the transport.
"""

from __future__ import annotations

from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsuite.net.immediate import send_now

TLSCreator = IOpenSSLClientConnectionCreator | IOpenSSLServerConnectionCreator


class Upstairs(Protocol):
    """Who lives above the TLS layer."""

    def plaintext_received(self, data: bytes) -> None:
        """Octets that the peer sent under TLS."""

    def handshake_completed(self, handle: SSL.Connection) -> None:
        """The handshake has succeeded, certificates verified as the settings demand."""

    def transport_lost(self, reason: Failure) -> None:
        """The connection is gone; without `handshake_completed` before it, the reason says why the handshake failed."""


@implementer(IHandshakeListener)
class _Landing(TwistedProtocol):
    """The protocol that Twisted's TLS layer believes to serve."""

    def __init__(self, upstairs: Upstairs) -> None:
        self._upstairs = upstairs

    def dataReceived(self, data: bytes) -> None:
        self._upstairs.plaintext_received(data)

    def handshakeCompleted(self) -> None:
        layer: Any = self.transport
        self._upstairs.handshake_completed(layer.getHandle())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._upstairs.transport_lost(reason)


class _LandingFactory(Factory):
    """Makes the one landing."""

    noisy = False

    def __init__(self, upstairs: Upstairs) -> None:
        self._upstairs = upstairs

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:
        return _Landing(self._upstairs)


class _Wire:
    """The transport as the TLS layer sees it: ciphertext is sent at once where that is possible."""

    def __init__(self, transport: ITransport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        send_now(self._transport, data)

    def __getattr__(self, name: str) -> object:
        value: object = getattr(self._transport, name)
        return value


def start_tls(
    transport: ITransport,
    creator: TLSCreator,
    upstairs: Upstairs,
    clock: IReactorTime,
    *,
    as_client: bool,
) -> TLSMemoryBIOProtocol:
    """Begin the handshake. `creator` is what Twisted's `startTLS` takes.

    Raises what `creator` raises where it cannot make a connection of its settings.
    """
    factory = TLSMemoryBIOFactory(creator, as_client, _LandingFactory(upstairs), clock)
    # Output comes gathered already: the layer that gathers small writes until the reactor's next turn is left out.
    factory.protocol = TLSMemoryBIOProtocol
    layer = factory.buildProtocol(None)
    assert layer is not None
    layer.makeConnection(_Wire(transport))  # type: ignore[no-untyped-call]
    return layer
