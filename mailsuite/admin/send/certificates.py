"""A TLS handshake, watched: protocol, cipher, the certificates that the server has shown, and what is wrong with them.

They are told whether the handshake demanded anything of them or not: opportunistic TLS takes any certificate, and
whoever runs the server may still want to know that nobody else would.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from OpenSSL import crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

from mailsuite.admin.doctor.judging import Fault, faults_of, last_day
from mailsuite.admin.send.steps import Teller
from mailsuite.admin.shown import ShownCertificates
from mailsuite.mail.session import TLSFacts
from mailsuite.net.certificates import names_in

_MOST: Final = 6  # certificates of a chain that are told


class Handshake:
    """One handshake with `host`. `ca_file` are the authorities to trust; None for the platform's."""

    def __init__(self, teller: Teller, host: str, now: float, ca_file: Path | None = None) -> None:
        self._teller = teller
        self._host = host
        self._now = now
        self._ca_file = ca_file
        self._kept: ShownCertificates | None = None

    def creator(self, creator: IOpenSSLClientConnectionCreator) -> IOpenSSLClientConnectionCreator:
        """The same creator; its connection is remembered."""
        self._kept = ShownCertificates(creator)
        return self._kept

    def succeeded(self, facts: TLSFacts) -> None:
        """TLS is there."""
        self._teller.ok("tls", f"{facts.version}, {facts.cipher}")
        self._tell_certificates()

    def failed(self, why: str) -> None:
        """It has failed."""
        self._teller.wrong("tls", why)
        self._tell_certificates()

    def _tell_certificates(self) -> None:
        """What the server has shown, if it came to that."""
        kept, self._kept = self._kept, None
        chain = [] if kept is None else kept.chain()
        if not chain:
            return
        lines = [_line(one) for one in chain[:_MOST]]
        if len(chain) > _MOST:
            lines.append(f"... and {len(chain) - _MOST} more")
        self._teller.note("certificate", "\n".join(lines))
        faults = faults_of(chain[0], self._host, self._now)
        faults.pop(Fault.SELF_SIGNED, None)  # that is what the next line says, too
        wrong = list(faults.values())
        trouble = mistrust(chain, self._ca_file)
        if trouble is not None:
            wrong.append(f"it is not vouched for by an authority that is trusted here: {trouble}")
        for fault in wrong:
            self._teller.warn("certificate", fault)
        if not wrong:
            self._teller.ok("certificate", f"it is for {self._host}, and vouched for by an authority that is trusted")


def mistrust(chain: Sequence[x509.Certificate], ca_file: Path | None) -> str | None:
    """Why nobody whom we trust vouches for a certificate; None where somebody does."""
    store = crypto.X509Store()
    try:
        if ca_file is not None:
            store.load_locations(str(ca_file))
        else:
            paths = ssl.get_default_verify_paths()
            store.load_locations(paths.cafile, paths.capath)
        leaf, *others = map(crypto.X509.from_cryptography, chain)
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    except crypto.Error:
        return "the authorities to trust cannot be read"
    return None


def _line(certificate: x509.Certificate) -> str:
    return f"{names_in(certificate)}, by {_issuer(certificate)}, until {last_day(certificate)}"


def _issuer(certificate: x509.Certificate) -> str:
    if certificate.issuer == certificate.subject:
        return "itself"
    for kind in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME):
        for attribute in certificate.issuer.get_attributes_for_oid(kind):
            return str(attribute.value)
    return "somebody without a name"
