"""The scheduler, with a clock that stands still until it is moved."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.pacing import Pacing
from mailsuite.delivery.ready import Bounds
from mailsuite.mail.history import EventKind
from mailsuite.mail.queue import Result
from mailsuite.mail.route import HOLD, MAILDIR, Destination
from tests.delivery.fakes import DEAD, LATER, RELAYED, FakeAgent, relay, spool_error

HERE, THERE = relay("here.example"), relay("there.example")


def settling(outcome):
    async def act(run):
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [outcome] * len(delivery.recipients))

    return act


def taking(held):
    """Take what there is and keep it until the test settles it; end when it fires `held`'s Deferred."""

    async def act(run):
        taken = []
        while (delivery := await run.next()) is not None:
            taken.append(delivery)
        until = Deferred()
        held.append((run, taken, until))
        await until

    return act


def test_what_is_committed_is_delivered_without_a_claim(schedule, spool, clock) -> None:
    schedule(FakeAgent())
    spool.calls.clear()
    spool.commit(*(spool.make(HERE) for _ in range(3)))
    clock.turn()
    assert spool.results() == [Result.RELAYED] * 3
    assert spool.calls == [("settle", 3)]
    assert not spool.leased


def test_a_run_begins_in_the_next_turn_and_sees_all_of_this_one(schedule, spool, clock) -> None:
    agent = FakeAgent()
    schedule(agent)
    spool.commit(spool.make(HERE))
    spool.commit(spool.make(HERE))
    assert agent.runs == []
    clock.turn()
    assert len(agent.runs) == 1
    assert len(spool.results()) == 2


def test_what_waits_in_the_spool_is_claimed_at_the_start(schedule, spool) -> None:
    spool.store(*(spool.make(HERE) for _ in range(250)))
    schedule(FakeAgent())
    assert spool.results() == [Result.RELAYED] * 250
    assert [call for call in spool.calls if call[0] == "claim"] == [("claim", HERE)] * 3


def test_the_spool_is_rerouted_before_anything_is_claimed(schedule, spool, router) -> None:
    spool.store(spool.make(Destination("relay", "old.example")))
    router.destination = lambda *_: THERE
    schedule(FakeAgent())
    assert [delivery.destination for _, delivery, _ in spool.history] == [THERE]


def test_what_is_held_is_not_rerouted_to_be_relayed(schedule, spool) -> None:
    held = Destination("hold", "ship.example")
    spool.store(spool.make(held))
    schedule(FakeAgent())
    assert [delivery.destination for delivery, _ in spool.waiting.values()] == [held]


def test_what_becomes_due_is_claimed(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent())
    spool.store(spool.make(HERE))
    scheduler.due([HERE])
    clock.turn()
    assert spool.results() == [Result.RELAYED]


def test_a_deferred_delivery_is_tried_again_at_its_time(schedule, spool, clock) -> None:
    schedule(FakeAgent(settling(LATER)), first=300, factor=2)
    start = clock.seconds()
    spool.commit(spool.make(HERE))
    clock.turn()
    for _ in range(2000):
        clock.advance(1)
    times = [round(at - start) for at, _, _ in spool.history]
    assert [times[0], times[1], times[2]] == [0, 301, 902]
    assert len(times) == 3


def test_recipients_deferred_together_come_back_together(schedule, spool, clock) -> None:
    schedule(FakeAgent(settling(LATER)), jitter=0.5)
    spool.commit(spool.make(HERE, recipients=5))
    clock.turn()
    assert len({outcome.next_attempt for _, _, outcome in spool.history}) == 1
    assert len(spool.waiting) == 1


def test_one_timer_wakes_many_destinations(schedule, spool, clock) -> None:
    for number in range(50):
        spool.store(spool.make(relay(f"d{number}.example")), due=clock.seconds() + 100 + number / 50)
    schedule(FakeAgent())
    assert len(clock.getDelayedCalls()) == 1
    spool.calls.clear()
    clock.pump([1.0] * 110)
    assert len(spool.results()) == 50
    assert len([call for call in spool.calls if call == ("destinations",)]) <= 3


