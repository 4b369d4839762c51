"""Thousands of destinations with something due, or that fail, at the same time: what that costs at once is bounded."""

from twisted.internet.defer import Deferred

from mailsuite.delivery import active, looks, scheduler, settlements
from mailsuite.delivery.looks import longest_due
from mailsuite.delivery.scheduler import Scheduler
from mailsuite.mail.queue import Result
from mailsuite.mail.route import HOLD, Destination
from tests.delivery.fakes import DEAD, RELAYED, FakeAgent, FakeSpool, relay


def test_those_that_have_waited_for_longest_are_due_first() -> None:
    waiting = [(relay(f"d{at}.example"), float(at)) for at in (3, 1, 20, 2, 0, 15)]
    due, earliest, are_all = longest_due(waiting, 10.0, 2, lambda destination: destination.name == "d0.example")
    assert due == [relay("d1.example"), relay("d2.example")]
    assert (earliest, are_all) == (15.0, False)
    due, _, are_all = longest_due(waiting, 10.0, 4, lambda _destination: False)
    assert due == [relay(f"d{at}.example") for at in (3, 1, 2, 0)]
    assert are_all


def test_not_all_that_is_due_is_looked_at_at_once_but_all_of_it_is_in_the_end(
    schedule, spool, clock, monkeypatch
) -> None:
    monkeypatch.setattr(scheduler, "_MOST_AT_ONCE", 10)
    monkeypatch.setattr(scheduler, "_MOST_IN_A_TURN", 4)
    now = clock.seconds()
    for at in range(25):
        spool.store(spool.make(relay(f"d{at}.example")), due=now - at)
    spool.store(spool.make(Destination(HOLD, "held.example")), due=now - 100)
    begun = []

    async def act(run):
        begun.append(run.destination.name)
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [RELAYED])

    schedule(FakeAgent(act))
    assert sorted(begun) == sorted(f"d{at}.example" for at in range(15, 25))
    clock.pump([1.0] * 20)
    assert sorted(begun) == sorted(f"d{at}.example" for at in range(25))


def test_a_turn_of_the_reactor_finds_no_more_than_some_of_them(schedule, spool, clock, monkeypatch) -> None:
    monkeypatch.setattr(scheduler, "_MOST_IN_A_TURN", 4)
    one = schedule(FakeAgent(), first=60)
    spool.store(*(spool.make(relay(f"d{at}.example")) for at in range(10)))
    counts = [0]

    def note():
        counts.append(one.queue_count)
        if counts[-1] < 10 and len(counts) < 1000:
            clock.callLater(0, note)

    clock.callLater(300.01, note)
    clock.advance(301.0)  # it looks for what it was not told of
    clock.turn()
    assert [count for count in dict.fromkeys(counts) if count] == [4, 8, 10]
    assert len(spool.history) == 10


class SlowSpool(FakeSpool):
    """Each call takes a moment; notes how many claims there are at once, and how much is under lease."""

    def __init__(self, clock):
        super().__init__(clock)
        self.claims = 0
        self.most_claims = 0
        self.most_leased = 0

    async def _moment(self, seconds):
        moment = Deferred()
        self.clock.callLater(seconds, moment.callback, None)
        await moment

    async def claim(self, destination, limit):
        self.claims += 1
        self.most_claims = max(self.most_claims, self.claims)
        await self._moment(0.01)
        self.claims -= 1
        claimed = await super().claim(destination, min(limit, 2))
        self.most_leased = max(self.most_leased, len(self.leased))
        return claimed

    async def settle(self, settlements):
        await self._moment(0.1)
        await super().settle(settlements)


def test_destinations_that_fail_together_are_deferred_a_few_at_a_time(router, clock, monkeypatch) -> None:
    # Their mail: 150 destinations with 6 messages each, claimed by two; 20 settlements may wait.
    monkeypatch.setattr(active, "_CLAIM_LIMIT", 2)
    monkeypatch.setattr(settlements, "_MAX_BEHIND", 20)
    monkeypatch.setattr(looks, "_MOST", 5)
    spool = SlowSpool(clock)
    for at in range(150):
        spool.store(*(spool.make(relay(f"d{at}.example")) for _ in range(6)))
    waits = []

    async def act(run):
        waits.append(Deferred())
        await waits[-1]
        run.fail(DEAD)

    one = Scheduler(spool, [FakeAgent(act)], router, clock, hostname="mx.here.example", chance=lambda: 0.5)
    one.startService()
    clock.pump([0.01] * 100)
    assert len(waits) == 150
    spool.most_claims = spool.most_leased = 0
    for wait in waits:
        wait.callback(None)
    under_lease = len(spool.leased)
    clock.pump([0.02] * 1500)
    assert len(spool.history) == 900
    assert {outcome.result for _, _, outcome in spool.history} == {Result.DEFERRED}
    assert spool.most_claims <= 5
    assert spool.most_leased <= under_lease + 5 * 2
    assert not spool.leased
    one.stopService()
    clock.pump([1.0] * 70)
