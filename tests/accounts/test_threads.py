"""Blocking work in threads: how many at once, what becomes of those who give up, what is raised."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsuite.accounts.threads import LimitedThreads
from tests.accounts.conftest import HeldThreads, at_once, result_of


@pytest.fixture
def held():
    return HeldThreads()


def start(threads, value):
    """Begin work; what comes of it lands in a list."""
    outcome = []
    deferred = Deferred.fromCoroutine(threads.run(lambda: value))
    deferred.addBoth(outcome.append)
    return deferred, outcome


def test_results_and_errors_come_back():
    threads = LimitedThreads(at_once, 1)
    assert result_of(threads.run(divmod, 7, 3)) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        result_of(threads.run(divmod, 7, 0))
    assert result_of(threads.run(divmod, 7, 3)) == (2, 1)


def test_no_more_run_at_once_than_there_are_places(held):
    threads = LimitedThreads(held, 2)
    outcomes = [start(threads, number)[1] for number in range(5)]
    started = []
    while held.waiting:
        started.append(len(held.waiting))
        held.end_one()
    assert max(started) == 2
    assert outcomes == [[0], [1], [2], [3], [4]]


def test_who_gives_up_while_waiting_takes_no_place(held):
    threads = LimitedThreads(held, 1)
    start(threads, "first")
    second, outcome = start(threads, "second")
    third = start(threads, "third")[1]
    second.cancel()
    assert outcome[0].check(CancelledError)
    held.end_one()
    held.end_one()
    assert third == ["third"]
    assert held.waiting == []


def test_who_gives_up_while_it_runs_keeps_the_place_until_the_thread_ends(held):
    threads = LimitedThreads(held, 1)
    first, outcome = start(threads, "first")
    second = start(threads, "second")[1]
    first.cancel()
    assert outcome[0].check(CancelledError)
    assert len(held.waiting) == 1  # the second has not begun
    held.end_one()
    assert len(held.waiting) == 1
    held.end_one()
    assert second == ["second"]
