"""Runs a session's coroutine, step by step.

A session waits for its peer several times for each message. Continued as any Deferred would continue it, each of these
waits costs several times what the session itself does with what has come. So what a session awaits for its peer is a
`Waiter`: whoever runs the session is found by it and steps the coroutine straight on. Whatever else it awaits is a
Deferred as everywhere, and where somebody else awaits a `Waiter` it is one too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class Waiter(Deferred[Any]):
    """What a session awaits. It is fired once, by `fire` or `fail`."""

    run: SessionRun | None = None

    def __await__(self) -> Generator[Deferred[Any], Any, Any]:
        if self.called:  # before it was awaited
            return (yield from super().__await__())
        return (yield self)  # whoever steps the coroutine sends what has come, or throws

    def fire(self, result: object) -> None:
        """What was waited for has come."""
        run = self.run
        if run is None:
            self.callback(result)
        else:
            run.step(result)

    def fail(self, error: Exception) -> None:
        """It will not come."""
        run = self.run
        if run is None:
            self.errback(error)
        else:
            run.throw(error)


class SessionRun:
    """One session's coroutine under way. `ended` gets what it returns, `failed` what it raises; one of them, once."""

    __slots__ = ("_awaited", "_cancelled", "_coroutine", "_ended", "_failed")

    def __init__(
        self,
        coroutine: Coroutine[Deferred[Any], Any, Any],
        ended: Callable[[Any], object],
        failed: Callable[[Failure], object],
    ) -> None:
        self._coroutine = coroutine
        self._ended = ended
        self._failed = failed
        self._awaited: Deferred[Any] | None = None  # None while it runs
        self._cancelled = False

    def step(self, value: object = None) -> None:
        """Go on, to the next wait or to the end."""
        self._go(self._coroutine.send, value)

    def throw(self, error: BaseException) -> None:
        """Go on with an error."""
        self._go(self._coroutine.throw, error)

    def cancel(self) -> None:
        """Cancel what it waits for, or will wait for next."""
        awaited = self._awaited
        if awaited is None:
            self._cancelled = True
            return
        if type(awaited) is Waiter:
            awaited.run = None
            awaited.addBoth(self._resumed)
        awaited.cancel()

    def _go(self, move: Callable[[Any], Any], value: object) -> None:
        self._awaited = None
        try:
            awaited: Deferred[Any] = move(value)
        except StopIteration as end:
            self._ended(end.value)
            return
        except BaseException:  # noqa: BLE001 - whoever has begun the session decides
            self._failed(Failure())  # type: ignore[no-untyped-call]
            return
        self._awaited = awaited
        if type(awaited) is Waiter:
            awaited.run = self
        else:
            awaited.addBoth(self._resumed)
        if self._cancelled and self._awaited is awaited:
            self._cancelled = False
            self.cancel()

    def _resumed(self, result: object) -> None:
        if isinstance(result, Failure):
            self._go(result.throwExceptionIntoGenerator, self._coroutine)
        else:
            self._go(self._coroutine.send, result)
