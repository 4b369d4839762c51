"""When it is tried again, and when no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.delivery.retry import RetrySchedule, span
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Message

MINUTE, HOUR, DAY = 60, 3600, 86400
PLAIN = RetrySchedule(first=5 * MINUTE, factor=2, maximum=3 * HOUR, jitter=0)


def message(*, arrived=0.0, null=False):
    return Message("Q1", Envelope(None if null else Address("a", "example.org")), 100, arrived)


def test_waits_double_up_to_the_maximum() -> None:
    waits = [PLAIN.interval(attempts, 0.5) / MINUTE for attempts in range(8)]
    assert waits == [5, 10, 20, 40, 80, 160, 180, 180]


def test_pauses_of_a_destination_begin_with_the_first_wait_and_end_at_their_own_maximum() -> None:
    assert [PLAIN.pause(failures, 0.5) / MINUTE for failures in range(1, 7)] == [5, 10, 20, 40, 60, 60]


def test_the_numbers_of_a_long_life_do_not_overflow() -> None:
    assert PLAIN.interval(10**9, 0.5) == 3 * HOUR


@given(attempts=st.integers(0, 100), chance=st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_fraction(attempts, chance) -> None:
    wait = RetrySchedule(jitter=0.25).interval(attempts, chance)
    middle = RetrySchedule(jitter=0).interval(attempts, chance)
    assert 0.75 * middle <= wait <= 1.25 * middle


def test_mail_is_given_up_after_its_lifetime_and_bounces_sooner() -> None:
    schedule = RetrySchedule()
    assert schedule.expires(message(arrived=100.0)) == 100 + 5 * DAY
    assert schedule.expires(message(arrived=100.0, null=True)) == 100 + 1 * DAY
    assert schedule.next_attempt(message(), 40, 5 * DAY - 1, 0.5) == 5 * DAY
    assert schedule.next_attempt(message(), 40, 5 * DAY, 0.5) is None


@given(
    attempts=st.integers(0, 60),
    now=st.floats(0, 5 * DAY, exclude_max=True),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_the_next_attempt_lies_ahead_and_not_past_the_end(attempts, now, chance) -> None:
    at = RetrySchedule().next_attempt(message(), attempts, now, chance)
    assert at is not None
    assert now < at <= 5 * DAY


@pytest.mark.parametrize(
    "numbers",
    [
        *({"first": 0}, {"first": 7200, "maximum": 3600}, {"factor": 0.5}, {"destination_maximum": 0}),
        *({"jitter": 1}, {"jitter": -0.1}),
    ],
)
def test_a_senseless_schedule_is_refused(numbers) -> None:
    with pytest.raises(ValueError, match="retry schedule"):
        RetrySchedule(**numbers)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5 * DAY, "5 days"), (DAY, "1 day"), (30 * HOUR, "30 hours"), (90 * MINUTE, "90 minutes"), (59, "59 seconds")],
)
def test_a_span_in_words(seconds, words) -> None:
    assert span(seconds) == words
