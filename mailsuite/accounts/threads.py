"""Blocking work in threads, no more than some at once.

Hashing takes a processor and megabytes for each login that is under way; unbounded, a crowd of peers who log
in would take every thread of the pool and leave none to the disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore

InThread: TypeAlias = Callable[..., Awaitable[Any]]
"""Runs a blocking function with its arguments in a thread."""


T = TypeVar("T")


class LimitedThreads:
    """Runs blocking work by `in_thread`, at most `limit` pieces at once; the others wait in turn."""

    def __init__(self, in_thread: InThread, limit: int) -> None:
        self._in_thread = in_thread
        self._places = DeferredSemaphore(limit)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the function returns or raises.

        Cancelled while it waits, it gives up its turn. Cancelled while it runs, only the result is dropped:
        the thread goes on, and its place is taken until it ends, or peers who come and go could start any
        number of them.
        """
        await self._places.acquire()
        done: Deferred[T] = Deferred()
        Deferred.fromCoroutine(self._occupy(done, function, arguments))
        return await done

    async def _occupy(self, done: Deferred[T], function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        try:
            result: T = await self._in_thread(function, *arguments)
        except Exception as error:  # noqa: BLE001 - for whoever waits; dropped, as a result is, where nobody does
            done.errback(error)
        else:
            done.callback(result)
        finally:
            self._places.release()
