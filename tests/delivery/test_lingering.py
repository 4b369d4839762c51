"""Runs that wait for a moment whether more comes."""

from twisted.internet.task import Clock

from mailsuite.delivery.lingering import LINGER, Lingering
from mailsuite.delivery.pacing import Pacing
from tests.delivery.fakes import RELAYED, FakeAgent, relay

HERE = relay("here.example")


def ends_of(*waiters):
    ends = [[] for _ in waiters]
    for waiter, end in zip(waiters, ends, strict=True):
        waiter.addCallbacks(end.append, lambda failure, end=end: end.append(failure.type.__name__))
    return ends


def test_who_has_come_last_is_woken_first() -> None:
    lingering = Lingering(Clock())
    first, second, third = ends_of(*(lingering.wait() for _ in range(3)))
    lingering.wake(2)
    assert (first, second, third) == ([], [True], [True])
    assert len(lingering) == 1


def test_each_waits_for_a_moment_and_one_timer_serves_all() -> None:
    clock = Clock()
    lingering = Lingering(clock)
    [first] = ends_of(lingering.wait())
    clock.advance(LINGER / 2)
    [second] = ends_of(lingering.wait())
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(LINGER / 2)
    assert (first, second) == ([False], [])
    clock.advance(LINGER / 2)
    assert second == [False]
    assert not lingering
    assert not clock.getDelayedCalls()


def test_who_has_gone_is_not_woken() -> None:
    lingering = Lingering(Clock())
    stays, cancelled, sent_away = waiters = [lingering.wait() for _ in range(3)]
    ends = ends_of(*waiters)
    cancelled.cancel()
    sent_away.callback(False)
    assert len(lingering) == 1
    lingering.wake(1)
    assert ends == [[True], ["CancelledError"], [False]]
    assert stays.called


def test_the_end_is_for_all_at_once() -> None:
    clock = Clock()
    lingering = Lingering(clock)
    ends = ends_of(lingering.wait(), lingering.wait())
    lingering.end()
    assert ends == [[False]] * 2
    assert not clock.getDelayedCalls()


# ------------------------------------------------------------------------------------ with a scheduler


class LingeringAgent(FakeAgent):
    """Takes what there is, and stays as long as more is expected; `stays` counts how often."""

    def __init__(self, **options):
        super().__init__(self.stay, **options)
        self.stays = 0

    async def stay(self, run):
        while True:
            while (delivery := await run.next()) is not None:
                run.settle(delivery, [RELAYED])
            if not run.expects_more:
                return
            self.stays += 1
            if not await run.more():
                return


def fill(spool, clock, count):
    spool.commit(*(spool.make(HERE) for _ in range(count)))
    clock.turn()


def test_a_run_stays_where_mail_comes_fast_and_has_what_comes_next(schedule, spool, clock) -> None:
    agent = LingeringAgent(concurrency=5)
    scheduler = schedule(agent)
    fill(spool, clock, 40)
    assert len(agent.runs) == 1
    for _ in range(10):
        clock.advance(LINGER / 2)
        fill(spool, clock, 1)
    assert len(agent.runs) == 1
    assert len(spool.results()) == 50
    assert scheduler.is_at_rest  # nobody has to wait for the end of that
    clock.advance(LINGER)
    clock.turn()
    assert [status.runs for status in scheduler.status()] == [0]


def test_a_run_does_not_stay_where_mail_is_rare_or_is_to_be_slow(schedule, spool, clock) -> None:
    agent = LingeringAgent()
    schedule(agent)
    fill(spool, clock, 3)
    assert agent.stays == 0


def test_a_run_does_not_stay_where_a_rate_is_set(schedule, spool, clock) -> None:
    agent = LingeringAgent()
    schedule(agent, pacing=Pacing(rate=100))
    fill(spool, clock, 40)
    assert len(spool.results()) == 40
    assert agent.stays == 0


def test_what_waits_in_the_spool_is_claimed_by_a_run_that_stays(schedule, spool, clock) -> None:
    agent = LingeringAgent()
    scheduler = schedule(agent)
    fill(spool, clock, 40)
    spool.store(spool.make(HERE))
    scheduler.due([HERE])
    clock.turn()
    assert len(spool.results()) == 41
    assert len(agent.runs) == 1


def test_a_stop_waits_for_nobody_who_only_stays(schedule, spool, clock) -> None:
    scheduler = schedule(LingeringAgent())
    fill(spool, clock, 40)
    stopped = scheduler.stopService()
    clock.turn()
    assert stopped.called
    assert not spool.leased
