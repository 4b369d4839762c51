"""Looks into the spool before a run begins, a few at once: that thousands of destinations have something due at the
same time does not block the spool for those who write.
"""  # noqa: D205 - one sentence

from __future__ import annotations

from typing import Final

from mailsuite.delivery.active import ActiveQueue
from mailsuite.delivery.tasks import Tasks

_MOST: Final = 20


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
            if queue.must_look and queue.is_up:
                self._under_way += 1
                self._tasks.start(self._look(queue), f"the look for {queue.destination}")
        self._is_beginning = False

    async def _look(self, queue: ActiveQueue) -> None:
        try:
            await queue.claim()
        finally:
            self._under_way -= 1
        self._begin()
