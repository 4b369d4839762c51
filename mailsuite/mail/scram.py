"""What a server keeps of a password for SCRAM-SHA-256 (RFC 5802 section 3, RFC 7677), computed.

The password comes prepared by SASLprep (RFC 5802 section 2.2); what may be one is said by those who take it in.
"""

from __future__ import annotations

import hashlib
import hmac

from mailsuite.mail.session import ScramSecret

DEFAULT_ITERATIONS = 15_000
"""RFC 7677 section 4 gives this figure as the rule of thumb; some 4 ms of PBKDF2 for each side."""

MIN_ITERATIONS = 4096
"""RFC 7677 section 4: what a server should announce at the least."""

SALT_LENGTH = 16
"""Octets. Secrets that are derived with another length differ visibly from decoys."""

_MIN_SALT = 12


def derive_scram(prepared: str, *, salt: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramSecret:
    """What to keep of a prepared password. Slow: run it in a thread.

    `salt` is random, `SALT_LENGTH` octets; 12 are the least. Raises `ValueError` for less, and for fewer than
    `MIN_ITERATIONS` iterations.
    """
    if len(salt) < _MIN_SALT or iterations < MIN_ITERATIONS:
        raise ValueError(f"a SCRAM secret needs 12 octets of salt and {MIN_ITERATIONS} iterations, or more")
    # RFC 5802 section 3: SaltedPassword, ClientKey, StoredKey, ServerKey.
    salted = hashlib.pbkdf2_hmac("sha256", prepared.encode("utf-8"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramSecret(
        salt=salt,
        iterations=iterations,
        stored_key=hashlib.sha256(client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", "sha256"),
    )
