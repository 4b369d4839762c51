"""Steps: what they wait for."""

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.service.steps import Step, service, snapshot, together


class Slow(Service):
    """Stops when it is told to."""

    def __init__(self, *, refreshed=None):
        self.stopping = Deferred()
        self.refreshed = refreshed

    def stopService(self):
        super().stopService()
        return self.stopping

    async def refresh(self):
        await self.refreshed


def results_of(awaitable):
    async def wait():
        return await awaitable

    results = []
    Deferred.fromCoroutine(wait()).addBoth(results.append)
    return results


def test_a_service_is_waited_for() -> None:
    slow = Slow()
    step = service(slow)
    assert results_of(step.start()) == [None]
    assert slow.running
    stopped = results_of(step.stop())
    assert (stopped, slow.running) == ([], 0)
    slow.stopping.callback(None)
    assert stopped == [None]


def test_a_snapshot_is_read_before_the_next_step() -> None:
    slow = Slow(refreshed=Deferred())
    started = results_of(snapshot(slow).start())
    assert (started, slow.running) == ([], 1)
    slow.refreshed.callback(None)
    assert started == [None]


def test_a_snapshot_that_cannot_be_read_says_so() -> None:
    slow = Slow(refreshed=Deferred())
    started = results_of(snapshot(slow).start())
    slow.refreshed.errback(DirectoryUnavailable("no file"))
    assert [failure.type for failure in started] == [DirectoryUnavailable]


def test_steps_together_start_in_order_and_stop_at_once() -> None:
    order, slow = [], [Slow(refreshed=Deferred()), Slow(refreshed=Deferred())]
    for number, one in enumerate(slow):
        one.refreshed.addCallback(lambda _, number=number: order.append(number))
    step = together(*map(snapshot, slow))
    started = results_of(step.start())
    assert [one.running for one in slow] == [1, 0]
    slow[0].refreshed.callback(None)
    slow[1].refreshed.callback(None)
    assert (order, started) == ([0, 1], [None])
    stopped = results_of(step.stop())
    assert [one.running for one in slow] == [0, 0]
    slow[1].stopping.callback(None)
    assert stopped == []
    slow[0].stopping.callback(None)
    assert stopped == [None]


def test_one_that_fails_to_stop_does_not_keep_others_from_stopping() -> None:
    async def fail():
        raise OSError("a defect")

    slow = Slow()
    stopped = results_of(together(Step(fail, fail), service(slow)).stop())
    assert (stopped, slow.running) == ([], 0)
    slow.stopping.callback(None)
    assert [failure.type for failure in stopped] == [OSError]
