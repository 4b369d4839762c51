"""A client's side of TLS: what is demanded of the servers that are dialled.

By a policy (`mailsuite.mail.tls_policy`) the server's certificate is not looked at, verified by PKIX and its name, or
by its TLSA records (DANE). What was wrong with it is kept for the reports, even where nothing follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from OpenSSL import SSL, crypto
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsuite.mail.address import domain_key
from mailsuite.mail.tls_policy import TLSA, TLSFailureKind, TLSPolicy, TLSProblem
from mailsuite.net import dane
from mailsuite.net.addresses import parse_address
from mailsuite.net.certificates import names_in
from mailsuite.net.tls.contexts import new_context, seal, show, trust
from mailsuite.net.tls.files import Stamp, TLSSettingsError, read_certificates, stamp_of
from mailsuite.net.tls.watched import WatchedConnection, problem_of

_log = Logger()

_UNVERIFIED: Final = frozenset({"opportunistic", "required"})
_VERIFIED: Final = frozenset({"verified", "implicit"})


@dataclass(slots=True)
class _Loaded:
    """A context, what its files were like when it was made, and when they were last looked at."""

    context: SSL.Context
    stamp: Stamp
    looked: float


class ClientTLS:
    """Makes connection creators for the servers that are dialled.

    `ca_file` is a PEM file with the authorities to trust; None trusts the platform's. `certificate` and `key` are PEM
    files as in `ServerTLS`, for servers that ask who we are. Files are read once; with a clock `seconds` they are seen
    to again by those who connect, at most once in `check_every`, and what cannot be read any more leaves in place what
    was read before. Raises `TLSSettingsError`.
    """

    def __init__(
        self,
        ca_file: Path | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        seconds: Callable[[], float] | None = None,
        check_every: float = 60.0,
    ) -> None:
        self._ca_file = ca_file
        self._certificate = certificate
        self._key = key
        self._seconds = seconds
        self._check_every = check_every
        self._contexts: dict[tuple[Path | None, Path | None, bool], _Loaded] = {}
        for verifying in (False, True):
            self._context(certificate, key, verifying=verifying)

    def for_host(self, hostname: str, mode: str) -> PolicyCreator:
        """`for_policy`, by nothing but a mode of `NextHop.tls` other than "dane" and "none"."""
        if mode == "dane":
            raise ValueError("'dane' needs the records of a policy")
        return self.for_policy(hostname, TLSPolicy(mode))

    def for_policy(
        self, hostname: str, policy: TLSPolicy, *, certificate: Path | None = None, key: Path | None = None
    ) -> PolicyCreator:
        """What `Handover.tls` takes, for a connection to the server of this name (or address).

        "opportunistic" and "required" check no certificate; "verified" and "implicit" demand a trusted one for the
        name; "dane" one that the records vouch for, so that without a usable record none will do. Where the policy is
        `testing` the same is looked at as in "verified", and only `PolicyCreator.problem` tells. `certificate` and
        `key` take the place of our own. Raises `TLSSettingsError` where those cannot be used, `ValueError` for a mode
        without TLS.
        """
        if policy.mode not in _UNVERIFIED | _VERIFIED | {"dane"}:
            raise ValueError(f"{policy.mode!r} is not a mode that uses TLS")
        names = tuple(domain_key(name.rstrip(".")) for name in policy.names or (hostname,))
        own = (self._certificate, self._key) if certificate is None else (certificate, key)
        if policy.mode == "dane":
            return _DaneCreator(self._context(*own, verifying=False), names, policy.tlsa)
        verifying = policy.testing or policy.mode in _VERIFIED
        context = self._context(*own, verifying=verifying)
        if verifying:
            return _VerifyingCreator(context, names, enforcing=not policy.testing)
        return PolicyCreator(context, names)

    def _context(self, certificate: Path | None, key: Path | None, *, verifying: bool) -> SSL.Context:
        known = self._contexts.get((certificate, key, verifying))
        now = 0.0 if self._seconds is None else self._seconds()
        if known is None:
            known = self._contexts[certificate, key, verifying] = self._load(certificate, key, now, verifying=verifying)
        elif self._seconds is not None and now - known.looked >= self._check_every:
            known.looked = now
            try:
                if self._stamp(certificate, key, verifying=verifying) != known.stamp:
                    known = self._load(certificate, key, now, verifying=verifying)
                    self._contexts[certificate, key, verifying] = known
            except TLSSettingsError as error:
                _log.error("what was read before stays in use: {error}", error=error)
        return known.context

    def _stamp(self, certificate: Path | None, key: Path | None, *, verifying: bool) -> Stamp:
        return stamp_of((certificate, key, self._ca_file if verifying else None))

    def _load(self, certificate: Path | None, key: Path | None, now: float, *, verifying: bool) -> _Loaded:
        stamp = self._stamp(certificate, key, verifying=verifying)
        context = new_context()
        if certificate is not None:
            show(context, certificate, key or certificate)
        if verifying:
            if self._ca_file is not None:
                trust(context, read_certificates("authority", self._ca_file))
            else:
                context.set_default_verify_paths()
        return _Loaded(seal(context), stamp, now)


@implementer(IOpenSSLClientConnectionCreator)
class PolicyCreator:
    """Makes the TLS connections to one server; this one looks at no certificate.

    The server is asked for the first of `names` (RFC 8461 section 7.1, RFC 7672 section 8.1). After a handshake, be it
    a good one or not, `problem` says what was wrong with the server's certificate; None where nothing was found, or
    looked for. It is that of the latest connection: one creator is for one connection at a time.
    """

    def __init__(self, context: SSL.Context, names: Sequence[str]) -> None:
        self.problem: TLSProblem | None = None
        self._context = context
        self._names = names

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self.problem = None
        connection = self._make()
        if parse_address(self._names[0]) is None:  # RFC 6066 section 3: literal addresses are not permitted as names
            connection.set_tlsext_host_name(self._names[0].encode("utf-8"))
        return connection

    def _make(self) -> WatchedConnection:
        return WatchedConnection(self._context, None)


class _VerifyingCreator(PolicyCreator):
    """Demands a certificate of a trusted authority for one of the names; or, not `enforcing`, only takes note."""

    def __init__(self, context: SSL.Context, names: Sequence[str], *, enforcing: bool) -> None:
        super().__init__(context, names)
        self._enforcing = enforcing

    def _make(self) -> WatchedConnection:
        connection = super()._make()
        connection.set_verify(SSL.VERIFY_PEER, self._judge)
        return connection

    def _judge(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, passed: int) -> bool:
        assert isinstance(connection, WatchedConnection)
        found = None
        if not passed:
            found = problem_of(error)
        elif depth == 0:
            found = self._name_problem(certificate)
            connection.leaf_passed = found is None and self.problem is None
        self.problem = self.problem or found
        if found is None or not self._enforcing:
            return True
        connection.problem = found
        return False

    def _name_problem(self, certificate: crypto.X509) -> TLSProblem | None:
        if any(_is_for(certificate, name) for name in self._names):
            return None
        wanted = " or ".join(self._names)
        return TLSProblem(TLSFailureKind.HOST_MISMATCH, f"the certificate is not for {wanted}{_whom(certificate)}")


class _DaneCreator(PolicyCreator):
    """Demands a certificate that the TLSA records vouch for (RFC 7672 section 3)."""

    def __init__(self, context: SSL.Context, names: Sequence[str], records: Sequence[TLSA]) -> None:
        super().__init__(context, names)
        self._records = records

    def _make(self) -> WatchedConnection:
        connection = _DaneConnection(self._context, None)
        connection.judge = self._judge
        # OpenSSL knows no authority, so it finds fault with every chain: which faults matter is ours to say, once it
        # has come to the server's own certificate.
        connection.set_verify(SSL.VERIFY_PEER, _note_dane)
        return connection

    def _judge(self, connection: SSL.Connection) -> TLSProblem | None:
        try:
            chain = connection.get_peer_cert_chain(as_cryptography=True) or []
        except Exception as error:  # noqa: BLE001 - of a parser, for what a peer has made up
            self.problem = TLSProblem(TLSFailureKind.VALIDATION, f"the certificate cannot be read ({error})")
        else:
            self.problem = dane.judge(self._records, self._names, chain)
        return self.problem


class _DaneConnection(WatchedConnection):
    """Is not done with its handshake before a record has vouched for the server."""

    judge: Callable[[SSL.Connection], TLSProblem | None]

    def do_handshake(self) -> None:
        super().do_handshake()
        # An OpenSSL that gives away the chain only after verification has not been judged by `_note_dane`.
        if not self.leaf_passed:
            self.problem = self.judge(self)
            if self.problem is not None:
                raise SSL.Error([("SSL routines", "", self.problem.text)])
            self.leaf_passed = True


def _note_dane(connection: SSL.Connection, _certificate: crypto.X509, _error: int, depth: int, passed: int) -> bool:
    assert isinstance(connection, _DaneConnection)
    if depth == 0 and passed and not connection.leaf_passed and connection.get_peer_cert_chain():
        connection.problem = connection.judge(connection)
        connection.leaf_passed = connection.problem is None
        return connection.leaf_passed
    return True


def _is_for(certificate: crypto.X509, name: str) -> bool:
    """RFC 8461 section 4.2: by DNS-ID; or by the address where that is what we were told to dial."""
    address = parse_address(name)
    try:
        if address is None:
            verify_certificate_hostname(certificate.to_cryptography(), name)
        else:
            verify_certificate_ip_address(certificate.to_cryptography(), str(address))
    except Exception:  # noqa: BLE001 - a malformed certificate is not for this name either
        return False
    return True


def _whom(certificate: crypto.X509) -> str:
    try:
        return f", but for {names_in(certificate.to_cryptography())}"
    except Exception:  # noqa: BLE001 - it is malformed
        return ""
