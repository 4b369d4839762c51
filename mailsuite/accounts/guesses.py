"""What keeps a password from being guessed, and a client that logs in all the time from burning a processor.

`GuessAllowance` bounds how many wrong passwords an account can be asked about, from wherever they come; what
one peer may do is the session's business. A name that no account has is bounded in the same way, so that the
bound tells nothing. The defaults let a forgotten telephone with an old password try once a minute for ever,
and a botnet 2,400 guesses a day.

Known limit: whoever keeps guessing at an account keeps its owner from logging in anew, with a temporary
failure, except where `RecentLogins` knows the password. The account is worth more than that, and the guessing
shows in the log.

`RecentLogins` answers for a password that was verified a few minutes ago. Argued: a client that opens a
connection for each message would cost 30 ms of argon2id for each; thirty messages a second are a core. What is
kept is an HMAC under a key that this process made and never tells, over account, hash and password: whoever could
read key and digests out of our memory could read the passwords that pass through it as well, and to anybody
else they are noise. A changed password or hash misses by itself, as the hash is read anew for each login, and
so is whether the account is enabled. Only right passwords are kept, so nothing is learnt from how long a
wrong one takes. Entries are not renewed by use: a password is verified in earnest every few minutes.

Both are bounded tables, for the reactor's thread.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from mailsuite.interfaces import DirectoryUnavailable


class TooManyGuesses(DirectoryUnavailable):
    """Too many wrong passwords for one account: nothing is verified for a while. It passes, as the base says."""


@dataclass(frozen=True, slots=True)
class GuessLimit:
    """How many wrong passwords in a row, and how many an hour after that. Raises `ValueError` for less than one."""

    burst: int = 50
    per_hour: int = 100

    def __post_init__(self) -> None:
        if self.burst < 1 or self.per_hour < 1:
            raise ValueError("a limit of guesses is one in a row and one an hour, or more")


class _Left(NamedTuple):
    guesses: float
    at: float


class GuessAllowance:
    """How many guesses each name has left. Of names beyond `size` those that were quiet longest are forgotten."""

    def __init__(self, clock: IReactorTime, limit: GuessLimit | None = None, *, size: int = 10_000) -> None:
        self._clock = clock
        self._limit = GuessLimit() if limit is None else limit
        self._size = size
        self._left: OrderedDict[str, _Left] = OrderedDict()

    def take(self, name: str) -> None:
        """Count a guess before it is verified. Raises `TooManyGuesses`."""
        left = self._now_left(name)
        if left < 1:
            raise TooManyGuesses("too many wrong passwords for one name")  # which may be a password, too
        self._set(name, left - 1)

    def give_back(self, name: str) -> None:
        """The guess was right."""
        if name in self._left:
            self._set(name, self._now_left(name) + 1)

    def _now_left(self, name: str) -> float:
        known = self._left.get(name)
        if known is None:
            return self._limit.burst
        passed = self._clock.seconds() - known.at
        return min(self._limit.burst, known.guesses + passed * self._limit.per_hour / 3600)

    def _set(self, name: str, left: float) -> None:
        if left >= self._limit.burst:
            self._left.pop(name, None)
            return
        self._left[name] = _Left(left, self._clock.seconds())
        self._left.move_to_end(name)
        if len(self._left) > self._size:
            self._left.popitem(last=False)


class RecentLogins:
    """Remembers right passwords for `lifetime` seconds, the `size` latest at most, without keeping them."""

    def __init__(self, clock: IReactorTime, *, lifetime: float = 300.0, size: int = 1_000) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._size = size
        self._key = secrets.token_bytes(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def remember(self, name: str, password_hash: str, password: bytes) -> None:
        """This password was just verified against this hash."""
        digest = self._digest(name, password_hash, password)
        self._until[digest] = self._clock.seconds() + self._lifetime
        self._until.move_to_end(digest)
        if len(self._until) > self._size:
            self._until.popitem(last=False)

    def knows(self, name: str, password_hash: str, password: bytes) -> bool:
        """Whether it was, not long ago."""
        digest = self._digest(name, password_hash, password)
        until = self._until.get(digest)
        if until is None:
            return False
        if until > self._clock.seconds():
            return True
        del self._until[digest]
        return False

    def _digest(self, name: str, password_hash: str, password: bytes) -> bytes:
        # Neither a name nor a hash has a NUL in it, so the three cannot run into one another.
        message = b"\0".join((name.encode("utf-8"), password_hash.encode("utf-8"), password))
        return hmac.digest(self._key, message, "sha256")
