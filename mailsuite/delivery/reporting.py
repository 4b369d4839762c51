"""Reporting: cases get their reports, some at a time and each within a limit, so that nobody's reader stops others.

One begins in each turn of the reactor: a queue that expires whole does not stall it. Those on what was delivered come
before all others, and have places of their own: what somebody has got waits under its lease for its report, but not for
long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.gathering import Case
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.mail.history import Event
from mailsuite.mail.queue import Report

_AT_ONCE: Final = 20
_OF_SUCCESS: Final = 20  # further ones, for what was delivered
_LIMIT: Final = 10.0  # seconds

Composed = tuple[Report | None, Event]


class Reporting:
    """Has reports composed. `done` gets each case with its report and step, or why there is none yet."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        compose: Callable[[Case], Awaitable[Composed]],
        done: Callable[[Case, Composed | str], object],
    ) -> None:
        self._clock = clock
        self._compose = compose
        self._done = done
        self._successes: deque[Case] = deque()
        self._others: deque[Case] = deque()
        self._busy = 0
        self._starting: IDelayedCall | None = None
        self._tasks = Tasks()
        self._abandoned = False

    def __len__(self) -> int:
        """How many cases wait for their reports, or for the end of those."""
        return len(self._successes) + len(self._others) + self._busy

    def add(self, case: Case, *, succeeded: bool) -> None:
        """Have this reported."""
        (self._successes if succeeded else self._others).append(case)
        self._attend()

    def abandon(self) -> None:
        """Stop: what is not reported is found again in the spool."""
        self._abandoned = True
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        self._successes.clear()
        self._others.clear()
        self._tasks.cancel()

    def _next(self) -> deque[Case] | None:
        """Where the next one to be begun is; None where there is none, or no place for it."""
        if self._successes and self._busy < _AT_ONCE + _OF_SUCCESS:
            return self._successes
        return self._others if self._others and self._busy < _AT_ONCE else None

    def _attend(self) -> None:
        if self._starting is None and not self._abandoned and self._next():
            self._starting = self._clock.callLater(0, self._begin)

    def _begin(self) -> None:
        self._starting = None
        waiting = self._next()
        if waiting:
            self._busy += 1
            self._tasks.start(self._report(waiting.popleft()), "a report")
            self._attend()

    async def _report(self, case: Case) -> None:
        composed: Composed | str
        try:
            composed = await self._composed(case)
        finally:
            self._busy -= 1
        self._done(case, composed)
        self._attend()

    async def _composed(self, case: Case) -> Composed | str:
        async def compose() -> Composed:
            return await self._compose(case)

        queue_id = case.message.queue_id
        task = Deferred.fromCoroutine(compose())
        limit = self._clock.callLater(_LIMIT, task.cancel)
        try:
            return await task
        except CancelledError:
            if self._abandoned:
                raise
            why = "its reader could not be found in time"
        except DirectoryUnavailable as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender must learn of the failure one day
            self._log.failure("{queue_id}: no report yet", queue_id=queue_id)
            return f"{type(error).__name__}: {error}"
        finally:
            if limit.active():
                limit.cancel()
        self._log.error("{queue_id}: no report yet: {why}", queue_id=queue_id, why=why)
        return why
