"""Runs that have found nothing more, and wait for a moment whether more comes: their connections are there already.

Who has come last is the first to be woken, so that of many connections the few that are needed stay. Each waits for
`LINGER` seconds at the most; one timer serves all that wait in one place.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

LINGER: Final = 1.0  # seconds; less than any server's patience


class _Waiting(NamedTuple):
    waiter: Deferred[bool]
    until: float


class Lingering:
    """Those who wait for more at one destination."""

    __slots__ = ("_clock", "_timer", "_waiting")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: list[_Waiting] = []  # the first is the one that waits for longest
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return sum(not waiting.waiter.called for waiting in self._waiting)

    def wait(self) -> Deferred[bool]:
        """Fires with whether there may be more. Whoever has it may fire it with False, or cancel it."""
        waiter: Deferred[bool] = Deferred()
        until = self._clock.seconds() + LINGER
        self._waiting.append(_Waiting(waiter, until))
        if self._timer is None:
            self._timer = self._clock.callLater(LINGER, self._look)
        return waiter

    def wake(self, count: int) -> None:
        """There is more, for so many of them."""
        while count > 0 and self._waiting:
            waiter = self._waiting.pop().waiter
            if not waiter.called:
                count -= 1
                waiter.callback(True)

    def end(self) -> None:
        """Let nobody wait any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._dismiss(len(self._waiting))

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        late = 0
        while late < len(self._waiting) and self._waiting[late].until <= now:
            late += 1
        if late < len(self._waiting):
            # A clock that was set back keeps nobody for longer.
            delay = min(max(self._waiting[late].until - now, 0.0), LINGER)
            self._timer = self._clock.callLater(delay, self._look)
        self._dismiss(late)

    def _dismiss(self, count: int) -> None:
        gone, self._waiting = self._waiting[:count], self._waiting[count:]
        for waiting in gone:
            if not waiting.waiter.called:
                waiting.waiter.callback(False)
