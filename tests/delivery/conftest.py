"""A clock, a spool, and a scheduler over them."""

import random

import pytest
from twisted.internet.task import Clock

from mailsuite.delivery.bounces import ReportSettings
from mailsuite.delivery.pacing import Pacing, UniformRules
from mailsuite.delivery.ready import Bounds
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.scheduler import Scheduler, SchedulerSettings
from tests.delivery.fakes import FakeRouter, FakeSpool

START = 1_700_000_000.0


class TurningClock(Clock):
    """A clock whose `turn` runs what is due now, and what that calls for, again and again."""

    def turn(self, turns=50):
        for _ in range(turns):
            self.advance(0)


@pytest.fixture
def clock():
    clock = TurningClock()
    clock.advance(START)
    return clock


@pytest.fixture
def spool(clock):
    return FakeSpool(clock)


@pytest.fixture
def router():
    return FakeRouter()


@pytest.fixture
def schedule(clock, spool, router):
    """Start a scheduler with these agents; it is stopped at the end. Reports are not gathered, delays not reported."""
    started = []

    def schedule(*agents, jitter=0.0, grace=30.0, bounds=None, pacing=None, rules=None, total_rate=None, **retry):
        when = RetrySchedule(jitter=jitter, **{"delay_report": 0.0, **retry})
        settings = SchedulerSettings(
            when,
            bounds or Bounds(),
            grace,
            rules or UniformRules(when, pacing or Pacing()),
            total_rate,
            ReportSettings(gather=0.0),
        )
        scheduler = Scheduler(
            spool, agents, router, clock, hostname="mx.here.example", chance=random.Random(7).random, settings=settings
        )
        scheduler.startService()
        started.append(scheduler)
        clock.turn()
        return scheduler

    yield schedule
    for scheduler in started:
        if scheduler.running:
            spool.failing = None
            stopped = scheduler.stopService()
            clock.advance(1)
            clock.pump([1.0] * 70)
            assert stopped.called
