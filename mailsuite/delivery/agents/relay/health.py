"""The health of hosts: which addresses answer, which have failed and are left alone, for all destinations together.

An address that could not be connected to, or did not get as far as mail, rests: half a minute at first, twice as long
each time up to some minutes, less than destinations wait, so that it is the destination's own schedule that counts.
Meanwhile nobody dials it, whatever domains share it. After that one dial tries it for all; only when an address has
proved alive may as many dial it as like.

An address that serves a connection of ours is not dead: that another one is refused says that there are too many.

What is remembered is bounded; what has been quiet for the longest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mailsuite.delivery.agents.relay.slots import Standing

_MOST: Final = 20_000  # addresses that are remembered
_LOOKED_AT: Final = 100  # of them, when some are to be forgotten
_AT_ONCE: Final = 50  # who may go on in one turn of the reactor


class Place(NamedTuple):
    """An address (or the path of a Unix socket) and a port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """How long an address rests after its first failure, and at most, in seconds; how many may dial it that nobody
    knows; how long it counts as alive.
    """  # noqa: D205 - one sentence

    first: float = 30.0
    longest: float = 240.0
    probes: int = 5
    alive: float = 3600.0


DEFAULTS: Final = HealthSettings()


@dataclass(slots=True)
class _Record:
    failures: int = 0
    rests_until: float = 0.0
    why: str = ""
    alive_at: float | None = None
    dialling: int = 0
    serving: int = 0
    waiters: deque[Deferred[None]] = field(default_factory=deque)
    to_wake: int = 0
    is_waking: bool = False


class Health:
    """What is known of addresses."""

    def __init__(self, clock: IReactorTime, settings: HealthSettings = DEFAULTS) -> None:
        self._clock = clock
        self._seconds: Callable[[], float] = clock.seconds
        self._settings = settings
        self._records: OrderedDict[Place, _Record] = OrderedDict()

    def trouble(self, place: Place) -> str | None:
        """Why an address is left alone now, in words; None where it may be dialled."""
        record = self._records.get(place)
        if record is None or not record.failures or record.serving or not self._rests(record):
            return None
        return record.why

    def standing(self, places: Iterable[Place]) -> Standing:
        """The best of what is known of these."""
        return min((self._standing(place) for place in places), default=Standing.UNKNOWN)

    async def admit(self, place: Place) -> None:
        """Wait until this address may be dialled by one more, and count that dial; `Dial.over` ends it."""
        record = self._record(place)
        while record.dialling >= self._limit(record):
            waiter: Deferred[None] = Deferred(record.waiters.remove)
            record.waiters.append(waiter)
            await waiter
            if self.trouble(place) is not None:
                break  # whoever dialled has found it dead; the caller looks
        record.dialling += 1

    def dial_over(self, place: Place) -> None:
        """A dial that was admitted has come to an end."""
        record = self._record(place)
        record.dialling -= 1
        self._wake(record, all_of_them=self._is_alive(record) or self.trouble(place) is not None)

    def failed(self, place: Place, why: str) -> None:
        """No connection, or none that mail could be sent on, came about."""
        record = self._record(place)
        if record.serving:
            return
        now = self._seconds()
        if record.failures and self._rests(record):
            return  # of several dials that find it dead one counts
        settings = self._settings
        record.failures += 1
        record.alive_at = None
        record.rests_until = now + min(settings.first * 2 ** min(record.failures - 1, 20), settings.longest)
        record.why = why
        self._wake(record, all_of_them=True)

    def is_ready(self, place: Place) -> None:
        """Mail can be sent there; `left` ends that."""
        record = self._record(place)
        record.failures = 0
        record.alive_at = self._seconds()
        record.serving += 1
        self._wake(record, all_of_them=True)

    def left(self, place: Place) -> None:
        """A connection that was ready has ended."""
        record = self._record(place)
        record.serving -= 1
        record.alive_at = self._seconds()

    def wake(self) -> None:
        """Let nobody rest any longer: an operator wants everything tried now."""
        for record in self._records.values():
            record.rests_until = 0.0

    # --------------------------------------------------------------------------------------- the records

    def _standing(self, place: Place) -> Standing:
        record = self._records.get(place)
        if record is None:
            return Standing.UNKNOWN
        if self._is_alive(record):
            return Standing.ALIVE
        return Standing.FAILED if record.failures else Standing.UNKNOWN

    def _rests(self, record: _Record) -> bool:
        # Longer than the longest: then the clock was set back.
        return 0.0 < record.rests_until - self._seconds() <= self._settings.longest

    def _is_alive(self, record: _Record) -> bool:
        if record.serving:
            return True
        return record.alive_at is not None and self._seconds() < record.alive_at + self._settings.alive

    def _limit(self, record: _Record) -> float:
        if self._is_alive(record):
            return float("inf")
        return 1 if record.failures else self._settings.probes

    def _record(self, place: Place) -> _Record:
        record = self._records.get(place)
        if record is None:
            record = self._records[place] = _Record()
            if len(self._records) > _MOST:
                self._forget()
        else:
            self._records.move_to_end(place)
        return record

    def _forget(self) -> None:
        for _ in range(_LOOKED_AT):
            place, record = next(iter(self._records.items()))
            if not (record.dialling or record.serving or record.waiters):
                del self._records[place]
                return
            self._records.move_to_end(place)

    def _wake(self, record: _Record, *, all_of_them: bool) -> None:
        """Let the first of those who wait go on, or all of them: a few in each turn of the reactor.

        Whoever goes on may come to its end at once, and ask for more of this: that makes no deeper stack.
        """
        waiting = len(record.waiters)
        record.to_wake = waiting if all_of_them else min(record.to_wake + 1, waiting)
        if not record.is_waking:
            record.is_waking = True
            self._wake_some(record)

    def _wake_some(self, record: _Record) -> None:
        for _ in range(_AT_ONCE):
            if not (record.to_wake and record.waiters):
                record.is_waking = False
                record.to_wake = 0
                return
            record.to_wake -= 1
            record.waiters.popleft().callback(None)
        self._clock.callLater(0, self._wake_some, record)
