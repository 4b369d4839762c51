"""Coroutines that run by themselves, and are neither lost nor silent: who started them can wait for or cancel them."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_T = TypeVar("_T")


class Tasks:
    """Coroutines under way. A failure is logged and ends only the one that failed; a cancellation is no failure."""

    _log = Logger()

    def __init__(self) -> None:
        self._running: set[Deferred[None]] = set()
        self._waiters: list[Deferred[None]] = []

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, coroutine: Coroutine[Deferred[Any], Any, None], what: str) -> None:
        """Run a coroutine up to its first wait, and let it go on by itself. `what` names it in the log."""
        task = Deferred.fromCoroutine(coroutine)
        self._running.add(task)
        task.addErrback(self._failed, what)
        task.addCallback(lambda _: self._ended(task))

    def cancel(self) -> None:
        """Cancel all of them."""
        for task in list(self._running):
            task.cancel()

    async def finished(self) -> None:
        """Wait until none is under way, or all that are were given up."""
        while self._running:
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            await waiter

    def give_up(self) -> int:
        """Let nobody wait any longer for those under way, which go on; tell how many they are."""
        count = len(self._running)
        self._running.clear()
        self._tell_waiters()
        return count

    def _ended(self, task: Deferred[None]) -> None:
        self._running.discard(task)
        if not self._running:
            self._tell_waiters()

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def _failed(self, failure: Failure, what: str) -> None:
        if not isinstance(failure.value, CancelledError):
            self._log.failure("{what} failed", failure, what=what)


async def uncancelled(work: Awaitable[_T]) -> _T:
    """What an awaitable comes to, whatever tries to cancel the wait: work in a thread goes on all the same."""
    ends: list[_T | Failure] = []
    waiter: Deferred[None] = Deferred()

    async def await_it() -> _T:
        return await work

    def note(end: _T | Failure) -> None:
        ends.append(end)
        if not waiter.called:
            waiter.callback(None)

    Deferred.fromCoroutine(await_it()).addBoth(note)
    while not ends:
        try:
            await waiter
        except CancelledError:
            waiter = Deferred()
    end = ends[0]
    if isinstance(end, Failure):
        end.raiseException()
    return end
