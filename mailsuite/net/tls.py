"""TLS settings: a server's certificate and key, what a client demands of a server, and what a handshake has settled on.

Everything here makes what Twisted's `startTLS` and `Handover.tls` take: connection creators. TLS 1.2 and later,
forward secrecy, no compression, no renegotiation.

A server may name an authority for clients: then it asks for a certificate, and one of that authority's makes
`TLSFacts.peer_name`. A certificate of any other origin does not end the handshake, since many mail servers show theirs
wherever they are asked; it proves nothing.

Known limits: one certificate for each `ServerTLS` (the name that a client asks for is not looked at); the files are
read on the reactor's thread, at the start and when they have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsuite.mail.address import domain_key
from mailsuite.mail.session import TLSFacts
from mailsuite.net.addresses import parse_address
from mailsuite.net.certificates import names_in

_log = Logger()

# RFC 9325 section 4.2: forward secrecy, authenticated encryption first. The suites of TLS 1.3 are OpenSSL's own.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:!aNULL:!eNULL:!aPSK:!MD5"
_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_SINGLE_ECDH_USE
    | SSL.OP_SINGLE_DH_USE
)
_UNVERIFIED: Final = frozenset({"opportunistic", "required"})
_VERIFIED: Final = frozenset({"verified", "implicit"})

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


class TLSSettingsError(ValueError):
    """Certificate, key or authority cannot be used; one sentence says which file, why, and what helps."""


class TLSFailed(Exception):
    """A handshake has not succeeded."""


class WatchedConnection(SSL.Connection):
    """A TLS connection that remembers what verification has found."""

    leaf_passed = False
    complaint: str | None = None

    @property
    def is_vouched_for(self) -> bool:
        """Whether the peer has shown a certificate in this very handshake, and no fault was found."""
        return self.leaf_passed and self.complaint is None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A context, and what the files were like when it was made of them."""

    context: SSL.Context
    stamp: tuple[tuple[int, int, int], ...]


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """A server's side: what STARTTLS hands over to, and what a listener with implicit TLS begins with.

    `certificate` is a PEM file with the certificate and the chain behind it, `key` a PEM file (None: it is in the
    same). `client_ca` is a PEM file with the authorities that vouch for clients. Changed files are taken over by
    `reload`, or by themselves: they are looked at by a handshake, at most once in `check_every` of `seconds()`. Raises
    `TLSSettingsError`.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None = None,
        *,
        client_ca: Path | None = None,
        seconds: Callable[[], float] | None = None,
        check_every: float = 60.0,
    ) -> None:
        self._certificate = certificate
        self._key = key or certificate
        self._client_ca = client_ca
        self._seconds = seconds
        self._check_every = check_every
        self._loaded = self._load()
        self._checked = 0.0 if seconds is None else seconds()

    def reload(self) -> None:
        """Read the files anew; connections from now on use what they hold.

        Raises `TLSSettingsError`, and what was loaded before stays.
        """
        self._loaded = self._load()

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self._look_for_change()
        return WatchedConnection(self._loaded.context, None)

    def _look_for_change(self) -> None:
        if self._seconds is None or self._seconds() - self._checked < self._check_every:
            return
        self._checked = self._seconds()
        try:
            if self._stamp() != self._loaded.stamp:
                self.reload()
                _log.info("read {file} anew", file=self._certificate)
        except TLSSettingsError as error:
            _log.error("the certificate in use stays: {error}", error=error)

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        stamps = []
        for path in (self._certificate, self._key, self._client_ca):
            if path is not None:
                try:
                    status = path.stat()
                except OSError as error:
                    raise _unreadable("file", path, error) from None
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamps)

    def _load(self) -> _Loaded:
        stamp = self._stamp()
        context = _new_context()
        _show(context, self._certificate, self._key)
        context.set_session_id(b"mailsuite")
        if self._client_ca is not None:
            _ask_clients(context, _read_certificates("authority", self._client_ca))
        return _Loaded(_seal(context), stamp)


class ClientTLS:
    """A client's side: makes connection creators for the servers that are dialled.

    `ca_file` is a PEM file with the authorities to trust; None trusts the platform's. `certificate` and `key` are as in
    `ServerTLS`, for servers that ask who we are. Files are read once. Raises `TLSSettingsError`.
    """

    def __init__(
        self, ca_file: Path | None = None, *, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        self._trusting = self._make(certificate, key)
        self._verifying = self._make(certificate, key, verifying=True, ca_file=ca_file)

    def for_host(self, hostname: str, mode: str) -> IOpenSSLClientConnectionCreator:
        """What `Handover.tls` takes, for the server of this name (or address) by a mode of `NextHop.tls`.

        "opportunistic" and "required" check no certificate; "verified" and "implicit" demand a trusted one for the
        name.
        """
        name = domain_key(hostname.rstrip("."))
        if mode in _UNVERIFIED:
            return _ClientCreator(self._trusting, name, verify=False)
        if mode in _VERIFIED:
            return _ClientCreator(self._verifying, name, verify=True)
        raise ValueError(f"{mode!r} is not a mode that uses TLS")

    @staticmethod
    def _make(
        certificate: Path | None, key: Path | None, *, verifying: bool = False, ca_file: Path | None = None
    ) -> SSL.Context:
        context = _new_context()
        if certificate is not None:
            _show(context, certificate, key or certificate)
        if ca_file is not None:
            _trust(context, _read_certificates("authority", ca_file))
        elif verifying:
            context.set_default_verify_paths()
        return _seal(context)


@implementer(IOpenSSLClientConnectionCreator)
class _ClientCreator:
    """One server's name, and what is demanded of it."""

    __slots__ = ("_address", "_context", "_name", "_verify")

    def __init__(self, context: SSL.Context, name: str, *, verify: bool) -> None:
        self._context = context
        self._name = name
        self._address = parse_address(name)
        self._verify = verify

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = WatchedConnection(self._context, None)
        if self._address is None:  # RFC 6066 section 3: literal addresses are not permitted as names
            connection.set_tlsext_host_name(self._name.encode("utf-8"))
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER, self._judge)
        return connection

    def _judge(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, passed: int) -> bool:
        assert isinstance(connection, WatchedConnection)
        if not passed:
            connection.complaint = _COMPLAINTS.get(error, f"the certificate does not verify (error {error})")
            return False
        if depth == 0:
            try:
                if self._address is None:
                    verify_certificate_hostname(certificate.to_cryptography(), self._name)
                else:
                    verify_certificate_ip_address(certificate.to_cryptography(), str(self._address))
            except Exception:  # noqa: BLE001 - a malformed certificate is not for this name either
                connection.complaint = f"the certificate is not for {self._name}{_whom(certificate)}"
                return False
            connection.leaf_passed = True
        return True