def test_a_group_that_settles_while_another_is_written_becomes_one_call(schedule, spool, clock) -> None:
    schedule(FakeAgent())
    spool.pending = []
    spool.commit(spool.make(HERE))
    clock.turn()
    for _ in range(5):
        spool.commit(spool.make(HERE))
        clock.turn()
    assert [call for call in spool.calls if call[0] == "settle"] == [("settle", 1)]
    first, spool.pending = spool.pending[0], None
    first.callback(None)
    clock.turn()
    assert [call for call in spool.calls if call[0] == "settle"] == [("settle", 1), ("settle", 5)]


def test_hold_is_never_taken(schedule, spool, clock) -> None:
    held = Destination(HOLD, "held.example")
    scheduler = schedule(FakeAgent(), FakeAgent(name=HOLD))
    assert not scheduler.has_room(held, 10)
    spool.store(spool.make(held))
    scheduler.due([held])
    clock.pump([60.0] * 20)
    assert spool.results() == []


def test_a_run_that_found_nothing_or_was_drained_gives_no_rest_to_what_has_come_since(schedule, spool, clock) -> None:
    """One run takes all and goes on for a while; another one, dialled beside it, finds nothing."""
    asked, begins, ends = [], [], []

    async def act(run):
        begins.append(Deferred())
        await begins[-1]  # the connection
        taken = []
        while (delivery := await run.next()) is not None:
            taken.append(delivery)
        asked.append(len(taken))
        for delivery in taken:
            run.settle(delivery, [RELAYED])
        ends.append(Deferred())
        await ends[-1]  # the answer to QUIT

    scheduler = schedule(FakeAgent(act, batch=5, concurrency=2))
    spool.commit(*(spool.make(HERE) for _ in range(10)))
    clock.turn()
    for begin in begins:
        begin.callback(None)
    assert asked == [10, 0]
    spool.commit(spool.make(HERE), spool.make(HERE))
    ends[0].callback(None)  # the one that has settled something ends first
    ends[1].callback(None)
    clock.turn()
    assert [status.failures for status in scheduler.status()] == [0]
    begins[2].callback(None)
    assert asked == [10, 0, 2]
    ends[2].callback(None)
    clock.turn()
    assert spool.results() == [Result.RELAYED] * 12


def test_a_run_that_gives_back_what_it_took_and_found_nothing_more_gives_a_rest(schedule, spool, clock) -> None:
    async def act(run):
        delivery = await run.next()
        assert await run.next() is None
        run.release(delivery)

    agent = FakeAgent(act)
    scheduler = schedule(agent, first=300)
    spool.commit(spool.make(HERE))
    clock.turn()
    assert len(agent.runs) == 1
    assert [status.failures for status in scheduler.status()] == [1]


def test_a_destination_without_an_agent_waits_and_says_why(schedule, spool, clock) -> None:
    schedule(FakeAgent())
    spool.commit(spool.make(Destination("pigeon", "x")))
    clock.turn()
    [(_, _, outcome)] = spool.history
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.3.5")
    assert "pigeon" in outcome.text


def test_what_an_agent_that_raises_had_in_its_hands_is_on_hold_and_the_rest_goes_on(schedule, spool, clock) -> None:
    async def act(run):
        if len(agent.runs) == 1:
            await run.next()
            raise RuntimeError("a defect")
        await settling(RELAYED)(run)

    agent = FakeAgent(act)
    schedule(agent)
    spool.commit(*(spool.make(HERE) for _ in range(5)))
    clock.turn()
    assert spool.results() == [Result.HELD] + [Result.RELAYED] * 4
    assert [one.message.queue_id for one in spool.on_hold] == ["Q1"]
    assert str(spool.history[0][2].status) == "4.3.0"
    [fault] = [event for event in spool.events if event.kind is EventKind.FAULT]
    assert (fault.queue_id, fault.subject) == ("Q1", str(HERE))
    assert "RuntimeError: a defect" in fault.detail["traceback"]
    assert __file__ in fault.detail["traceback"]


def test_of_several_in_the_hands_of_an_agent_that_raises_only_the_one_it_was_is_on_hold(schedule, spool, clock) -> None:
    sizes = []

    async def act(run):
        while batch := await run.batch(10):
            sizes.append(len(batch))
            if any(delivery.message.queue_id == "Q4" for delivery in batch):
                raise RuntimeError("a defect")
            for delivery in batch:
                assert not await run.batch(1) or len(batch) > 1
                run.settle(delivery, [RELAYED])

    schedule(FakeAgent(act))
    spool.commit(*(spool.make(HERE) for _ in range(15)))
    clock.turn()
    assert sizes == [10] + [1] * 10 + [5]
    assert [one.message.queue_id for one in spool.on_hold] == ["Q4"]
    assert sorted(spool.results()) == [Result.HELD] + [Result.RELAYED] * 14
    assert not spool.leased


