"""Certificates and keys in files (PEM), with errors that say which file, why, and what helps.

Known limit: they are read on the reactor's thread, at the start and when they have changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
Stamp = tuple[tuple[int, int, int], ...]


class TLSSettingsError(ValueError):
    """Certificate, key or authority cannot be used; one sentence says which file, why, and what helps."""


def stamp_of(paths: Iterable[Path | None]) -> Stamp:
    """What changes when one of these files does. Raises `TLSSettingsError` where one cannot be seen."""
    stamps = []
    for path in paths:
        if path is not None:
            try:
                status = path.stat()
            except OSError as error:
                raise _unreadable("file", path, error) from None
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)


def read_certificates(what: str, path: Path) -> list[x509.Certificate]:
    """All certificates of a file; `what` names them in errors. Raises `TLSSettingsError`."""
    data = _read(what, path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise TLSSettingsError(
            f"{path} holds no {what} in PEM: it should have lines that begin with -----BEGIN CERTIFICATE-----"
        ) from None


def read_key(path: Path) -> PrivateKey:
    """The private key of a file. Raises `TLSSettingsError`."""
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
