"""Looks into the spool before a run begins, and for what is deferred in bulk, a few at once: that thousands of
destinations have something due at the same time, or fail at the same time, does not block the spool for those who
write, nor fill the memory with what waits to be written.
"""  # noqa: D205 - one sentence

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from operator import itemgetter
from typing import Final

from mailsuite.delivery.active import ActiveQueue
from mailsuite.delivery.tasks import Tasks
from mailsuite.mail.route import Destination

_MOST: Final = 20


def longest_due(
    waiting: Iterable[tuple[Destination, float]], now: float, most: int, is_skipped: Callable[[Destination], bool]
) -> tuple[Sequence[Destination], float, bool]:
    """Of destinations, each with the time of what it gets next, those with something due, but for those to skip.

    Where they are more than `most` those are chosen that have waited for longest. Tells also what is the next time
    after now, infinity for none, and whether these are all.
    """
    due: list[tuple[Destination, float]] = []
    earliest = math.inf
    for one in waiting:
        destination, when = one
        if when > now:
            earliest = min(earliest, when)
        elif not is_skipped(destination):
            due.append(one)
    chosen = due if len(due) <= most else nsmallest(most, due, key=itemgetter(1))
    return [destination for destination, _ in chosen], earliest, len(chosen) == len(due)


class Looks:
    """Has queues claim, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[ActiveQueue, None] = {}
        self._under_way = 0
        self._is_beginning = False
        self._tasks = Tasks()

    def add(self, queue: ActiveQueue) -> None:
        """This one's turn comes, and then it attends to itself."""
        self._waiting[queue] = None
        self._begin()

    def stop(self) -> None:
        """Begin no more."""
        self._waiting.clear()

    async def finished(self) -> None:
        """Wait until none is under way."""
        await self._tasks.finished()

    def _begin(self) -> None:
        if self._is_beginning:
            return  # one was over as soon as it began
        self._is_beginning = True
        while self._waiting and self._under_way < _MOST:
            queue = next(iter(self._waiting))
            del self._waiting[queue]
            if queue.must_look:
                self._under_way += 1
                self._tasks.start(self._look(queue), f"the look for {queue.destination}")
        self._is_beginning = False

    async def _look(self, queue: ActiveQueue) -> None:
        try:
            await queue.claim()
        finally:
            self._under_way -= 1
        self._begin()
