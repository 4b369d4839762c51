"""When it is tried again, and when no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.delivery.retry import RetrySchedule, deadline_of, is_greylisting, span
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.options import PLAIN as NOTHING
from mailsuite.mail.options import ByMode, MessageOptions
from mailsuite.mail.queue import Message, Outcome
from mailsuite.mail.reply import Reply

MINUTE, HOUR, DAY = 60, 3600, 86400
PLAIN = RetrySchedule(first=5 * MINUTE, factor=2, maximum=3 * HOUR, jitter=0)


def message(*, arrived=0.0, null=False, options=NOTHING):
    return Message("Q1", Envelope(None if null else Address("a", "example.org"), options=options), 100, arrived)


def test_waits_double_up_to_the_maximum() -> None:
    waits = [PLAIN.interval(attempts, 0.5) / MINUTE for attempts in range(8)]
    assert waits == [5, 10, 20, 40, 80, 160, 180, 180]


def test_a_list_of_waits_takes_the_place_of_doubling_and_its_last_one_is_repeated() -> None:
    schedule = RetrySchedule(waits=(60, 600, 3600), jitter=0)
    assert [schedule.interval(attempts, 0.5) for attempts in range(5)] == [60, 600, 3600, 3600, 3600]
    assert schedule.shortest == 60


def test_an_empty_list_of_waits_is_none_at_all() -> None:
    schedule = RetrySchedule(waits=(), first=60, jitter=0)
    assert [schedule.interval(attempts, 0.5) for attempts in range(3)] == [60, 120, 240]


def test_no_wait_is_so_short_that_it_were_a_loop() -> None:
    schedule = RetrySchedule(waits=(0.0,), greylisted=0.0, jitter=0.5)
    assert schedule.interval(0, 0.0) == schedule.interval(7, 0.0) == schedule.pause(1, 0.0) == 1
    assert schedule.interval(0, 0.0, greylisted=True) == 1
    assert schedule.next_attempt(message(options=MessageOptions(priority=9)), 0, 100.0, 0.0) == 101


def test_the_wait_after_greylisting_comes_before_the_others() -> None:
    waits = [PLAIN.interval(attempts, 0.5, greylisted=True) for attempts in range(4)]
    assert waits == [90, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE]
    assert RetrySchedule(waits=(30, 60), jitter=0).interval(0, 0.5, greylisted=True) == 30


@pytest.mark.parametrize(("code", "expected"), [(450, True), (451, True), (452, False), (421, False), (550, False)])
def test_what_may_be_greylisting_is_told_by_the_reply(code, expected) -> None:
    assert is_greylisting(Outcome.of_reply(Reply(code, None, ("come again",)))) is expected


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


def test_what_must_be_there_by_some_time_or_come_back_expires_then() -> None:
    by = MessageOptions(deliver_by=DAY, by_mode=ByMode.RETURN)
    assert deadline_of(message(options=by)) == DAY
    assert PLAIN.expires(message(options=by)) == DAY
    assert PLAIN.next_attempt(message(options=by), 20, DAY - 60, 0.5) == DAY
    assert PLAIN.next_attempt(message(options=by), 20, DAY, 0.5) is None
    notify = MessageOptions(deliver_by=DAY, by_mode=ByMode.NOTIFY)
    assert deadline_of(message(options=notify)) is None
    assert PLAIN.expires(message(options=notify)) == 5 * DAY


def test_a_deadline_does_not_prolong_a_life() -> None:
    by = MessageOptions(deliver_by=9 * DAY, by_mode=ByMode.RETURN)
    assert PLAIN.expires(message(options=by)) == 5 * DAY


def test_what_is_released_later_lives_from_its_release() -> None:
    later = MessageOptions(hold_until=20 * DAY)
    assert PLAIN.expires(message(options=later)) == 25 * DAY
    assert PLAIN.expires(message(arrived=30 * DAY, options=later)) == 35 * DAY


@pytest.mark.parametrize(("priority", "wait"), [(-9, 300), (0, 300), (1, 150), (9, 150)])
def test_what_is_urgent_waits_half_as_long(priority, wait) -> None:
    assert PLAIN.next_attempt(message(options=MessageOptions(priority=priority)), 0, 1000.0, 0.5) == 1000 + wait


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
        *({"jitter": 1}, {"jitter": -0.1}, {"waits": (60, -1)}, {"greylisted": -1}, {"delay_report": -1}),
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


def test_there_is_an_attempt_when_the_sender_wants_to_be_told() -> None:
    # RFC 2852 section 4.1.3, mode N: tried on, and told.
    one = message(options=MessageOptions(deliver_by=400.0, by_mode=ByMode.NOTIFY))
    schedule = RetrySchedule(first=300.0, jitter=0.0)
    assert schedule.next_attempt(one, 0, 0.0, 0.5) == 300.0
    assert schedule.next_attempt(one, 1, 300.0, 0.5) == 400.0
    assert schedule.next_attempt(one, 2, 400.0, 0.5) == 1600.0
    assert schedule.late_at(one) == 400.0
