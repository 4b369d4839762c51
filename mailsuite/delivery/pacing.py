"""How fast a destination gets its mail: how many connections at once, and how many messages a second.

Connections begin with few. With each message that is settled there may be one more, up to the most; where one of
several is not served, there were too many, and from then on they grow slowly. A destination that could not be reached
is tried with one.

Rates are kept by token buckets, which know the time only when they are asked: there is no timer for a message. A bucket
holds what a second brings, or one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from mailsuite.delivery.retry import RetrySchedule
from mailsuite.mail.route import Destination

_PATIENCE: Final = 100  # messages that are settled before there is another connection, where one was too many
_BUCKET: Final = 1.0  # seconds
_REFILL: Final = 0.5  # seconds after which what is paced goes on, for less it is not worth the while
_SLACK: Final = 1e-6  # of a message: sums of small numbers come out short
_SLOT: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Pacing:
    """The connections to begin with, the most of them, and the most messages a second (None: as many as it takes)."""

    first: int = 2
    most: int = 20
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.first < 1 or self.most < 1 or not (self.rate is None or self.rate > 0):
            raise ValueError("there is at least one connection to a destination, and a rate is more than nothing")


class DestinationRules(Protocol):
    """What the configuration says about a destination, whatever the agent. Look-ups answer from memory."""

    def retry(self, destination: Destination) -> RetrySchedule:
        """When what waits for it is tried again."""

    def pacing(self, destination: Destination) -> Pacing:
        """How fast it gets its mail."""


@dataclass(frozen=True, slots=True)
class UniformRules:
    """The same for all destinations."""

    schedule: RetrySchedule = field(default_factory=RetrySchedule)
    pace: Pacing = field(default_factory=Pacing)

    def retry(self, destination: Destination) -> RetrySchedule:
        """When anything is tried again."""
        return self.schedule

    def pacing(self, destination: Destination) -> Pacing:
        """How fast anything goes."""
        return self.pace


class Concurrency:
    """How many connections there may be at once to one destination, by how it goes; `limit` is the agent's."""

    __slots__ = ("_is_careful", "_most", "_settled", "allowed")

    def __init__(self, pacing: Pacing, limit: int) -> None:
        self._most = max(1, min(pacing.most, limit))
        self.allowed = min(pacing.first, self._most)
        self._settled = 0
        self._is_careful = False

    def served(self) -> bool:
        """A message was settled. Tells whether there may be one more connection now."""
        if self.allowed >= self._most:
            return False
        self._settled += 1
        if self._is_careful and self._settled < _PATIENCE:
            return False
        self._settled = 0
        self.allowed += 1
        return True

    def refused(self, runs: int) -> None:
        """One of so many connections was not served, others were."""
        self.allowed = max(1, min(runs, self._most) - 1)
        self._is_careful = True
        self._settled = 0

    def lost(self) -> None:
        """The destination cannot be reached."""
        self.allowed = 1
        self._settled = 0


class Bucket:
    """A token bucket of `rate` messages a second, full at first. A clock that is set back adds nothing to it."""

    __slots__ = ("_at", "_capacity", "_level", "_rate", "_worthwhile")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate * _BUCKET)
        self._worthwhile = max(1.0, rate * _REFILL)
        self._level = self._capacity
        self._at = now

    def available(self, now: float) -> int:
        """How many messages may go now."""
        self._fill(now)
        return int(self._level + _SLACK)

    def take(self, count: int) -> None:
        """So many go; a negative number is given back."""
        self._level = min(self._level - count, self._capacity)

    def ready_at(self, now: float) -> float:
        """When there are enough for it to be worth while, if none go before."""
        self._fill(now)
        return now + max(0.0, self._worthwhile - self._level) / self._rate

    def is_full(self, now: float) -> bool:
        """Whether nothing is remembered of what went."""
        self._fill(now)
        return self._level >= self._capacity

    def _fill(self, now: float) -> None:
        self._level = min(self._level + max(0.0, now - self._at) * self._rate, self._capacity)
        self._at = now


class Throttle:
    """The buckets that a message must pass: its destination's, and the one for all."""

    __slots__ = ("_buckets",)

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self._buckets = tuple(buckets)

    def available(self, now: float) -> int:
        """How many messages may go now."""
        return min([bucket.available(now) for bucket in self._buckets])

    def take(self, count: int) -> None:
        """As `Bucket.take`."""
        for bucket in self._buckets:
            bucket.take(count)

    def ready_at(self, now: float) -> float:
        """As `Bucket.ready_at`."""
        return max([bucket.ready_at(now) for bucket in self._buckets])


class Meter:
    """Counts messages, and tells how many a second there were just now: over ten to twenty seconds."""

    __slots__ = ("_before", "_count", "_since")

    def __init__(self) -> None:
        self._before = 0
        self._count = 0
        self._since = 0.0

    def count(self, now: float) -> None:
        """One more."""
        if not 0.0 <= now - self._since < _SLOT:
            self._turn(now)
        self._count += 1

    def rate(self, now: float) -> float:
        """How many a second."""
        if not 0.0 <= now - self._since < _SLOT:
            self._turn(now)
        return (self._before + self._count) / (_SLOT + now - self._since)

    def _turn(self, now: float) -> None:
        self._before = self._count if 0.0 <= now - self._since < 2 * _SLOT else 0
        self._count = 0
        self._since = now
