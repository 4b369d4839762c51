"""What a handshake has found out: about the peer's certificate, and why it has failed."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from OpenSSL import SSL

from mailsuite.mail.session import TLSFacts
from mailsuite.mail.tls_policy import TLSFailureKind, TLSProblem

_COMPLAINTS: Final = {  # of X509_STORE_CTX_get_error(3)
    2: "the certificate's issuer is not known",
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is signed by itself",
    19: "the certificate leads to an authority that is not trusted",
    20: "the certificate's issuer is not known",
    21: "the certificate's issuer is not known",
    23: "the certificate is revoked",
    26: "the certificate is not for a server",
}
_EXPIRED: Final = 10


class TLSFailed(Exception):
    """A handshake has not succeeded."""


class WatchedConnection(SSL.Connection):
    """A TLS connection that remembers what verification has found."""

    leaf_passed = False
    problem: TLSProblem | None = None

    @property
    def is_vouched_for(self) -> bool:
        """Whether the peer has shown a certificate in this very handshake, and no fault was found."""
        return self.leaf_passed and self.problem is None


def problem_of(error: int) -> TLSProblem:
    """What an error of OpenSSL's verification means."""
    kind = TLSFailureKind.EXPIRED if error == _EXPIRED else TLSFailureKind.NOT_TRUSTED
    return TLSProblem(kind, _COMPLAINTS.get(error, f"the certificate does not verify (error {error})"))


def tls_facts(connection: SSL.Connection) -> TLSFacts:
    """What the handshake has settled on.

    `peer_name` is given where the peer's certificate was verified: its first e-mail address or DNS name (RFC 5280
    section 4.2.1.6), else the common name of its subject.
    """
    name = None
    certificate = None
    if isinstance(connection, WatchedConnection) and connection.is_vouched_for:
        certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is not None:
        name = _name_of(certificate)
    return TLSFacts(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        connection.get_cipher_bits() or 0,
        name,
    )


def describe_failure(error: BaseException | None, connection: SSL.Connection | None = None) -> str:
    """In words, why a handshake has failed."""
    if isinstance(connection, WatchedConnection) and connection.problem is not None:
        return connection.problem.text
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        reasons = [str(entry[-1]) for entry in error.args[0]]
        if reasons:
            return ", ".join(reasons)
    return str(error) or "the peer has closed the connection"


def _name_of(certificate: x509.Certificate) -> str | None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.RFC822Name), *names.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError):
        found = []
    if not found:
        try:
            attributes = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        except ValueError:
            return None
        found = [str(attribute.value) for attribute in attributes]
    return found[0] if found else None
