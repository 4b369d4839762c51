"""Sending what waits for a provider: which destinations are meant, and when it is over."""

from twisted.internet.defer import Deferred

from mailsuite.delivery.push import Pusher
from mailsuite.delivery.routes import Route, Routes
from mailsuite.interfaces import SpoolError
from mailsuite.mail.route import RELAY, Destination, NextHop
from tests.delivery.fakes import DEAD, RELAYED, FakeAgent

HOST = "smart.example.net"
SMART = Destination(RELAY, f"us@[{HOST}]:587")
OTHER = Destination(RELAY, "[mx.example.org]:25")
ROUTES = Routes(
    [
        Route("example.org", (NextHop("mx.example.org"),)),
        Route("b.example", (NextHop("SMART.example.net"),)),
        Route("*", (NextHop(HOST, 587, tls="verified", username="us", password="secret"),)),
    ]
)


class FakeScheduler:
    def __init__(self, *busy, trouble=None):
        self.busy = set(busy)
        self.hurried = []
        self.trouble = trouble

    async def hurry(self, destinations):
        if self.trouble is not None:
            raise self.trouble
        self.hurried.append(list(destinations))
        return 4

    def is_busy(self, destination):
        return destination in self.busy


def push(scheduler, clock, **options):
    results = []
    Deferred.fromCoroutine(Pusher(ROUTES, scheduler, clock, **options).push(HOST)).addBoth(results.append)
    clock.advance(0)
    return results


def test_all_destinations_at_the_host_are_meant_and_no_others():
    assert ROUTES.destinations_at(HOST.upper()) == [Destination(RELAY, "[SMART.example.net]:25"), SMART]
    assert ROUTES.destinations_at("nowhere.example") == []


def test_it_waits_until_nothing_is_under_way(clock):
    scheduler = FakeScheduler(SMART, OTHER)
    results = push(scheduler, clock)
    clock.pump([1] * 20)
    assert results == []
    scheduler.busy.discard(SMART)
    clock.advance(1)
    assert results == [4]
    assert scheduler.hurried == [[Destination(RELAY, "[SMART.example.net]:25"), SMART]]


def test_its_patience_has_an_end(clock):
    results = push(FakeScheduler(SMART), clock, limit=10.0)
    clock.pump([1] * 9)
    assert results == []
    clock.pump([1] * 2)
    assert results == [4]
    assert clock.getDelayedCalls() == []


def test_a_spool_that_cannot_be_asked_pushes_nothing(clock):
    assert push(FakeScheduler(SMART, trouble=SpoolError("the disk is on fire")), clock) == [0]


def test_a_scheduler_is_busy_while_something_is_under_way_and_not_while_it_rests(clock, spool, schedule):
    gate, fails = [], []

    async def act(run):
        gate.append(Deferred())
        await gate[-1]
        if fails:
            run.fail(DEAD)
            return
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [RELAYED] * len(delivery.recipients))

    scheduler = schedule(FakeAgent(act))
    assert not scheduler.is_busy(SMART)
    spool.commit(spool.make(SMART))
    assert scheduler.is_busy(SMART)
    clock.turn()
    assert scheduler.is_busy(SMART)
    gate.pop().callback(None)
    clock.advance(1)
    clock.turn()
    assert not scheduler.is_busy(SMART)
    fails.append(True)
    spool.commit(spool.make(SMART))
    clock.turn()
    gate.pop().callback(None)
    clock.turn()
    assert not scheduler.is_busy(SMART)
