"""A connection creator that remembers its connection, for the certificates that were shown there."""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer


@implementer(IOpenSSLClientConnectionCreator)
class ShownCertificates:
    """Makes what `creator` makes."""

    def __init__(self, creator: IOpenSSLClientConnectionCreator) -> None:
        self._creator = creator
        self._connection: SSL.Connection | None = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self._connection = self._creator.clientConnectionForTLS(tlsProtocol)
        return self._connection

    def certificate(self) -> x509.Certificate | None:
        """The server's own certificate; None where it did not come to that."""
        return None if self._connection is None else self._connection.get_peer_certificate(as_cryptography=True)

    def chain(self) -> list[x509.Certificate]:
        """All that the server has shown, its own certificate first."""
        if self._connection is None:
            return []
        return list(self._connection.get_peer_cert_chain(as_cryptography=True) or ())
