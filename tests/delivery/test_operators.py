"""What an operator may ask the scheduler while it works: how it stands, to give mail back, to look again."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.active import HELD_OFF
from mailsuite.interfaces import SpoolError
from mailsuite.mail.queue import Result
from mailsuite.mail.route import HOLD, Destination
from tests.delivery.fakes import DEAD, RELAYED, FakeAgent, relay, spool_error

HERE, THERE = relay("here.example"), relay("there.example")


def blocking(blocked):
    """Take one delivery and keep it until the test lets it go; then drain the rest."""

    async def act(run):
        delivery = await run.next()
        until = Deferred()
        blocked.append(until)
        await until
        while delivery is not None:
            run.settle(delivery, [RELAYED])
            delivery = await run.next()

    return act


def result_of(coroutine):
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    return results


def test_what_is_ready_is_given_back_and_what_is_under_way_is_not(schedule, spool, clock) -> None:
    blocked = []
    scheduler = schedule(FakeAgent(blocking(blocked)))
    spool.commit(*(spool.make(HERE) for _ in range(10)))
    clock.turn()
    assert result_of(scheduler.withdraw()) == [9]
    assert len(spool.waiting) == 9
    assert {one.message.queue_id for one in spool.leased.values()} == {"Q1"}
    blocked[0].callback(None)


def test_what_was_given_back_is_claimed_again_after_a_moment_and_not_before(schedule, spool, clock) -> None:
    blocked = []
    scheduler = schedule(FakeAgent(blocking(blocked)))
    spool.commit(*(spool.make(HERE) for _ in range(10)))
    clock.turn()
    result_of(scheduler.withdraw())
    blocked[0].callback(None)
    scheduler.due([HERE])
    clock.pump([0.1] * round(HELD_OFF * 10 - 1))
    assert spool.results() == [Result.RELAYED]
    clock.advance(0.2)
    clock.turn()
    blocked[1].callback(None)
    clock.turn()
    assert spool.results() == [Result.RELAYED] * 10


def test_only_the_messages_that_are_named_are_given_back(schedule, spool, clock) -> None:
    blocked = []
    scheduler = schedule(FakeAgent(blocking(blocked)))
    spool.commit(*(spool.make(HERE) for _ in range(5)), *(spool.make(THERE) for _ in range(5)))
    clock.turn()
    assert result_of(scheduler.withdraw(["Q1", "Q3", "Q7", "Q99"])) == [2]
    assert {one.message.queue_id for one, _ in spool.waiting.values()} == {"Q3", "Q7"}
    for one in blocked:
        one.callback(None)
    clock.turn()
    assert len(spool.results()) == 8


def test_where_nothing_is_taken_back_nothing_is_held_off(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent())
    spool.commit(spool.make(HERE))
    clock.turn()
    assert result_of(scheduler.withdraw(["Q1"])) == [0]
    assert result_of(scheduler.withdraw()) == [0]
    spool.store(spool.make(HERE))
    scheduler.due([HERE])
    clock.turn()
    assert len(spool.results()) == 2


def test_what_is_just_being_claimed_is_given_back_too(schedule, spool, clock) -> None:
    answer = Deferred()
    claim = spool.claim

    async def slow_claim(destination, limit):
        claimed = await claim(destination, limit)
        await answer
        return claimed

    spool.claim = slow_claim
    agent = FakeAgent()
    scheduler = schedule(agent)
    spool.store(*(spool.make(HERE) for _ in range(3)))
    scheduler.due([HERE])
    clock.turn()
    withdrawn = result_of(scheduler.withdraw())
    assert withdrawn == []
    answer.callback(None)
    clock.turn()
    assert withdrawn == [3]
    assert (agent.runs, len(spool.waiting), spool.leased) == ([], 3, {})


def test_a_spool_that_fails_meanwhile_leaves_all_ready_as_it_was(schedule, spool, clock) -> None:
    blocked = []
    scheduler = schedule(FakeAgent(blocking(blocked)))
    spool.commit(*(spool.make(HERE) for _ in range(4)))
    clock.turn()
    spool.failing = spool_error()
    [failure] = result_of(scheduler.withdraw())
    assert failure.check(SpoolError)
    spool.failing = None
    blocked[0].callback(None)
    clock.pump([1.0] * 5)
    assert spool.results() == [Result.RELAYED] * 4


def test_waking_ends_a_rest_and_looks_what_is_due(schedule, spool, clock) -> None:
    dead = True

    async def act(run):
        if dead:
            run.fail(DEAD)
            return
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [RELAYED])

    scheduler = schedule(FakeAgent(act), first=3600)
    spool.commit(spool.make(HERE))
    clock.turn()
    dead = False
    spool.store(spool.make(HERE))
    scheduler.wake([HERE, THERE, Destination(HOLD, "home.example")])
    clock.turn()
    assert spool.results() == [Result.DEFERRED, Result.RELAYED]
    assert len(spool.waiting) == 1


def test_waking_lets_claims_go_on_at_once_after_a_withdrawal(schedule, spool, clock) -> None:
    blocked = []
    scheduler = schedule(FakeAgent(blocking(blocked)))
    spool.commit(*(spool.make(HERE) for _ in range(4)))
    clock.turn()
    result_of(scheduler.withdraw())
    scheduler.wake([HERE])
    blocked[0].callback(None)
    clock.turn()
    assert spool.results() == [Result.RELAYED] * 4


def test_the_router_is_asked_anew_when_somebody_says_so(schedule, spool, router, clock) -> None:
    scheduler = schedule(FakeAgent())
    spool.store(spool.make(HERE), due=clock.seconds() + 1000)
    router.destination = lambda *_: THERE
    assert result_of(scheduler.reroute()) == [1]
    assert [one.destination for one, _ in spool.waiting.values()] == [THERE]


def test_the_status_tells_of_what_waits_what_is_under_way_and_what_went_wrong(schedule, spool, clock) -> None:
    blocked = []

    async def act(run):
        if run.destination == THERE:
            run.fail(DEAD)
        else:
            await blocking(blocked)(run)

    scheduler = schedule(FakeAgent(act, concurrency=5), first=300)
    assert scheduler.status() == []
    spool.commit(*(spool.make(HERE) for _ in range(5)), spool.make(THERE))
    clock.turn()
    here, there = sorted(scheduler.status(), key=lambda one: one.destination)
    assert (here.destination, here.runs, here.allowed, here.ready) == (HERE, 1, 2, 4)
    assert (here.failures, here.up_at, here.last_error, here.rate) == (0, 0.0, None, 0.0)
    assert (there.destination, there.runs, there.allowed, there.ready) == (THERE, 0, 1, 0)
    assert (there.failures, there.up_at, there.last_error) == (1, clock.seconds() + 300, DEAD.text)
    blocked[0].callback(None)
    clock.turn()
    here = next(one for one in scheduler.status() if one.destination == HERE)
    assert (here.ready, here.runs) == (0, 0)
    assert here.rate == pytest.approx(0.5)
