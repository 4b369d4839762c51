"""Chains of certificates for DANE: whatever depth, names and faults a test asks for."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha512

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailsuite.mail.tls_policy import TLSA

_DAY = timedelta(days=1)


@dataclass
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self):
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self):
        return self.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def make(name, issuer=None, *, names=(), ca=False, expired=False, client=False, path_length=None, kind="ec", version=3):
    """A certificate signed by another, or by itself; `names` are its DNS names, `name` its common name."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 20 * _DAY)
        .not_valid_after(now - _DAY if expired else now + 20 * _DAY)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False
        )
    if client:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return Made(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def record(usage, selector, matching, made):
    """The TLSA record that vouches for a certificate."""
    data = made.spki if selector == 1 else made.der
    return TLSA(usage, selector, matching, {0: bytes, 1: _sha256, 2: _sha512}[matching](data))


def _sha256(data):
    return sha256(data).digest()


def _sha512(data):
    return sha512(data).digest()


def write(directory, name, *chain):
    """A PEM file of a chain, and one of the first one's key."""
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    paths[0].write_bytes(b"".join(made.certificate.public_bytes(Encoding.PEM) for made in chain))
    paths[1].write_bytes(chain[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths
