"""A real reactor for tests that need real sockets or threads.

`reactor` is one for the whole test process, and the one that `twisted.internet.reactor` gives: parts of Twisted look it
up there. It never runs by itself: `run(coroutine, timeout=10)` turns it until the coroutine has ended, and returns
its result or raises its exception. What a test leaves behind in the reactor (a listening port, a connection,
a delayed call) fails that test.
"""

import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from twisted.internet import main
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def _running_reactor() -> Iterator[EPollReactor]:
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is None:
        reactor = EPollReactor()
        main.installReactor(reactor)
    reactor.startRunning(installSignalHandlers=False)  # starts thread pools as they are asked for
    _turn(reactor, 0)
    yield reactor
    reactor.fireSystemEvent("shutdown")
    for _ in range(10):
        _turn(reactor, 0)
    reactor.removeAll()


@pytest.fixture
def reactor(_running_reactor: EPollReactor) -> Iterator[EPollReactor]:
    before = _belongings(_running_reactor)
    yield _running_reactor
    left = _belongings(_running_reactor) - before
    patience = time.monotonic() + 1
    while left and time.monotonic() < patience:
        _turn(_running_reactor, 0.02)
        left = _belongings(_running_reactor) - before
    for one in left:
        for method in ("cancel", "abortConnection", "stopListening"):
            if hasattr(one, method):
                getattr(one, method)()
                break
        else:
            _running_reactor.removeReader(one)
            _running_reactor.removeWriter(one)
    if left:
        for _ in range(3):
            _turn(_running_reactor, 0)
        pytest.fail(f"the test leaves in the reactor: {', '.join(map(str, left))}")


@pytest.fixture
def run(reactor: EPollReactor) -> Run:
    """Turn the reactor until a coroutine (or a Deferred) has ended."""

    def run(coroutine: Coroutine[Any, Any, Any] | Deferred[Any], timeout: float = 10) -> Any:
        results: list[Any] = []
        failures: list[Any] = []
        running = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
        running.addCallbacks(results.append, failures.append)
        end = time.monotonic() + timeout
        while not (results or failures):
            if time.monotonic() > end:
                running.addErrback(lambda _cancelled: None).cancel()
                raise TimeoutError(f"not done within {timeout} seconds")
            _turn(reactor, 0.05)
        if failures:
            failures[0].raiseException()
        return results[0]

    return run


def _turn(reactor: EPollReactor, longest: float) -> None:
    reactor.runUntilCurrent()
    due = reactor.timeout()
    reactor.doIteration(longest if due is None else min(due, longest))


def _belongings(reactor: EPollReactor) -> set[Any]:
    return {*reactor.getReaders(), *reactor.getWriters(), *reactor.getDelayedCalls()} - {reactor.waker}
