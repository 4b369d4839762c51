"""When to try again, and when to give up (RFC 5321 section 4.5.4.1). Arithmetic only: time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailsuite.mail.options import PLAIN, ByMode
from mailsuite.mail.queue import Message, Outcome, Result

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_MAX_EXPONENT: Final = 64  # beyond it every schedule has met its maximum, and floats would overflow at last
_SHORTEST: Final = 1.0  # seconds; a schedule that waits less would be a loop
_GREYLISTING: Final = (450, 451)


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The back-off of deferred deliveries; all times are in seconds.

    The waits are those of `waits`, of which the last one is repeated. Where that is empty the first wait is `first`,
    each next one `factor` times as long, up to `maximum`. Each is stretched or shortened by up to `jitter` (a
    fraction), so that what failed together does not come back together. No wait is shorter than a second.

    After an answer as those give who know us not yet, the first wait is `greylisted`, where that is sooner, and the
    others follow it.

    A message is given up `lifetime` after its arrival, one with the null reverse-path `bounce_lifetime` after it.
    `delay_report` after its arrival the sender is told that it is late; 0 is for never. A destination that cannot be
    reached is left alone by the same rule as deliveries, for `destination_maximum` at most.
    """

    first: float = 5 * _MINUTE
    factor: float = 2.0
    maximum: float = 3 * _HOUR
    jitter: float = 0.1
    lifetime: float = 5 * _DAY
    bounce_lifetime: float = 1 * _DAY
    destination_maximum: float = 1 * _HOUR
    waits: tuple[float, ...] = ()
    greylisted: float = 90.0
    delay_report: float = 4 * _HOUR

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.maximum and self.destination_maximum > 0):
            raise ValueError("a retry schedule waits longer than no time, and at first no longer than at most")
        if not (self.factor >= 1 and 0 <= self.jitter < 1):
            raise ValueError("a retry schedule has a factor of at least 1, and a jitter of at least 0 and below 1")
        if min(self.greylisted, self.delay_report, *self.waits) < 0:
            raise ValueError("a retry schedule has no negative times")

    @property
    def shortest(self) -> float:
        """The first wait, but for chance."""
        return self._wait(0)

    def interval(self, attempts: int, chance: float, *, greylisted: bool = False) -> float:
        """How long to wait after an attempt that was deferred, when `attempts` were deferred before it.

        `chance` is a random number from 0 up to 1. `greylisted` says what `is_greylisting` does of the answer.
        """
        if greylisted:
            wait = self._wait(attempts - 1) if attempts else min(self.greylisted, self._wait(0))
        else:
            wait = self._wait(attempts)
        return max(self._spread(wait, chance), _SHORTEST)

    def pause(self, failures: int, chance: float) -> float:
        """How long a destination rests that could not be reached `failures` times in a row, counted from 1."""
        return max(self._spread(min(self._grown(failures - 1), self.destination_maximum), chance), _SHORTEST)

    def expires(self, message: Message) -> float:
        """When a message is given up.

        One that was to be released later (RFC 4865 section 4.2) lives from then on. What must be delivered by some
        time or returned is not tried after that (RFC 2852 section 4.1.3), and no longer than others (section 4).
        """
        options = message.envelope.options
        lifetime = self.bounce_lifetime if message.envelope.reverse_path is None else self.lifetime
        if options is PLAIN:
            return message.arrived + lifetime
        begins = self._begins(message)
        deadline = deadline_of(message)
        return begins + lifetime if deadline is None else min(begins + lifetime, deadline)

    def next_attempt(
        self, message: Message, attempts: int, now: float, chance: float, *, greylisted: bool = False
    ) -> float | None:
        """When to try again after an attempt that was deferred now; None where the message has expired.

        The last attempt comes when the message expires, not some time after it; and one when the sender wants to be
        told that it has not arrived (RFC 2852 section 4.1.3). What is urgent waits half as long (RFC 6710 section 5.1).
        """
        expires = self.expires(message)
        if now >= expires:
            return None
        wait = self.interval(attempts, chance, greylisted=greylisted)
        if message.envelope.options.priority > 0:
            wait = max(wait / 2, _SHORTEST)
        notice = notice_of(message)
        if notice is not None and now < notice:
            expires = min(expires, notice)
        return min(now + wait, expires)

    def late_at(self, message: Message) -> float | None:
        """When the sender is told that a message is late; None for never.

        That is once, at the time that he has set for it (RFC 2852 section 4.1.3), where there is one before it is given
        up; else some time after it came (RFC 3461 section 5.2.5).
        """
        notice = notice_of(message)
        if notice is not None and notice < self.expires(message):
            return notice
        return self._begins(message) + self.delay_report if self.delay_report > 0 else None

    @staticmethod
    def _begins(message: Message) -> float:
        held = message.envelope.options.hold_until
        return message.arrived if held is None else max(message.arrived, held)

    def _wait(self, times: int) -> float:
        return self._grown(times) if self.waits else min(self._grown(times), self.maximum)

    def _grown(self, times: int) -> float:
        times = max(times, 0)
        if self.waits:
            return self.waits[min(times, len(self.waits) - 1)]
        return self.first * self.factor ** min(times, _MAX_EXPONENT)

    def _spread(self, interval: float, chance: float) -> float:
        return interval * (1.0 + self.jitter * (2.0 * chance - 1.0))


def deadline_of(message: Message) -> float | None:
    """When a message must be delivered or else be returned (RFC 2852 section 4, mode R); None where it need not be."""
    options = message.envelope.options
    return options.deliver_by if options.by_mode is ByMode.RETURN else None


def notice_of(message: Message) -> float | None:
    """When the sender wants to hear that a message has not arrived (RFC 2852 section 4, mode N); None for never."""
    options = message.envelope.options
    return options.deliver_by if options.by_mode is ByMode.NOTIFY else None


def is_greylisting(outcome: Outcome) -> bool:
    """Whether this may be the answer of one who does not know us yet and wants us to come again (RFC 6647)."""
    return outcome.result is Result.DEFERRED and outcome.reply is not None and outcome.reply.code in _GREYLISTING


def span(seconds: float) -> str:
    """A time in words, as in `5 days` or `90 minutes`, for people."""
    for size, name in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute")):
        if seconds >= 2 * size or seconds == size:
            count = round(seconds / size)
            return f"{count} {name}" if count == 1 else f"{count} {name}s"
    return f"{round(seconds)} seconds"
