"""A reactor's thread for tests with real threads and a clock that stands still."""

import time
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from zope.interface import implementer


@implementer(IReactorFromThreads)
class Pump(Clock):
    """What threads call from afar is done while `run` waits. Time is `Clock`'s: it moves when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        super().__init__()
        self.rightNow = now
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        self._calls.put(lambda: function(*arguments, **keywords))

    def run(self, awaitable: Awaitable[Any], timeout: float = 20) -> Any:
        """The result of a coroutine or a Deferred; raises what it raises, or TimeoutError."""
        results: list[Any] = []
        failures: list[Any] = []
        waiting = awaitable if isinstance(awaitable, Deferred) else ensureDeferred(_wait(awaitable))
        waiting.addCallbacks(results.append, failures.append)
        self.until(lambda: bool(results or failures), timeout)
        if failures:
            failures[0].raiseException()
        return results[0]

    def until(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        """Work until something is so."""
        end = time.monotonic() + timeout
        while not condition():
            try:
                call = self._calls.get(timeout=0.05)
            except Empty:
                if time.monotonic() > end:
                    raise TimeoutError(f"not so within {timeout} seconds") from None
            else:
                call()


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
