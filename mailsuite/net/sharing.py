"""Work that several may ask for at once, and that is done once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_log = Logger()


class Shared(Generic[_K, _V]):
    """Whoever wants what is under way already waits for that.

    Who is cancelled stops waiting; the work goes on for the others, and for whoever comes next.
    """

    def __init__(self) -> None:
        self._waiting: dict[_K, list[Deferred[_V]]] = {}
        self._working: dict[_K, Deferred[None]] = {}

    async def get(self, key: _K, work: Callable[[], Coroutine[Deferred[Any], Any, _V]]) -> _V:
        """What the work of this key comes to, begun now unless it is under way. Raises what it raises."""
        waiter: Deferred[_V] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(waiter)
        else:
            self._waiting[key] = [waiter]
            working = Deferred.fromCoroutine(work()).addCallbacks(
                self._succeeded, self._failed, callbackArgs=(key,), errbackArgs=(key,)
            )
            if key in self._waiting:
                self._working[key] = working
        return await waiter

    def cancel(self) -> None:
        """Cancel all work; whoever waits gets `CancelledError`."""
        for working in list(self._working.values()):
            working.cancel()

    def _end(self, key: _K) -> list[Deferred[_V]]:
        self._working.pop(key, None)
        return [waiter for waiter in self._waiting.pop(key) if not waiter.called]

    def _succeeded(self, value: _V, key: _K) -> None:
        for waiter in self._end(key):
            waiter.callback(value)

    def _failed(self, failure: Failure, key: _K) -> None:
        waiters = self._end(key)
        if not waiters:
            _log.debug("nobody waits any more for {key}: {error}", key=key, error=failure.value)
        for waiter in waiters:
            waiter.errback(failure.value)
