"""A week of it, in simulated time: schedules of every kind, clocks that jump, the dead in thousands."""

from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.pacing import Pacing, UniformRules
from mailsuite.delivery.ready import Bounds
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import HOLD, Destination
from tests.delivery.fakes import DEAD, LATER, RELAYED, FakeAgent, relay

HERE, LIVING = relay("here.example"), relay("living.example")
MINUTE, HOUR, DAY = 60, 3600, 86400
GREYLISTED = Outcome.of_reply(Reply.make(451, "4.7.1", "Greylisted, come again"))


def settling(outcome):
    async def act(run):
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [outcome] * len(delivery.recipients))

    return act


def attempts(spool, start):
    return [at - start for at, _, _ in spool.history]


def test_a_week_of_refusals_follows_the_schedule_of_the_route_and_ends_with_one_report(schedule, spool, clock) -> None:
    waits = (5 * MINUTE, 30 * MINUTE, 2 * HOUR, 6 * HOUR)
    rules = UniformRules(RetrySchedule(waits=waits, jitter=0, delay_report=0.0))
    schedule(FakeAgent(settling(LATER)), rules=rules)
    start = clock.seconds()
    spool.commit(spool.make(HERE))
    clock.pump([30.0] * (7 * DAY // 30))
    times = attempts(spool, start)
    gaps = [after - before for before, after in pairwise(times)]
    assert [round(gap / MINUTE) for gap in gaps[:4]] == [5, 30, 120, 360]
    assert all(abs(gap - 6 * HOUR) <= MINUTE for gap in gaps[3:-1])
    assert 5 * DAY <= times[-1] <= 5 * DAY + MINUTE
    assert spool.results() == [Result.DEFERRED] * (len(times) - 1) + [Result.FAILED]
    assert len(spool.reports) == 1
    assert not spool.waiting
    assert not spool.leased


def test_an_empty_schedule_is_the_doubling_one(schedule, spool, clock) -> None:
    schedule(FakeAgent(settling(LATER)), waits=(), first=60)
    start = clock.seconds()
    spool.commit(spool.make(HERE))
    clock.pump([1.0] * 450)
    assert [round(at, -1) for at in attempts(spool, start)] == [0, 60, 180, 420]


def test_a_schedule_of_nothing_is_no_loop(schedule, spool, clock) -> None:
    schedule(FakeAgent(settling(LATER)), waits=(0.0,))
    spool.commit(spool.make(HERE))
    clock.pump([0.05] * 2000)
    assert 20 <= len(spool.history) <= 101


def test_those_who_do_not_know_us_yet_are_tried_sooner(schedule, spool, clock) -> None:
    schedule(FakeAgent(settling(GREYLISTED)), first=300, greylisted=60.0)
    start = clock.seconds()
    spool.commit(spool.make(HERE))
    clock.pump([1.0] * 1000)
    times = attempts(spool, start)
    assert [round(after - before, -1) for before, after in pairwise(times)] == [60, 300, 600]


def test_what_goes_off_for_days_and_comes_back_gets_all_of_its_mail(schedule, spool, clock) -> None:
    up = False

    async def act(run):
        if not up:
            run.fail(DEAD)
            return
        await settling(RELAYED)(run)

    schedule(FakeAgent(act), jitter=0.1)
    for _ in range(3 * 24):
        spool.commit(*(spool.make(HERE) for _ in range(10)))
        clock.pump([60.0] * 60)
    assert len(spool.waiting) == 720
    up = True
    clock.pump([60.0] * 240)
    assert spool.results().count(Result.RELAYED) == 720
    assert not spool.waiting
    assert not spool.leased


@pytest.mark.parametrize("jump", [90.0, HOUR, 3 * DAY])
def test_a_clock_that_jumps_ahead_makes_due_what_was_for_later(schedule, spool, clock, jump) -> None:
    schedule(FakeAgent(settling(LATER)), first=60)
    spool.commit(spool.make(HERE))
    clock.turn()
    clock.advance(jump)
    clock.pump([1.0] * 10)
    assert len(spool.history) >= 2
    assert len(spool.waiting) == 1
    assert not spool.leased


@pytest.mark.parametrize("jump", [HOUR, 30 * DAY])
def test_a_clock_that_is_set_back_does_not_keep_new_mail_waiting(schedule, spool, clock, jump) -> None:
    dead = True

    async def act(run):
        if dead:
            run.fail(DEAD)
            return
        await settling(RELAYED)(run)

    schedule(FakeAgent(act), pacing=Pacing(rate=1.0), first=300)
    spool.commit(spool.make(HERE))
    clock.turn()
    assert spool.results() == [Result.DEFERRED]
    clock.rightNow -= jump
    dead = False
    spool.commit(*(spool.make(HERE) for _ in range(5)))
    clock.pump([1.0] * 10)
    assert spool.results() == [Result.DEFERRED] + [Result.RELAYED] * 5
    clock.pump([10.0] * round((jump + 400) / 10) if jump <= HOUR else [jump, 400.0, 1.0])
    assert spool.results() == [Result.DEFERRED] + [Result.RELAYED] * 6
    assert not spool.leased


def test_a_clock_that_is_set_back_does_not_stop_the_search_for_what_is_due(schedule, spool, clock) -> None:
    schedule(FakeAgent())
    clock.pump([1.0] * 5)
    clock.rightNow -= 30 * DAY
    spool.commit(spool.make(LIVING))
    clock.turn()
    spool.store(spool.make(HERE))  # nobody is told
    clock.pump([1.0] * 20)
    assert spool.results() == [Result.RELAYED] * 2


def test_a_thousand_dead_destinations_do_not_delay_a_living_one(schedule, spool, clock) -> None:
    dialled = []

    async def act(run):
        if run.destination != LIVING:
            dialled.append(run.destination)
            answer = Deferred()
            clock.callLater(30.0, answer.callback, None)
            await answer
            run.fail(DEAD)
            return
        await settling(RELAYED)(run)

    bounds = Bounds(count=100, total_count=1000)
    schedule(FakeAgent(act, concurrency=20, batch=5), bounds=bounds, jitter=0.1)
    spool.store(*(spool.make(relay(f"dead{at % 1000}.example")) for at in range(10_000)))
    clock.advance(301.0)
    start = clock.seconds()
    for _ in range(60):
        spool.commit(*(spool.make(LIVING) for _ in range(10)))
        clock.advance(0.5)
        clock.turn(2)
        clock.advance(0.5)
    living = [at - start for at, delivery, _ in spool.history if delivery.destination == LIVING]
    assert len(living) == 600
    assert all(at <= number // 10 + 0.5 for number, at in enumerate(living))
    dead = [outcome.result for _, delivery, outcome in spool.history if delivery.destination != LIVING]
    assert dead == [Result.DEFERRED] * 10_000
    assert len(dialled) <= 2000
    assert not spool.leased


def test_the_unproven_leave_half_of_the_memory_to_the_living(schedule, spool, clock) -> None:
    blocked = []

    async def act(run):
        if run.destination == LIVING:
            run.settle(await run.next(), [RELAYED])
        blocked.append(Deferred())
        await blocked[-1]

    scheduler = schedule(FakeAgent(act), bounds=Bounds(total_count=100))
    spool.commit(spool.make(LIVING))
    clock.turn()
    for at in range(80):
        spool.commit(spool.make(relay(f"dead{at}.example")))
    assert not scheduler.has_room(HERE, 10)
    assert scheduler.has_room(LIVING, 10)
    for one in blocked:
        one.callback(None)
    clock.turn()


def test_held_mail_waits_by_its_own_clock(schedule, spool, clock) -> None:
    held = Destination(HOLD, "home.example")
    spool.store(*(spool.make(held) for _ in range(10)))
    schedule(FakeAgent())
    clock.pump([HOUR] * (30 * 24))
    assert len(spool.waiting) == 10
    assert spool.results() == []
