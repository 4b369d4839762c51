"""Pulls as values: what a provider is asked for, and when the next time comes. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

from mailsuite.mail.timetable import Timetable
from mailsuite.session.pulling import PullSettings

_SHORTEST = 0.05  # seconds; no wait at all would be a busy loop
_MAX_EXPONENT = 64  # beyond it every wait has met its maximum, and floats would overflow at last


@dataclass(frozen=True, slots=True)
class PullPlan:
    """One provider, what it is asked for, and when. Times are seconds; an `interval` of 0 is none.

    `tls` is a mode of `NextHop.tls`. `push` is "none", "before" or "after": when mail that waits for the same host as
    next hop is sent, or for `push_host` where that is set. Where there is a `password_file`, what stands there at the
    time is the password.
    """

    name: str
    host: str
    port: int = 366
    etrn: bool = False
    domains: tuple[str, ...] = ()
    tls: str = "verified"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    interval: float = 0.0
    jitter: float = 0.0
    times: tuple[Timetable, ...] = ()
    at_start: bool = False
    retry_first: float = 60.0
    retry_longest: float = 3600.0
    push: str = "none"
    push_host: str | None = None
    password_file: Path | None = None

    @property
    def smarthost(self) -> str:
        """The host that what is pushed waits for."""
        return self.push_host or self.host

    def settings(self, hostname: str, *, dry_run: bool = False) -> PullSettings:
        """What its session is told; `hostname` is what we call ourselves."""
        return PullSettings(
            hostname,
            self.host,
            self.domains,
            etrn=self.etrn,
            tls=self.tls,
            username=self.username,
            password=self.password,
            dry_run=dry_run,
        )

    def next_time(self, now: float, failures: int, chance: float, zone: tzinfo | None = None) -> float | None:
        """When to pull again after one that ended `now`; None where nothing but a command does.

        `failures` counts those in a row that failed for a time: the waits after them double, and take the place of the
        interval. Times by the clock come all the same. `chance` is a random number from 0 up to 1.
        """
        due = [times.next_after(now, zone) for times in self.times]
        if failures and (self.interval or self.times or self.at_start):
            wait = self.retry_first * 2.0 ** min(failures - 1, _MAX_EXPONENT)
            due.append(now + self._spread(max(min(wait, self.retry_longest), _SHORTEST), chance))
        elif self.interval:
            due.append(now + self._spread(max(self.interval, _SHORTEST), chance))
        return min(due, default=None)

    def _spread(self, interval: float, chance: float) -> float:
        return interval * (1.0 + self.jitter * (2.0 * chance - 1.0))
