"""How many connections there are to a destination, and how many messages a second."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.pacing import Pacing, UniformRules
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.mail.queue import Result
from mailsuite.mail.route import MAILDIR, Destination
from tests.delivery.fakes import RELAYED, FakeAgent, relay

HERE, THERE = relay("here.example"), relay("there.example")


class Line:
    """An agent whose connections each take a second for a message; it notes how many there are at once."""

    def __init__(self, clock):
        self.clock = clock
        self.open = 0
        self.most = 0
        self.times = []

    async def act(self, run):
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while (delivery := await run.next()) is not None:
                answer = Deferred()
                self.clock.callLater(1.0, answer.callback, None)
                await answer
                run.settle(delivery, [RELAYED])
                self.times.append(self.clock.seconds())
        finally:
            self.open -= 1


class Rules:
    """A pacing for each destination."""

    def __init__(self, **pacings):
        self.pacings = pacings

    def retry(self, destination):
        return RetrySchedule()

    def pacing(self, destination):
        return self.pacings.get(destination.name.partition(".")[0], Pacing())


def test_connections_begin_with_few_and_grow_while_it_goes_well(schedule, spool, clock) -> None:
    line = Line(clock)
    schedule(FakeAgent(line.act, concurrency=20, batch=1), pacing=Pacing(first=2, most=8))
    spool.commit(*(spool.make(HERE) for _ in range(200)))
    clock.turn()
    assert line.open == 2
    seen = []
    for _ in range(4):
        clock.advance(1.0)
        clock.turn(3)
        seen.append(line.open)
    assert seen == [4, 8, 8, 8]


def test_no_more_connections_begin_than_there_is_mail_for(schedule, spool, clock) -> None:
    line = Line(clock)
    schedule(FakeAgent(line.act, concurrency=20, batch=5), pacing=Pacing(first=20))
    spool.store(spool.make(HERE))
    clock.pump([1.0] * 310)
    assert spool.results() == [Result.RELAYED]
    assert line.most == 1


def test_nobody_is_dialled_where_nothing_is_due_after_all(schedule, spool, clock) -> None:
    agent = FakeAgent()
    scheduler = schedule(agent)
    scheduler.due([HERE])
    scheduler.wake([HERE])
    clock.turn()
    assert agent.runs == []


def test_after_one_connection_too_many_there_are_not_so_many_again(schedule, spool, clock) -> None:
    line = Line(clock)

    async def act(run):
        if line.open == 3:
            refused.append(clock.seconds())
            run.fail(RELAYED)
            return
        await line.act(run)

    refused = []
    schedule(FakeAgent(act, concurrency=20, batch=1), pacing=Pacing(first=1))
    spool.commit(*(spool.make(HERE) for _ in range(90)))
    for _ in range(60):
        clock.advance(1.0)
        clock.turn(3)
    assert spool.results() == [Result.RELAYED] * 90
    assert line.most == 3
    assert len(refused) == 1


@pytest.mark.parametrize("rate", [2.0, 10.0, 1 / 30])
def test_a_destination_gets_no_more_messages_than_its_rate_allows(schedule, spool, clock, rate) -> None:
    agent = FakeAgent(concurrency=20, batch=1)
    schedule(agent, pacing=Pacing(rate=rate))
    start = clock.seconds()
    count = round(max(rate * 60, 10))
    spool.commit(*(spool.make(HERE) for _ in range(count)))
    took = count / rate
    clock.pump([0.1] * round(10 * (took + 5)))
    assert spool.results() == [Result.RELAYED] * count
    times = [at - start for at, _, _ in spool.history]
    for number, at in enumerate(times):
        assert number + 1 <= rate * at + max(rate, 1.0) + 0.01
    assert times[-1] >= took * 0.8 - 1 / rate


def test_a_rate_needs_one_timer_and_not_one_for_each_message(schedule, spool, clock) -> None:
    schedule(FakeAgent(), pacing=Pacing(rate=0.5))
    spool.commit(*(spool.make(relay(f"d{at % 20}.example")) for at in range(400)))
    clock.turn()
    assert len(clock.getDelayedCalls()) <= 2


def test_waiting_for_a_rate_is_no_failure(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent(), pacing=Pacing(rate=0.1))
    spool.commit(*(spool.make(HERE) for _ in range(20)))
    clock.pump([1.0] * 195)
    assert spool.results() == [Result.RELAYED] * 20
    [status] = scheduler.status()
    assert (status.failures, status.up_at, status.last_error) == (0, 0.0, None)


def test_no_connection_begins_that_may_not_take_a_message(schedule, spool, clock) -> None:
    line = Line(clock)
    agent = FakeAgent(line.act, concurrency=20, batch=1)
    schedule(agent, pacing=Pacing(first=20, rate=0.2))
    spool.commit(*(spool.make(HERE) for _ in range(10)))
    clock.pump([0.5] * 110)
    assert spool.results() == [Result.RELAYED] * 10
    assert len(agent.runs) == 10
    assert line.most == 1


def test_a_paced_destination_does_not_delay_another(schedule, spool, clock) -> None:
    schedule(FakeAgent(), rules=Rules(here=Pacing(rate=0.01)))
    spool.commit(*(spool.make(HERE) for _ in range(500)), *(spool.make(THERE) for _ in range(500)))
    clock.turn()
    there = [delivery for _, delivery, _ in spool.history if delivery.destination == THERE]
    assert len(there) == 500
    assert len(spool.history) == 501


def test_the_rate_is_remembered_when_a_destination_is_done(schedule, spool, clock) -> None:
    schedule(FakeAgent(), pacing=Pacing(rate=1 / 600))
    start = clock.seconds()
    for _ in range(3):
        spool.commit(spool.make(HERE))
        clock.pump([1.0] * 400)
    clock.pump([1.0] * 100)
    assert [round(at - start, -1) for at, _, _ in spool.history] == [0, 600, 1200]


def test_the_rate_for_all_is_shared_and_local_mail_is_not_counted(schedule, spool, clock) -> None:
    schedule(FakeAgent(), FakeAgent(name=MAILDIR), total_rate=10.0)
    start = clock.seconds()
    spool.commit(*(spool.make(relay(f"d{at % 30}.example")) for at in range(300)))
    spool.commit(*(spool.make(Destination(MAILDIR)) for _ in range(100)))
    clock.pump([0.1] * 150)
    local = [at for at, delivery, _ in spool.history if delivery.destination.agent == MAILDIR]
    relayed = [at - start for at, delivery, _ in spool.history if delivery.destination.agent != MAILDIR]
    assert len(local) == 100
    assert max(local) <= start + 0.1
    assert 140 <= len(relayed) <= 165
    clock.pump([0.1] * 170)
    assert len(spool.history) == 400


def test_what_a_run_gives_back_counts_nothing(schedule, spool, clock) -> None:
    async def act(run):
        delivery = await run.next()
        if len(agent.runs) == 1:
            run.release(delivery)
            run.fail(RELAYED.__class__(Result.DEFERRED, RELAYED.status, "not now"))
            return
        run.settle(delivery, [RELAYED])

    agent = FakeAgent(act)
    scheduler = schedule(agent, pacing=Pacing(rate=1 / 3600), first=60)
    spool.commit(spool.make(HERE))
    clock.turn()
    scheduler.wake([HERE])
    clock.pump([1.0] * 120)
    assert spool.results() == [Result.DEFERRED, Result.RELAYED]


def test_rules_are_asked_for_each_destination(schedule, spool, clock) -> None:
    line = Line(clock)
    schedule(FakeAgent(line.act, concurrency=20, batch=1), rules=Rules(here=Pacing(first=7), there=Pacing(most=1)))
    spool.commit(*(spool.make(HERE) for _ in range(50)))
    clock.turn()
    assert line.open == 7
    spool.commit(*(spool.make(THERE) for _ in range(50)))
    clock.turn()
    assert line.open == 8


def test_pacing_by_default_is_that_of_the_settings(schedule, spool, clock) -> None:
    rules = UniformRules(RetrySchedule(first=77, maximum=77, jitter=0), Pacing(first=3))
    line = Line(clock)
    schedule(FakeAgent(line.act, concurrency=20, batch=1), rules=rules)
    spool.commit(*(spool.make(HERE) for _ in range(50)))
    clock.turn()
    assert line.open == 3


def test_a_clock_that_is_set_back_does_not_stop_what_is_paced(schedule, spool, clock) -> None:
    schedule(FakeAgent(), pacing=Pacing(rate=1.0))
    spool.commit(*(spool.make(HERE) for _ in range(20)))
    clock.turn()
    clock.pump([1.0] * 5)
    before = len(spool.history)
    assert 0 < before < 20
    clock.rightNow -= 3600.0  # timers stay at their times, as those of a reactor do
    clock.pump([1.0] * 5)
    assert len(spool.history) == before
    spool.commit(spool.make(THERE))  # mail for anybody shows it
    clock.pump([1.0] * 30)
    assert len(spool.history) == 21
