"""Concurrency that follows how it goes, and rates that are kept without timers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.delivery.pacing import Bucket, Concurrency, Meter, Pacing, Throttle, UniformRules
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.mail.route import Destination


@pytest.mark.parametrize("numbers", [{"first": 0}, {"most": 0}, {"rate": 0.0}])
def test_a_senseless_pacing_is_refused(numbers) -> None:
    with pytest.raises(ValueError, match="at least one connection"):
        Pacing(**numbers)


def test_uniform_rules_are_the_same_for_all() -> None:
    schedule, pace = RetrySchedule(first=60), Pacing(most=3)
    rules = UniformRules(schedule, pace)
    assert rules.retry(Destination("relay", "a.example")) is rules.retry(Destination("pipe")) is schedule
    assert rules.pacing(Destination("relay", "a.example")) is pace


def test_connections_begin_with_few_and_grow_with_each_message_up_to_the_most() -> None:
    concurrency = Concurrency(Pacing(first=2, most=5), 10)
    grown = [concurrency.allowed]
    for _ in range(6):
        concurrency.served()
        grown.append(concurrency.allowed)
    assert grown == [2, 3, 4, 5, 5, 5, 5]


def test_the_agent_has_a_say_in_how_many_there_are() -> None:
    concurrency = Concurrency(Pacing(first=5, most=20), 3)
    assert concurrency.allowed == 3
    assert not concurrency.served()


def test_after_a_refusal_there_is_one_less_and_growth_is_slow() -> None:
    concurrency = Concurrency(Pacing(first=10, most=20), 20)
    concurrency.refused(10)
    assert concurrency.allowed == 9
    assert [concurrency.served() for _ in range(100)] == [False] * 99 + [True]
    assert concurrency.allowed == 10


def test_there_is_always_one() -> None:
    concurrency = Concurrency(Pacing(first=1), 20)
    concurrency.refused(1)
    assert concurrency.allowed == 1
    concurrency.lost()
    assert concurrency.allowed == 1


def test_what_could_not_be_reached_is_tried_with_one() -> None:
    concurrency = Concurrency(Pacing(first=5), 20)
    concurrency.served()
    concurrency.lost()
    assert concurrency.allowed == 1


def test_a_bucket_holds_what_a_second_brings() -> None:
    bucket = Bucket(10.0, 100.0)
    assert bucket.available(100.0) == 10
    bucket.take(10)
    assert bucket.available(100.0) == 0
    assert bucket.ready_at(100.0) == pytest.approx(100.5)
    assert bucket.available(100.5) == 5
    assert bucket.available(1000.0) == 10
    assert bucket.is_full(1000.0)


def test_a_slow_bucket_holds_one_message() -> None:
    bucket = Bucket(1 / 60, 0.0)
    assert bucket.available(0.0) == 1
    bucket.take(1)
    assert bucket.ready_at(20.0) == pytest.approx(60.0)
    assert not bucket.is_full(59.0)
    assert (bucket.available(59.0), bucket.available(60.0)) == (0, 1)


def test_what_is_given_back_to_a_bucket_is_there_again() -> None:
    bucket = Bucket(1.0, 0.0)
    bucket.take(1)
    bucket.take(-1)
    assert bucket.available(0.0) == 1


def test_a_clock_that_is_set_back_adds_nothing_and_does_not_stop_a_bucket() -> None:
    bucket = Bucket(1.0, 10_000.0)
    bucket.take(1)
    assert bucket.available(10.0) == 0
    assert bucket.ready_at(10.0) == pytest.approx(11.0)
    assert bucket.available(11.0) == 1


@given(
    rate=st.floats(0.01, 1000),
    steps=st.lists(st.tuples(st.floats(-5, 20), st.integers(1, 50)), max_size=60),
)
def test_however_it_is_asked_a_bucket_never_gives_more_than_its_rate_and_what_it_holds(rate, steps) -> None:
    now = forward = 0.0
    bucket, taken = Bucket(rate, now), 0
    for step, wanted in steps:
        now += step
        forward += max(step, 0.0)
        count = min(wanted, bucket.available(now))
        bucket.take(count)
        taken += count
    assert taken <= rate * forward + max(1.0, rate) + 0.01


def test_a_throttle_asks_all_of_its_buckets() -> None:
    own, total = Bucket(10.0, 0.0), Bucket(1.0, 0.0)
    throttle = Throttle([own, total])
    assert throttle.available(0.0) == 1
    throttle.take(1)
    assert (own.available(0.0), total.available(0.0)) == (9, 0)
    assert throttle.ready_at(0.0) == pytest.approx(1.0)


def test_a_meter_tells_the_rate_of_just_now() -> None:
    meter = Meter()
    assert meter.rate(1000.0) == 0
    for second in range(1000, 1030):
        for _ in range(5):
            meter.count(float(second))
    assert 4 <= meter.rate(1030.0) <= 6
    assert meter.rate(1060.0) == 0


def test_a_meter_survives_a_clock_that_is_set_back() -> None:
    meter = Meter()
    meter.count(1000.0)
    meter.count(10.0)
    assert 0 < meter.rate(11.0) <= 0.2
