"""How a scheduler stops: what is under way may end, the rest is given back."""

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from mailsuite.delivery.tasks import uncancelled
from mailsuite.mail.queue import Result
from tests.delivery.fakes import RELAYED, FakeAgent, relay, spool_error

HERE = relay("here.example")


def test_a_stop_waits_for_what_is_under_way_and_gives_back_the_rest(schedule, spool, clock) -> None:
    held = []

    async def act(run):
        delivery = await run.next()
        held.append(Deferred())
        await held[0]
        run.settle(delivery, [RELAYED])
        assert await run.next() is None

    scheduler = schedule(FakeAgent(act))
    spool.commit(*(spool.make(HERE) for _ in range(5)))
    clock.turn()
    stopped = scheduler.stopService()
    clock.turn()
    assert not stopped.called
    held[0].callback(None)
    clock.turn()
    assert stopped.called
    assert spool.results() == [Result.RELAYED]
    assert len(spool.waiting) == 4
    assert not spool.leased
    assert clock.getDelayedCalls() == []


def test_a_stop_cancels_runs_that_do_not_end(schedule, spool, clock) -> None:
    ended = []

    async def act(run):
        await run.batch(2)
        try:
            await Deferred()
        finally:
            ended.append(clock.seconds())

    scheduler = schedule(FakeAgent(act), grace=20.0)
    spool.commit(*(spool.make(HERE) for _ in range(5)))
    clock.turn()
    start = clock.seconds()
    stopped = scheduler.stopService()
    clock.pump([1.0] * 25)
    assert stopped.called
    assert ended == [start + 20]
    assert len(spool.waiting) == 5
    assert clock.getDelayedCalls() == []


def test_a_stop_leaves_behind_a_run_that_does_not_end_when_it_is_cancelled(schedule, spool, clock) -> None:
    disk = Deferred()

    async def act(run):
        delivery = await run.next()
        await uncancelled(disk)
        run.settle(delivery, [RELAYED])

    scheduler = schedule(FakeAgent(act), grace=20.0)
    spool.commit(*(spool.make(HERE) for _ in range(2)))
    clock.turn()
    with capturedLogs() as logged:
        stopped = scheduler.stopService()
        clock.pump([1.0] * 39)
        assert not stopped.called
        clock.pump([1.0] * 2)
    assert stopped.called
    assert [event["count"] for event in logged if event["log_level"] is LogLevel.error] == [1]
    assert (len(spool.waiting), len(spool.leased)) == (1, 1)  # the latter comes back when the spool is opened again
    disk.callback(None)
    clock.pump([1.0] * 5)
    assert spool.results() == []
    assert clock.getDelayedCalls() == []


def test_a_stop_does_not_wait_for_ever_for_a_spool_that_fails(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent(), grace=20.0)
    spool.failing = spool_error()
    spool.commit(spool.make(HERE))
    clock.turn()
    stopped = scheduler.stopService()
    clock.pump([1.0] * 25)
    assert stopped.called
    assert len(spool.leased) == 1  # it comes back when the spool is opened again
    assert clock.getDelayedCalls() == []


def test_after_a_stop_commits_find_no_room_and_late_ones_are_given_back(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent())
    late = spool.make(HERE)
    spool.lease(late)
    stopped = scheduler.stopService()
    clock.turn()
    assert stopped.called
    assert not scheduler.has_room(HERE, 1)
    scheduler.committed([late])
    scheduler.due([HERE])
    clock.turn()
    assert len(spool.waiting) == 1
    assert not spool.leased


def test_what_was_claimed_for_a_run_that_is_cancelled_is_given_back(schedule, spool, clock) -> None:
    answer = Deferred()
    claim = spool.claim

    async def slow_claim(destination, limit):
        claimed = await claim(destination, limit)
        await answer
        return claimed

    spool.claim = slow_claim
    scheduler = schedule(FakeAgent(), grace=5.0)
    spool.store(spool.make(HERE))
    scheduler.due([HERE])
    clock.turn()
    stopped = scheduler.stopService()
    clock.pump([1.0] * 10)
    assert not stopped.called
    answer.callback(None)
    clock.turn()
    assert stopped.called
    assert len(spool.waiting) == 1
    assert not spool.leased
