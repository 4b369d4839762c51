"""A destination that cannot be reached: it is left alone, and nobody else waits for it."""

from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred

from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.status import EnhancedStatus
from tests.delivery.fakes import DEAD, RELAYED, FakeAgent, relay

DEAD_HOST, LIVING = relay("dead.example"), relay("living.example")
NOWHERE = Outcome(Result.FAILED, EnhancedStatus(5, 1, 2), "no such domain")
HOUR, DAY = 3600, 86400


class Network:
    """Dials for an agent: `down` are the domains that cannot be reached; each dial takes `seconds`."""

    def __init__(self, clock, *, seconds=30.0):
        self.clock = clock
        self.seconds = seconds
        self.down = {"dead.example"}
        self.dials = []
        self.outcome = DEAD

    async def act(self, run):
        name = run.destination.name
        self.dials.append((name, self.clock.seconds()))
        if name in self.down:
            answer = Deferred()
            self.clock.callLater(self.seconds, answer.callback, None)
            await answer
            run.fail(self.outcome)
            return
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [RELAYED] * len(delivery.recipients))

    def dials_of(self, name):
        return [at for dialled, at in self.dials if dialled == name]


def test_ten_thousand_messages_for_the_dead_do_not_delay_one_for_the_living(schedule, spool, clock) -> None:
    network = Network(clock)
    spool.store(*(spool.make(DEAD_HOST) for _ in range(10_000)))
    scheduler = schedule(FakeAgent(network.act, concurrency=5))
    start = clock.seconds()
    for _ in range(60):
        spool.commit(spool.make(LIVING))
        clock.advance(1)
    living = [at for at, delivery, _ in spool.history if delivery.destination == LIVING]
    assert len(living) == 60
    assert living == [start + 1 + at for at in range(60)]
    dead = [outcome for _, delivery, outcome in spool.history if delivery.destination == DEAD_HOST]
    assert [outcome.result for outcome in dead] == [Result.DEFERRED] * 10_000
    assert len(network.dials_of("dead.example")) == 2
    assert not scheduler.has_room(DEAD_HOST, 1)
    assert not spool.leased


def test_the_dead_cost_a_few_dials_in_an_hour(schedule, spool, clock) -> None:
    network = Network(clock)
    spool.store(*(spool.make(DEAD_HOST) for _ in range(500)))
    schedule(FakeAgent(network.act), jitter=0.1)
    clock.pump([5.0] * (6 * HOUR // 5))
    dials = network.dials_of("dead.example")
    assert 5 <= len(dials) <= 15
    gaps = [after - before for before, after in pairwise(dials)]
    assert min(gaps) >= 270
    assert max(gaps) >= HOUR * 0.9


def test_what_is_deferred_in_bulk_comes_back_after_the_pause(schedule, spool, clock) -> None:
    network = Network(clock)
    spool.store(*(spool.make(DEAD_HOST) for _ in range(300)))
    schedule(FakeAgent(network.act), jitter=0.1)
    clock.pump([1.0] * 60)
    assert spool.results() == [Result.DEFERRED] * 300
    network.down.clear()
    clock.pump([5.0] * 100)
    assert spool.results()[300:] == [Result.RELAYED] * 300


def test_mail_that_comes_meanwhile_waits_for_the_pause_to_end(schedule, spool, clock) -> None:
    network = Network(clock)
    schedule(FakeAgent(network.act), first=300)
    spool.commit(spool.make(DEAD_HOST))
    clock.advance(0)
    clock.advance(30)
    assert spool.results() == [Result.DEFERRED]
    spool.commit(*(spool.make(DEAD_HOST) for _ in range(10)))
    clock.pump([1.0] * 200)
    assert len(network.dials) == 1
    assert len(spool.waiting) == 11
    network.down.clear()
    clock.pump([1.0] * 110)
    assert len(network.dials) == 2
    assert spool.results() == [Result.DEFERRED] + [Result.RELAYED] * 11


def test_a_week_of_death_expires_every_message_in_its_time(schedule, spool, clock) -> None:
    network = Network(clock)
    spool.store(*(spool.make(DEAD_HOST) for _ in range(250)))
    start = clock.seconds()
    schedule(FakeAgent(network.act), jitter=0.1)
    clock.pump([60.0] * (7 * DAY // 60))
    assert not spool.waiting
    assert not spool.leased
    expired = [at - start for at, _, outcome in spool.history if outcome.result is Result.FAILED]
    assert len(expired) == len(spool.reports) == 250
    assert min(expired) >= 5 * DAY - 60
    assert max(expired) <= 5 * DAY + 1.2 * HOUR
    assert len(network.dials) < 200


def test_pauses_grow_and_are_forgotten_after_a_success(schedule, spool, clock) -> None:
    network = Network(clock, seconds=0.0)
    schedule(FakeAgent(network.act), first=300, maximum=300, destination_maximum=1200)
    spool.commit(spool.make(DEAD_HOST))
    clock.pump([1.0] * 4000)
    dials = network.dials_of("dead.example")
    gaps = [after - before for before, after in pairwise(dials)]
    assert [round(gap, -1) for gap in gaps] == [300, 600, 1200, 1200]
    network.down.clear()
    clock.pump([1.0] * 1500)
    assert spool.results()[-1] is Result.RELAYED
    network.down.add("dead.example")
    spool.commit(spool.make(DEAD_HOST))
    clock.pump([1.0] * 310)
    assert len(network.dials_of("dead.example")) == len(dials) + 3


def test_a_domain_that_does_not_exist_fails_all_its_mail_and_is_asked_again_for_more(schedule, spool, clock) -> None:
    network = Network(clock, seconds=0.0)
    network.outcome = NOWHERE
    spool.store(*(spool.make(DEAD_HOST) for _ in range(350)))
    scheduler = schedule(FakeAgent(network.act))
    clock.turn(400)
    assert spool.results() == [Result.FAILED] * 350
    assert len(spool.reports) == 350
    assert scheduler.has_room(DEAD_HOST, 1)
    dials = len(network.dials)
    spool.commit(spool.make(DEAD_HOST))
    clock.advance(1)
    assert len(network.dials) == dials + 1


@pytest.mark.parametrize("outcome", [DEAD, NOWHERE])
def test_a_host_that_serves_another_connection_is_not_dead(schedule, spool, clock, outcome) -> None:
    held = []

    async def act(run):
        if len(agent.runs) == 1:
            delivery = await run.next()
            run.settle(delivery, [RELAYED])
            held.append(Deferred())
            await held[0]
            while (delivery := await run.next()) is not None:
                run.settle(delivery, [RELAYED])
        else:
            await run.next()
            run.fail(outcome)  # too many connections, by 421 or by 554

    agent = FakeAgent(act, concurrency=3, batch=2)
    schedule(agent)
    spool.commit(spool.make(LIVING))
    clock.turn()
    spool.commit(*(spool.make(LIVING) for _ in range(10)))
    clock.turn()
    assert len(agent.runs) >= 2
    assert spool.results() == [Result.RELAYED]
    held[0].callback(None)
    clock.turn()
    assert spool.results() == [Result.RELAYED] * 11


def test_what_a_run_holds_when_the_host_dies_is_deferred_with_the_rest(schedule, spool, clock) -> None:
    async def act(run):
        run.settle(await run.next(), [RELAYED])
        await run.next()
        run.fail(DEAD)

    schedule(FakeAgent(act))
    spool.commit(*(spool.make(LIVING) for _ in range(5)))
    clock.turn()
    assert spool.results() == [Result.RELAYED] + [Result.DEFERRED] * 4
    assert not spool.leased