def test_a_defect_with_nothing_in_hand_defers_what_is_due_until_it_expires(schedule, spool, clock) -> None:
    async def act(run):
        raise RuntimeError("a defect")

    agent = FakeAgent(act)
    schedule(agent, first=3600, lifetime=4 * 3600.0)
    spool.commit(*(spool.make(HERE) for _ in range(5)))
    clock.pump([60.0] * 300)
    assert len(agent.runs) == 4
    assert spool.results() == [Result.DEFERRED] * 15 + [Result.FAILED] * 5
    assert spool.on_hold == []


def test_a_defect_that_is_met_again_and_again_does_not_put_all_on_hold(schedule, spool, clock) -> None:
    async def act(run):
        await run.next()
        raise RuntimeError("a defect")

    scheduler = schedule(FakeAgent(act), first=300)
    spool.commit(*(spool.make(HERE) for _ in range(50)))
    clock.pump([1.0] * 290)
    assert len(spool.on_hold) == 3
    [status] = scheduler.status()
    assert (status.failures, status.last_error) == (1, "A defect was met in delivery: RuntimeError: a defect")
    clock.pump([1.0] * 20)
    assert len(spool.on_hold) == 4


def test_an_agent_that_does_nothing_is_not_asked_in_a_loop(schedule, spool, clock) -> None:
    async def act(run):
        await run.next()

    agent = FakeAgent(act)
    schedule(agent, first=300)
    spool.commit(spool.make(HERE))
    clock.turn(500)
    assert len(agent.runs) == 1
    clock.pump([1.0] * 310)
    assert len(agent.runs) == 2
    assert spool.results() == []


def test_what_a_run_gives_back_is_taken_first_by_the_next(schedule, spool, clock) -> None:
    taken = []

    async def act(run):
        first = await run.next()
        taken.append(first)
        if len(agent.runs) == 1:
            second = await run.next()
            run.release(second)
            run.settle(first, [RELAYED])
            run.release(second)  # again, and after the fact: nothing happens
            run.release(first)
        else:
            taken.append(await run.next())

    agent = FakeAgent(act)
    schedule(agent)
    deliveries = [spool.make(HERE) for _ in range(3)]
    spool.commit(*deliveries)
    clock.turn()
    assert taken == deliveries
    assert spool.results() == [Result.RELAYED]


def test_settling_what_is_not_held_is_an_error(schedule, spool, clock) -> None:
    errors = []

    async def act(run):
        delivery = await run.next()
        for outcomes in ([RELAYED, RELAYED], [RELAYED], [RELAYED]):
            try:
                run.settle(delivery, outcomes)
            except ValueError as error:
                errors.append(str(error))

    schedule(FakeAgent(act))
    spool.commit(spool.make(HERE))
    clock.turn()
    assert errors == ["2 outcomes for 1 recipients", "Q1 is not held by this run"]
    assert spool.results() == [Result.RELAYED]


@pytest.mark.parametrize(("waiting", "runs"), [(1, 1), (19, 1), (20, 2), (35, 3), (200, 4)])
def test_runs_grow_with_what_waits_up_to_the_agents_limit(schedule, spool, clock, waiting, runs) -> None:
    held = []

    async def act(run):
        await run.next()
        held.append(Deferred())
        await held[-1]

    agent = FakeAgent(act, concurrency=4, batch=10)
    schedule(agent, pacing=Pacing(first=20))
    spool.commit(*(spool.make(HERE) for _ in range(waiting)))
    clock.turn()
    assert len(agent.runs) == runs
    for one in held:
        one.callback(None)


def test_fresh_mail_does_not_starve_what_waits_in_the_spool(schedule, spool, clock) -> None:
    async def act(run):
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [RELAYED])
            if len(fresh) < 1000:  # a load that goes on and on: for each one taken another arrives
                fresh.append(spool.make(HERE))
                spool.commit(fresh[-1])

    scheduler = schedule(FakeAgent(act))
    fresh = [spool.make(HERE)]
    old = [spool.make(HERE) for _ in range(150)]
    spool.commit(*fresh)
    spool.store(*old)
    scheduler.due([HERE])
    clock.turn()
    order = [delivery.message.queue_id for _, delivery, _ in spool.history]
    assert max(order.index(one.message.queue_id) for one in old) < 500


