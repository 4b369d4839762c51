"""The DKIM signature of reports by mail: without one they count for nothing (RFC 8460 section 3).

The key is made when it is needed for the first time, and is for reports alone (`s=tlsrpt`). Its selector is made from
it: hosts of one domain need not agree on one, and a key that is made anew has a new one. What has to stand in the DNS
is written beside the key, and in the log.
"""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import dkim  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from twisted.logger import Logger

_log = Logger()

_BITS: Final = 2048  # RFC 8301 section 3.2
_STRING: Final = 250  # octets of a string in a TXT record, of 255
_SIGNED: Final = (
    b"from", b"to", b"subject", b"date", b"message-id", b"tls-report-domain", b"tls-report-submitter",
    b"tls-required", b"auto-submitted", b"mime-version", b"content-type",
)  # fmt: skip


class Unsigned(Exception):
    """There is no key, and none can be made."""


class Signature:
    """Signs for a domain with the key in `file`. Nothing here may be called on the reactor's thread."""

    def __init__(self, domain: str, file: Path) -> None:
        self._domain = domain
        self._file = file
        self._key = b""
        self._selector = ""

    @property
    def selector(self) -> str:
        """The selector of the key; empty before anything was signed."""
        return self._selector

    def sign(self, message: bytes) -> bytes:
        """The message with its signature on top. Raises `Unsigned`."""
        if not self._key:
            self._prepare()
        try:
            field: bytes = dkim.sign(
                message,
                self._selector.encode("ascii"),
                self._domain.encode("ascii"),
                self._key,
                canonicalize=(b"relaxed", b"relaxed"),
                include_headers=list(_SIGNED),
            )
        except dkim.DKIMException as error:
            raise Unsigned(f"{self._file}: {error}") from None
        return field + message

    def _prepare(self) -> None:
        try:
            made = not self._file.exists()
            if made:
                _write(self._file, _new_key())
            octets = self._file.read_bytes()
            public = load_pem_private_key(octets, None).public_key()
        except (OSError, TypeError, ValueError) as error:
            raise Unsigned(f"{self._file}: {error}") from None
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._key, self._selector = octets, f"tlsrpt-{sha256(der).hexdigest()[:8]}"
        if made:
            self._tell(b64encode(der).decode("ascii"))

    def _tell(self, public: str) -> None:
        name = f"{self._selector}._domainkey.{self._domain}."
        text = f"v=DKIM1; k=rsa; s=tlsrpt; p={public}"
        strings = " ".join(f'"{text[at : at + _STRING]}"' for at in range(0, len(text), _STRING))
        beside = self._file.with_suffix(".dns")
        try:
            beside.write_text(f"{name} TXT {strings}\n")
        except OSError as error:
            _log.warn("{file}: {error}", file=str(beside), error=error)
        _log.warn(
            "reports on TLS are signed with a key that was made just now; nobody takes them before the DNS has its "
            "record (it is in {file}): {name} TXT {strings}",
            file=str(beside),
            name=name,
            strings=strings,
        )


def _new_key() -> bytes:
    key: Any = generate_private_key(65537, _BITS)
    octets: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return octets


def _write(file: Path, octets: bytes) -> None:
    """Write a file whole, for nobody else to read."""
    beside = file.with_name(f"{file.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
        new.write(octets)
        new.flush()
        os.fsync(new.fileno())
    beside.rename(file)
