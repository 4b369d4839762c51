"""When to try again, and when to give up (RFC 5321 section 4.5.4.1). Arithmetic only: time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from mailsuite.mail.queue import Message

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_MAX_EXPONENT = 64  # beyond it every schedule has met its maximum, and floats would overflow at last


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The back-off of deferred deliveries; all times are in seconds.

    The first wait is `first`, each next one `factor` times as long, up to `maximum`. Each is stretched or shortened
    by up to `jitter` (a fraction), so that what failed together does not come back together. A message is given up
    `lifetime` after its arrival, one with the null reverse-path `bounce_lifetime` after it. A destination that cannot
    be reached is left alone by the same rule, for `destination_maximum` at most.
    """

    first: float = 5 * _MINUTE
    factor: float = 2.0
    maximum: float = 3 * _HOUR
    jitter: float = 0.1
    lifetime: float = 5 * _DAY
    bounce_lifetime: float = 1 * _DAY
    destination_maximum: float = 1 * _HOUR

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.maximum and self.destination_maximum > 0):
            raise ValueError("a retry schedule waits longer than no time, and at first no longer than at most")
        if not (self.factor >= 1 and 0 <= self.jitter < 1):
            raise ValueError("a retry schedule has a factor of at least 1, and a jitter of at least 0 and below 1")

    def interval(self, attempts: int, chance: float) -> float:
        """How long to wait after an attempt that was deferred, when `attempts` were deferred before it.

        `chance` is a random number from 0 up to 1.
        """
        return self._spread(min(self._grown(attempts), self.maximum), chance)

    def pause(self, failures: int, chance: float) -> float:
        """How long a destination rests that could not be reached `failures` times in a row, counted from 1."""
        return self._spread(min(self._grown(failures - 1), self.destination_maximum), chance)

    def expires(self, message: Message) -> float:
        """When a message is given up."""
        null = message.envelope.reverse_path is None
        return message.arrived + (self.bounce_lifetime if null else self.lifetime)

    def next_attempt(self, message: Message, attempts: int, now: float, chance: float) -> float | None:
        """When to try again after an attempt that was deferred now; None where the message has expired.

        The last attempt comes when the message expires, not some time after it.
        """
        expires = self.expires(message)
        if now >= expires:
            return None
        return min(now + self.interval(attempts, chance), expires)

    def _grown(self, times: int) -> float:
        return self.first * self.factor ** min(max(times, 0), _MAX_EXPONENT)

    def _spread(self, interval: float, chance: float) -> float:
        return interval * (1.0 + self.jitter * (2.0 * chance - 1.0))


def span(seconds: float) -> str:
    """A time in words, as in `5 days` or `90 minutes`, for people."""
    for size, name in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute")):
        if seconds >= 2 * size or seconds == size:
            count = round(seconds / size)
            return f"{count} {name}" if count == 1 else f"{count} {name}s"
    return f"{round(seconds)} seconds"
