"""Coroutines that run by themselves."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsuite.delivery.tasks import Tasks, uncancelled


def started(coroutine):
    results = []
    deferred = Deferred.fromCoroutine(coroutine)
    deferred.addBoth(results.append)
    return deferred, results


def test_tasks_are_waited_for_whatever_becomes_of_them() -> None:
    tasks, waits = Tasks(), [Deferred() for _ in range(3)]

    async def work(wait):
        await wait

    for wait in waits:
        tasks.start(work(wait), "work")
    _, finished = started(tasks.finished())
    waits[0].callback(None)
    waits[1].errback(RuntimeError("a defect"))
    assert tasks
    assert finished == []
    waits[2].callback(None)
    assert not tasks
    assert finished == [None]


def test_tasks_that_are_given_up_go_on_but_nobody_waits_for_them() -> None:
    tasks, wait, ended = Tasks(), Deferred(), []

    async def work():
        await wait
        ended.append("work")

    tasks.start(work(), "work")
    _, finished = started(tasks.finished())
    assert tasks.give_up() == 1
    assert finished == [None]
    assert not tasks
    wait.callback(None)
    assert ended == ["work"]


def test_a_task_that_ends_at_once_is_over_at_once() -> None:
    tasks = Tasks()

    async def nothing():
        return None

    tasks.start(nothing(), "nothing")
    assert not tasks
    assert started(tasks.finished())[1] == [None]


def test_tasks_are_cancelled_together() -> None:
    tasks, ended = Tasks(), []

    async def work(number):
        try:
            await Deferred()
        except CancelledError:
            ended.append(number)
            raise

    for number in range(3):
        tasks.start(work(number), "work")
    tasks.cancel()
    assert sorted(ended) == [0, 1, 2]
    assert not tasks


@pytest.mark.parametrize("result", ["done", RuntimeError("a defect")])
def test_uncancelled_work_comes_to_its_result_through_any_number_of_cancellations(result) -> None:
    work = Deferred()
    waiting, results = started(uncancelled(work))
    for _ in range(3):
        waiting.cancel()
    assert results == []
    work.callback(result) if isinstance(result, str) else work.errback(result)
    [got] = results
    assert (got if isinstance(result, str) else got.value) == result


def test_uncancelled_takes_coroutines_and_what_has_fired_already() -> None:
    async def work():
        return 7

    assert started(uncancelled(work()))[1] == [7]
    fired = Deferred()
    fired.callback(8)
    assert started(uncancelled(fired))[1] == [8]
