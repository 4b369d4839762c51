"""A server's side of TLS.

A server may name an authority for clients: then it asks for a certificate, and one of that authority's makes
`TLSFacts.peer_name`. A certificate of any other origin does not end the handshake, since many mail servers show theirs
wherever they are asked; it proves nothing.

Known limit: one certificate for each `ServerTLS` (the name that a client asks for is not looked at).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsuite.net.tls.contexts import new_context, seal, show, trust
from mailsuite.net.tls.files import Stamp, TLSSettingsError, read_certificates, stamp_of
from mailsuite.net.tls.watched import WatchedConnection, problem_of

_log = Logger()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A context, and what the files were like when it was made of them."""

    context: SSL.Context
    stamp: Stamp


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

    def _stamp(self) -> Stamp:
        return stamp_of((self._certificate, self._key, self._client_ca))

    def _load(self) -> _Loaded:
        stamp = self._stamp()
        context = new_context()
        show(context, self._certificate, self._key)
        context.set_session_id(b"mailsuite")
        if self._client_ca is not None:
            _ask_clients(context, read_certificates("authority", self._client_ca))
        return _Loaded(seal(context), stamp)


def _ask_clients(context: SSL.Context, authorities: list[x509.Certificate]) -> None:
    """Ask clients for a certificate of these authorities; they may come without, or with another."""
    trust(context, authorities)
    for authority in authorities:
        context.add_client_ca(authority)
    # A resumed session shows no certificate, so there would be nothing to vouch for.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_verify(SSL.VERIFY_PEER, _take_note)


def _take_note(connection: SSL.Connection, _certificate: crypto.X509, error: int, depth: int, passed: int) -> bool:
    if isinstance(connection, WatchedConnection):
        if not passed:
            connection.problem = problem_of(error)
        elif depth == 0:
            connection.leaf_passed = True
    return True
