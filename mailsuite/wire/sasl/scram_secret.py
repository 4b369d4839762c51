"""What a directory stores of a password for SCRAM-SHA-256 (RFC 5802 section 3, RFC 7677)."""

from __future__ import annotations

from scramp import ScramMechanism  # type: ignore[import-untyped]

from mailsuite.mail.session import ScramSecret
from mailsuite.wire.sasl.saslprep import prepare_stored

DEFAULT_ITERATIONS = 15_000
"""RFC 7677 section 4 gives this figure as the rule of thumb; some 4 ms of PBKDF2 for each side."""

MIN_ITERATIONS = 4096
"""RFC 7677 section 4: what a server should announce at the least."""

SALT_LENGTH = 16
"""Octets. Secrets that are derived with another length differ visibly from decoys."""

_MIN_SALT = 12


def derive_scram_secret(password: str, *, salt: bytes, iterations: int) -> ScramSecret:
    """What to store of a password. Slow: run it in a thread.

    `salt` is random, `SALT_LENGTH` octets; 12 are the least. `iterations` is 4096 at the least. Raises
    `ValueError` for less, and for a password that SASLprep prohibits (RFC 5802 section 2.2).
    """
    prepared = prepare_stored(password)
    if len(salt) < _MIN_SALT or iterations < MIN_ITERATIONS:
        raise ValueError(f"a SCRAM secret needs 12 octets of salt and {MIN_ITERATIONS} iterations, or more")
    derived = ScramMechanism("SCRAM-SHA-256").make_auth_info(prepared, iteration_count=iterations, salt=salt)
    _, stored_key, server_key, _ = derived
    return ScramSecret(salt=salt, iterations=iterations, stored_key=stored_key, server_key=server_key)
