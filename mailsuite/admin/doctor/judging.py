"""What is wrong with a certificate, beyond what a handshake says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from mailsuite.mail.address import domain_key
from mailsuite.net.addresses import parse_address
from mailsuite.net.certificates import names_in

_SOON: Final = timedelta(days=14)


class Fault(Enum):
    """What may be the matter with a certificate."""

    EXPIRED = auto()
    NOT_YET = auto()
    OTHER_NAME = auto()
    EXPIRES_SOON = auto()
    SELF_SIGNED = auto()


def faults_of(certificate: x509.Certificate, host: str, now: float) -> dict[Fault, str]:
    """What is the matter with a certificate for `host` (a name or an address), each in words, the worst first."""
    moment = datetime.fromtimestamp(now, UTC)
    faults = {}
    if certificate.not_valid_after_utc < moment:
        faults[Fault.EXPIRED] = f"it has expired on {_day(certificate.not_valid_after_utc)}"
    if moment < certificate.not_valid_before_utc:
        faults[Fault.NOT_YET] = f"it is not valid before {_day(certificate.not_valid_before_utc)}"
    if not _is_for(certificate, host):
        faults[Fault.OTHER_NAME] = f"it is not for {host}, but for {names_in(certificate)}"
    if Fault.EXPIRED not in faults and certificate.not_valid_after_utc < moment + _SOON:
        faults[Fault.EXPIRES_SOON] = f"it expires on {_day(certificate.not_valid_after_utc)}"
    if certificate.issuer == certificate.subject:
        faults[Fault.SELF_SIGNED] = "it is signed by itself"
    return faults


def last_day(certificate: x509.Certificate) -> str:
    """When it expires, for people."""
    return _day(certificate.not_valid_after_utc)


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    name = domain_key(host.rstrip("."))
    address = parse_address(name)
    try:
        if address is None:
            verify_certificate_hostname(certificate, name)
        else:
            verify_certificate_ip_address(certificate, str(address))
    except (CertificateError, VerificationError, ValueError):
        return False
    return True


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