def test_room_is_bounded_by_count_and_octets_for_one_destination_and_for_all(schedule, spool, clock) -> None:
    held = []
    bounds = Bounds(count=3, octets=1000, total_count=10, total_octets=3000, large=400)
    scheduler = schedule(FakeAgent(taking(held), name="other"), bounds=bounds)
    busy = Destination("relay-less", "x")
    assert scheduler.has_room(HERE, 10)
    scheduler.committed([spool.make(busy, size=900)])  # counts as 400: large contents lie on the disk
    assert scheduler.has_room(busy, 300)
    assert scheduler.has_room(busy, 10**9)
    scheduler.committed([spool.make(busy, size=300)])
    assert not scheduler.has_room(busy, 301)
    scheduler.committed([spool.make(busy, size=10)])
    assert not scheduler.has_room(busy, 1)
    assert scheduler.has_room(HERE, 300)
    scheduler.committed([spool.make(HERE, size=400), spool.make(HERE, size=380)])
    assert not scheduler.has_room(THERE, 1)


def test_room_comes_back_when_deliveries_are_taken(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent(), bounds=Bounds(count=2))
    for _ in range(5):
        spool.commit(*(spool.make(HERE) for _ in range(4)))
        assert not scheduler.has_room(HERE, 1)
        clock.turn()
        assert scheduler.has_room(HERE, 1)
    assert spool.results() == [Result.RELAYED] * 20


def test_a_spool_that_cannot_be_claimed_from_is_asked_again(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent())
    spool.store(spool.make(HERE))
    spool.failing = spool_error()
    scheduler.due([HERE])
    clock.pump([1.0] * 60)
    assert spool.results() == []
    assert len(spool.calls) < 20
    spool.failing = None
    clock.pump([1.0] * 60)
    assert spool.results() == [Result.RELAYED]


def test_a_spool_that_fails_at_the_start_is_asked_again(schedule, spool, clock) -> None:
    spool.store(spool.make(HERE))
    spool.failing = spool_error()
    schedule(FakeAgent())
    spool.failing = None
    clock.pump([1.0] * 60)
    assert spool.results() == [Result.RELAYED]


def test_destinations_that_are_done_are_forgotten(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent())
    spool.commit(*(spool.make(relay(f"d{number}.example")) for number in range(100)))
    clock.turn()
    assert len(spool.results()) == 100
    assert scheduler.queue_count == len(scheduler.status()) == 100
    clock.pump([10.0] * 31)
    assert scheduler.queue_count == len(scheduler.status()) == 0


def test_of_very_many_destinations_those_that_are_done_are_forgotten_at_once(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent())
    for thousand in range(10):
        spool.commit(*(spool.make(relay(f"d{thousand}.{number}.example")) for number in range(1000)))
        clock.turn()
    assert len(spool.results()) == 10_000
    assert scheduler.queue_count <= 4000


def test_two_agents_work_side_by_side(schedule, spool, clock) -> None:
    local = Destination(MAILDIR)
    blocked = []
    schedule(FakeAgent(taking(blocked)), FakeAgent(name=MAILDIR))
    spool.commit(spool.make(HERE), spool.make(local), spool.make(local))
    clock.turn()
    assert [delivery.destination for _, delivery, _ in spool.history] == [local, local]
    blocked[0][2].callback(None)


def test_an_outcome_for_one_delivery_does_not_make_its_destination_rest(schedule, spool, clock) -> None:
    schedule(FakeAgent(settling(LATER)))
    spool.commit(*(spool.make(HERE) for _ in range(3)))
    clock.turn()
    spool.commit(spool.make(HERE))
    clock.turn()
    assert spool.results() == [Result.DEFERRED] * 4
    assert DEAD not in [outcome for _, _, outcome in spool.history]


def test_mail_whose_routes_cannot_be_asked_goes_its_old_way(schedule, spool, clock, router) -> None:
    def choose(*_):
        raise ZeroDivisionError("a defect")

    spool.store(spool.make(relay("here.example")))
    router.destination = choose
    schedule(FakeAgent())
    clock.turn()
    assert len(spool.history) == 1
