"""When the next pull comes: by interval, by the clock, after failures."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from mailsuite.delivery.pulls import PullPlan
from mailsuite.mail.timetable import Timetable

BERLIN = ZoneInfo("Europe/Berlin")
NOW = 1_700_000_000.0


def plan(**settings):
    return PullPlan("isp", "odmr.example.net", **settings)


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 810.0), (0.5, 900.0), (1.0, 990.0)])
def test_the_interval_is_left_to_chance_in_part(chance, wait):
    assert plan(interval=900.0, jitter=0.1).next_time(NOW, 0, chance) == pytest.approx(NOW + wait)


@pytest.mark.parametrize(
    ("failures", "wait"), [(1, 60.0), (2, 120.0), (3, 240.0), (6, 1920.0), (7, 3600.0), (10_000, 3600.0)]
)
def test_waits_after_failures_double_up_to_the_longest(failures, wait):
    assert plan(interval=900.0).next_time(NOW, failures, 0.5) == NOW + wait


def test_the_longest_wait_bounds_the_first_too_and_no_wait_is_none():
    assert plan(interval=900.0, retry_longest=30.0).next_time(NOW, 1, 0.5) == NOW + 30
    assert plan(interval=900.0, retry_first=0.0).next_time(NOW, 1, 0.5) == NOW + 0.05
    assert plan(interval=0.001).next_time(NOW, 0, 0.5) == NOW + 0.05


def test_times_by_the_clock_come_beside_the_interval_and_in_spite_of_failures():
    now = datetime(2026, 11, 22, 6, 0, tzinfo=BERLIN).timestamp()
    timed = {"times": (Timetable.parse("30 6 * * *"), Timetable.parse("0 18 * * *"))}
    assert plan(**timed).next_time(now, 0, 0.5, BERLIN) == now + 1800
    assert plan(**timed, interval=900.0).next_time(now, 0, 0.5, BERLIN) == now + 900
    assert plan(**timed, interval=3600.0).next_time(now, 0, 0.5, BERLIN) == now + 1800
    assert plan(**timed).next_time(now, 7, 0.5, BERLIN) == now + 1800
    assert plan(**timed).next_time(now, 1, 0.5, BERLIN) == now + 60


def test_what_comes_by_command_alone_has_no_next_time():
    assert plan().next_time(NOW, 0, 0.5) is None
    assert plan().next_time(NOW, 3, 0.5) is None
    # One at the start is tried until it has succeeded.
    assert plan(at_start=True).next_time(NOW, 1, 0.5) == NOW + 60
    assert plan(at_start=True).next_time(NOW, 0, 0.5) is None


def test_a_password_is_not_shown():
    assert "secret" not in repr(plan(username="ship", password="secret"))
