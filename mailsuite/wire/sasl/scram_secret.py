"""What a directory stores of a password for SCRAM-SHA-256, with the password prepared on the way."""

from __future__ import annotations

from mailsuite.mail.scram import derive_scram
from mailsuite.mail.session import ScramSecret
from mailsuite.wire.sasl.saslprep import prepare_stored


def derive_scram_secret(password: str, *, salt: bytes, iterations: int) -> ScramSecret:
    """What to store of a password, as `mail.scram.derive_scram` says. Slow: run it in a thread.

    Raises `ValueError` as that does, and for a password that SASLprep prohibits (RFC 5802 section 2.2).
    """
    return derive_scram(prepare_stored(password), salt=salt, iterations=iterations)
