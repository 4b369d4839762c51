"""Passwords: how they are prepared, what is kept of them, and how one is verified.

Rules: a password is prepared by SASLprep as a stored string (RFC 4013, RFC 4616 section 2) before it is
hashed, when it is set and when it is verified; a password with code points that were unassigned in Unicode
3.2 cannot have been set, so it is wrong. Its argon2id hash is always kept. The shared secret of CRAM-MD5 is
the password in UTF-8, as typed: clients prepare nothing there.

To verify costs one argon2id computation whatever comes of it: for an account that does not exist (or has no
password), or a password that cannot be one, it is spent on a hash that fits no password. `verify` blocks for
some 30 ms and gives the interpreter's lock away meanwhile.

Known limits: a hash that was made at another cost takes another time until its owner next logs in, when it is
renewed.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError, VerifyMismatchError
from scramp.utils import ScramException, saslprep  # type: ignore[import-untyped]

from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.records import Secrets
from mailsuite.mail.scram import SALT_LENGTH, derive_scram
from mailsuite.mail.session import ScramSecret, SecretKind

MAX_PASSWORD = 1024
"""Octets; RFC 4616 section 2 has a server accept 255."""

_HASH_LENGTH = 32
_SALT_LENGTH = 16

# Without letters and digits that are taken for one another.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class PasswordCost:
    """What a guess is to cost (RFC 9106 section 3.1). Raises `ValueError` below argon2's own limits.

    The defaults are OWASP's first choice, some 30 ms on one core. RFC 9106's own second choice takes 64 MiB
    and four lanes for each login that is under way, which is much for a server whose every message may begin
    with one.
    """

    time_cost: int = 2
    memory_kib: int = 19 * 1024
    parallelism: int = 1

    def __post_init__(self) -> None:
        if self.time_cost < 1 or self.parallelism < 1 or self.memory_kib < 8 * self.parallelism:
            raise ValueError("argon2id needs one pass, one lane and 8 KiB for each lane, or more")


class Argon2id:
    """Hashes and verifies passwords at one cost. Has no state; safe for any thread."""

    def __init__(self, cost: PasswordCost | None = None) -> None:
        cost = PasswordCost() if cost is None else cost
        self._hasher = PasswordHasher(
            time_cost=cost.time_cost,
            memory_cost=cost.memory_kib,
            parallelism=cost.parallelism,
            hash_len=_HASH_LENGTH,
            salt_len=_SALT_LENGTH,
            type=Type.ID,
        )
        # Random octets in the place of a hash: it costs what the real ones cost and nobody's password fits it.
        salt, digest = (_unpadded(secrets.token_bytes(length)) for length in (_SALT_LENGTH, _HASH_LENGTH))
        parameters = f"m={cost.memory_kib},t={cost.time_cost},p={cost.parallelism}"
        self._nobodys = f"$argon2id$v=19${parameters}${salt}${digest}"

    def secrets(self, password: str, keep: Collection[SecretKind] = ()) -> Secrets:
        """What to keep of a new password. Blocks. Raises `DirectoryError` where it cannot be a password."""
        prepared = checked(password)
        return Secrets(
            password_hash=self._hasher.hash(prepared),
            shared=password.encode("utf-8") if SecretKind.SHARED in keep else None,
            scram=(
                derive_scram(prepared, salt=secrets.token_bytes(SALT_LENGTH))
                if SecretKind.SCRAM_SHA_256 in keep
                else None
            ),
        )

    def verify(self, password_hash: str | None, password: bytes) -> bool:
        """Whether this is the password; None for a hash costs the same, and is no. Blocks."""
        prepared = _prepared(password)
        candidate = self._nobodys if password_hash is None or prepared is None else password_hash
        try:
            return self._fits(candidate, prepared or "")
        except (Argon2Error, InvalidHashError):
            # The hash is broken and nothing was computed: that is done now.
            return self._fits(self._nobodys, prepared or "")

    def verify_known(self, known: str, password: bytes) -> bool:
        """Whether this is a password that we know itself; costs what `verify` costs. Blocks."""
        self.verify(None, password)
        prepared = _prepared(password)
        return prepared is not None and hmac.compare_digest(prepared.encode("utf-8"), checked(known).encode("utf-8"))

    def renewed(self, password_hash: str, password: bytes) -> str | None:
        """The hash of a password that was just verified at the cost of now, None where it has that cost. Blocks."""
        if not self._hasher.check_needs_rehash(password_hash):
            return None
        prepared = _prepared(password)
        return None if prepared is None else self._hasher.hash(prepared)

    def _fits(self, password_hash: str, prepared: str) -> bool:
        try:
            return self._hasher.verify(password_hash, prepared)
        except VerifyMismatchError:
            return False


def checked(password: str) -> str:
    """A new password, prepared. Raises `DirectoryError` with a sentence that does not hold it."""
    try:
        size = len(password.encode("utf-8"))
        prepared: str = saslprep(password)
    except UnicodeEncodeError:
        raise DirectoryError("the password is not valid UTF-8; type another") from None
    except ScramException as error:
        # The library's messages name rules, never the text.
        raise DirectoryError(f"the password cannot be sent by every client ({error}); choose another") from None
    if not prepared:
        raise DirectoryError("the password is empty; choose another")
    if size > MAX_PASSWORD:
        raise DirectoryError(f"the password is longer than {MAX_PASSWORD} octets; choose a shorter one")
    return prepared


def generated() -> str:
    """A new random password of 98 bits that can be read out on the telephone."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


def scram_of(password: str, salt: bytes) -> ScramSecret:
    """What SCRAM-SHA-256 needs of a password. Blocks. Raises `DirectoryError` where it cannot be a password."""
    return derive_scram(checked(password), salt=salt)


def _prepared(password: bytes) -> str | None:
    if len(password) > MAX_PASSWORD:
        return None
    try:
        return checked(password.decode("utf-8"))
    except ValueError:  # not UTF-8, or refused by `checked`
        return None


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode("ascii")
