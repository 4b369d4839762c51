"""What the DNS has answered, kept as long as it says: the same question is asked once, however many want to know.

Bounded in how many are kept, the longest unused go first, and without a timer: what is too old is found to be so when
it is looked for. A failure for now is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")

_LONGEST: Final = 86400.0  # seconds, whatever the DNS says


class Known(NamedTuple, Generic[T]):
    """An answer that holds for `ttl` seconds; `error` is raised in place of a `value`."""

    value: T | None
    ttl: float
    error: Exception | None = None


class _Question(Generic[T]):
    """One that is under way, with those who wait for its answer."""

    def __init__(self) -> None:
        self.waiters: list[Deferred[Known[T]]] = []
        self.asked: Deferred[None] | None = None


class Answers(Generic[T]):
    """Keeps up to `most` answers."""

    def __init__(self, clock: IReactorTime, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[float, Known[T]]] = OrderedDict()  # since when
        self._under_way: dict[Hashable, _Question[T]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[Deferred[Any], Any, Known[T]]]) -> T:
        """The answer to a question. Raises what `ask` raises, and the error that an answer is.

        Whoever is cancelled stops waiting; with the last of them the question ends.
        """
        kept = self.kept(key)
        if kept is not None:
            return _told(kept)
        question = self._under_way.get(key)
        waiter: Deferred[Known[T]] = Deferred()
        if question is None:
            question = self._under_way[key] = _Question()
            question.waiters.append(waiter)
            question.asked = Deferred.fromCoroutine(self._ask(key, question, ask))
        else:
            question.waiters.append(waiter)
        try:
            return _told(await waiter)
        except CancelledError:
            if waiter in question.waiters:
                question.waiters.remove(waiter)
                if not question.waiters and question.asked is not None:
                    self._forget(key, question)
                    question.asked.cancel()
            raise

    def kept(self, key: Hashable) -> Known[T] | None:
        """The answer to a question, where it is kept and still holds."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        # It is not known how old an answer is from a time that is still to come: the clock was set back.
        if 0 <= self._clock.seconds() - kept[0] < min(kept[1].ttl, _LONGEST):
            self._kept.move_to_end(key)
            return kept[1]
        del self._kept[key]
        return None

    async def _ask(
        self, key: Hashable, question: _Question[T], ask: Callable[[], Coroutine[Deferred[Any], Any, Known[T]]]
    ) -> None:
        try:
            known: Known[T] | Failure = await ask()
        except Exception:  # noqa: BLE001 - whoever waits is told of it
            known = Failure()  # type: ignore[no-untyped-call]
        self._forget(key, question)
        if isinstance(known, Known) and known.ttl > 0:
            self._keep(key, known)
        waiters, question.waiters = question.waiters, []
        for waiter in waiters:
            if isinstance(known, Failure):
                waiter.errback(known)
            else:
                waiter.callback(known)

    def _forget(self, key: Hashable, question: _Question[T]) -> None:
        if self._under_way.get(key) is question:
            del self._under_way[key]

    def _keep(self, key: Hashable, known: Known[T]) -> None:
        self._kept[key] = (self._clock.seconds(), known)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


def _told(known: Known[T]) -> T:
    if known.error is not None:
        raise known.error.with_traceback(None)  # it is raised again and again, and would keep every one of them
    return known.value  # type: ignore[return-value]  # without an error there is a value
