"""SCRAM-SHA-256: the messages and the keys, for both sides (RFC 5802 sections 3 and 7, RFC 7677).

The grammar is a regular expression for each message. Attributes that are not assigned are passed over where
extensions may stand; assigned ones out of their place, and `m`, make a message malformed (RFC 5802 section
5.1).

Of scramp the SASLprep and the derivation of stored keys are used. Its conversation is not: it looks the
account up in the middle of a call, where ours is looked up by a coroutine; it takes no authorization
identity; and it lets a server prescribe ten million iterations.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

MAX_MESSAGE = 4096
"""Octets: two names of 255, each octet escaped into three, and ample room for nonces and extensions."""

DIGEST_SIZE = 32

_NAME = r"(?:[^\0,=]|=2C|=3D)+"
_NONCE = r"[!-+\--~]+"
_BASE64 = r"[A-Za-z0-9+/]+={0,2}"
_EXTENSIONS = r"(?:,(?![aceimnprsv]=)[A-Za-z]=[^\0,]+)*"

CLIENT_FIRST = re.compile(
    rf"(?P<gs2>(?P<binding>n|y|p=[A-Za-z0-9.\-]+),(?:a=(?P<authzid>{_NAME}))?,)"
    rf"(?P<bare>n=(?P<user>{_NAME}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
SERVER_FIRST = re.compile(
    rf"r=(?P<nonce>{_NONCE}),s=(?P<salt>{_BASE64}),i=(?P<iterations>[1-9][0-9]{{0,8}}){_EXTENSIONS}"
)
CLIENT_FINAL = re.compile(
    rf"(?P<without_proof>c=(?P<binding>{_BASE64}),r=(?P<nonce>{_NONCE}){_EXTENSIONS}),p=(?P<proof>{_BASE64})"
)
SERVER_FINAL = re.compile(rf"(?:e=(?P<error>[^\0,]+)|v=(?P<verifier>{_BASE64})){_EXTENSIONS}")


def escaped(name: str) -> str:
    """A name as a saslname (RFC 5802 section 5.1)."""
    return name.replace("=", "=3D").replace(",", "=2C")


def unescaped(name: str) -> str:
    """A name out of a saslname that the grammar has passed."""
    return name.replace("=2C", ",").replace("=3D", "=")


def encoded(data: bytes) -> str:
    """Octets in base64."""
    return base64.b64encode(data).decode("ascii")


def decoded_base64(text: str) -> bytes | None:
    """Octets out of base64, None where it is not that in its canonical form (RFC 5802 section 2.1)."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return data if encoded(data) == text else None


def auth_message(client_first_bare: str, server_first: str, client_final_without_proof: str) -> bytes:
    """What both sides sign (RFC 5802 section 3)."""
    return f"{client_first_bare},{server_first},{client_final_without_proof}".encode()


def signature(key: bytes, message: bytes) -> bytes:
    """HMAC(key, message)."""
    return hmac.digest(key, message, "sha256")


def xor(left: bytes, right: bytes) -> bytes:
    """Exclusive or of two digests."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(DIGEST_SIZE, "big")


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Hi() of a prepared password. Slow: `iterations` rounds of HMAC, without the interpreter's lock."""
    return hashlib.pbkdf2_hmac("sha256", password.encode("utf-8"), salt, iterations)