def _whom(certificate: crypto.X509) -> str:
    try:
        return f", but for {names_in(certificate.to_cryptography())}"
    except Exception:  # noqa: BLE001 - it is malformed
        return ""


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
    if isinstance(connection, WatchedConnection) and connection.complaint is not None:
        return connection.complaint
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        reasons = [str(entry[-1]) for entry in error.args[0]]
        if reasons:
            return ", ".join(reasons)
    return str(error) or "the peer has closed the connection"


# ----------------------------------------------------------------------------------------- contexts


def _new_context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # idle connections are many
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def _seal(context: SSL.Context) -> SSL.Context:
    """The last setting: pyOpenSSL tries the ciphers with a connection, and allows no change after the first one."""
    context.set_cipher_list(_CIPHERS)
    return context


def _show(context: SSL.Context, certificate: Path, key: Path) -> None:
    """Identify ourselves by this certificate, with its chain."""
    chain = _read_certificates("certificate", certificate)
    private = _read_key(key)
    if chain[0].public_key() != private.public_key():
        raise TLSSettingsError(
            f"the key in {key} does not belong to the first certificate in {certificate}: "
            "give the key that the certificate was made for, and put one's own certificate before its chain"
        )
    try:
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(private)
    except (SSL.Error, ValueError) as error:
        raise TLSSettingsError(f"OpenSSL does not take the certificate in {certificate}: {error}") from None


def _trust(context: SSL.Context, authorities: list[x509.Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))


def _ask_clients(context: SSL.Context, authorities: list[x509.Certificate]) -> None:
    """Ask clients for a certificate of these authorities; they may come without, or with another."""
    _trust(context, authorities)
    for authority in authorities:
        context.add_client_ca(authority)
    # A resumed session shows no certificate, so there would be nothing to vouch for.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_verify(SSL.VERIFY_PEER, _take_note)


def _take_note(connection: SSL.Connection, _certificate: crypto.X509, error: int, depth: int, passed: int) -> bool:
    if isinstance(connection, WatchedConnection):
        if not passed:
            connection.complaint = _COMPLAINTS.get(error, f"error {error}")
        elif depth == 0:
            connection.leaf_passed = True
    return True


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


# -------------------------------------------------------------------------------------------- files


_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


def _read(what: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(what, path, error) from None


def _unreadable(what: str, path: Path, error: OSError) -> TLSSettingsError:
    cure = "give the path of a PEM file"
    if isinstance(error, PermissionError):
        cure = "let the server's user read it"
    reason = (error.strerror or str(error)).lower()
    return TLSSettingsError(f"the {what} {path} cannot be read: {reason}; {cure}")


def _read_certificates(what: str, path: Path) -> list[x509.Certificate]:
    data = _read(what, path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise TLSSettingsError(
            f"{path} holds no {what} in PEM: it should have lines that begin with -----BEGIN CERTIFICATE-----"
        ) from None


def _read_key(path: Path) -> _Key:
    data = _read("key", path)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise TLSSettingsError(
            f"the key in {path} is encrypted: store it without a passphrase, readable by the server's user only"
        ) from None
    except ValueError:
        raise TLSSettingsError(
            f"{path} holds no private key in PEM: it should have a line that ends in PRIVATE KEY-----"
        ) from None
    except Exception as error:  # noqa: BLE001 - cryptography's own, for kinds of key that it does not know
        raise TLSSettingsError(f"the key in {path} is of a kind that cannot be used: {error}") from None
    if isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
        return key
    kind = "DSA" if isinstance(key, dsa.DSAPrivateKey) else type(key).__name__
    raise TLSSettingsError(f"the key in {path} is of a kind that TLS does not use ({kind}): make an RSA or an EC key")
