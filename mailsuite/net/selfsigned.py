"""A certificate of one's own, for the first steps: encryption against listeners, proof of nothing.

Mail servers that relay opportunistically take it; mail clients will ask their users. For anything public use a
certificate of an authority.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailsuite.mail.address import domain_key
from mailsuite.net.addresses import parse_address
from mailsuite.net.tls import TLSSettingsError

_VALID_FOR: Final = timedelta(days=3650)
_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_MAX_COMMON_NAME: Final = 64  # RFC 5280 appendix A.1: ub-common-name


def make_self_signed(directory: Path, hostname: str) -> tuple[Path, Path]:
    """Make a certificate and its key in `directory`, and return their paths; what is there already is left alone.

    `hostname` is a name or an IP address. The key (mode 0600) is written first, so that a crash in between is mended by
    calling again. Raises `TLSSettingsError`.
    """
    certificate_path = directory / "self-signed.pem"
    key_path = directory / "self-signed.key"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if certificate_path.exists() and key_path.exists():
            return certificate_path, key_path
        if certificate_path.exists():
            raise TLSSettingsError(f"{certificate_path} is there without its key: remove it, and both are made anew")
        key = _read_or_make_key(key_path)
        _write_new(certificate_path, _sign(key, hostname).public_bytes(Encoding.PEM), 0o644)
    except OSError as error:
        raise TLSSettingsError(
            f"a certificate cannot be made in {directory}: {(error.strerror or str(error)).lower()}; "
            "let the server's user write there"
        ) from None
    return certificate_path, key_path


def _read_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (TypeError, ValueError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TLSSettingsError(f"{path} is not a key that was made here: remove it, and a new one is made")
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return key


def _sign(key: ec.EllipticCurvePrivateKey, hostname: str) -> x509.Certificate:
    address = parse_address(hostname)
    name = domain_key(hostname)
    own = x509.IPAddress(address) if isinstance(address, (IPv4Address, IPv6Address)) else x509.DNSName(name)
    # Whoever tries a server out speaks to it over the loopback, and may want to trust just this certificate.
    names = dict.fromkeys([own, x509.DNSName("localhost"), *(x509.IPAddress(one) for one in _LOOPBACK)])
    common = name if len(name) <= _MAX_COMMON_NAME else "mailsuite"
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of peers are wrong by hours
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
