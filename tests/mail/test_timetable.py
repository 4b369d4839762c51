"""Times as cron writes them: what is read, and when it comes next, across the days on which clocks are changed."""

import os
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.timetable import Timetable

UTC = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")  # forward on 2026-03-29 at 2:00, back on 2026-10-25 at 3:00
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # half an hour: back on 2026-04-05 at 2:00, forward on 2026-10-04
HAVANA = ZoneInfo("America/Havana")  # forward at midnight: 2026-03-08


def after(text, when, zone=UTC, count=1):
    """The next times as the clocks show them."""
    table = Timetable.parse(text)
    now = datetime.fromisoformat(when).replace(tzinfo=zone).timestamp()
    shown = []
    for _ in range(count):
        now = table.next_after(now, zone)
        shown.append(datetime.fromtimestamp(now, zone).strftime("%Y-%m-%d %H:%M"))
    return shown if count > 1 else shown[0]


@pytest.mark.parametrize(
    ("text", "when", "expected"),
    [
        ("30 6 * * 1-5", "2026-11-20T06:29:59", "2026-11-20 06:30"),  # a Friday
        ("30 6 * * 1-5", "2026-11-20T06:30", "2026-11-23 06:30"),
        ("* * * * *", "2026-01-31T23:59:30", "2026-02-01 00:00"),
        ("*/20 8-18/5 * * *", "2026-01-01T08:40", "2026-01-01 13:00"),
        ("0,30 4 * jan,Dec mon", "2026-02-01T00:00", "2026-12-07 04:00"),
        ("0 0 * * 7", "2026-11-20T00:00", "2026-11-22 00:00"),
        ("0 0 * * fri-sun", "2026-11-22T12:00", "2026-11-27 00:00"),
        ("0 0 * * 5-7", "2026-11-21T12:00", "2026-11-22 00:00"),
        ("0 0 29 2 *", "2026-11-22T00:00", "2028-02-29 00:00"),
        ("0 0 31 * *", "2026-04-01T00:00", "2026-05-31 00:00"),
        ("0 0 31 2 mon", "2026-11-22T00:00", "2027-02-01 00:00"),
        # Day and weekday both given: one of them is enough. With a star on one side both must fit.
        ("0 0 13 * fri", "2026-11-01T00:00", "2026-11-06 00:00"),
        ("0 0 13 * fri", "2026-11-07T00:00", "2026-11-13 00:00"),
        ("0 0 */2 * sat", "2026-11-08T00:00", "2026-11-21 00:00"),
    ],
)
def test_next_time(text, when, expected):
    assert after(text, when) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it has 0 fields, not five"),
        ("* * * *", "it has 4 fields, not five"),
        ("60 * * * *", "minute '60': it goes from 0 to 59"),
        ("* 24 * * *", "hour '24': it goes from 0 to 23"),
        ("* * 0 * *", "day '0': it goes from 1 to 31"),
        ("* * * foo *", "month 'foo': it goes from 1 to 12, or jan, feb"),
        ("* * * * 8", "weekday '8': it goes from 0 to 7, or sun, mon"),
        ("* * * mon *", "month 'mon'"),
        ("5-1 * * * *", "minute '5-1': it holds nothing"),
        ("*/0 * * * *", "minute '\\*/0': it holds nothing"),
        ("5/10 * * * *", 'a step needs a range; write "5-59/10"'),
        ("1, * * * *", "minute '1,': write"),
        ("-1 * * * *", "minute '-1': write"),
        ("@daily", "it has 1 fields"),
        ("0 0 30 2 *", "no such date exists"),
        ("0 0 31 4,6,9,11 *", "no such date exists"),
        ("99999999999999999999 * * * *", "it goes from 0 to 59"),
        ("٣ * * * *", "it goes from 0 to 59"),
    ],
)
def test_bad_times_are_told_in_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        Timetable.parse(text)
    assert "\n" not in str(caught.value)


def test_clocks_put_forward():
    # 2:30 is left out on that day: it comes at 3:30, and the next day again at its time.
    assert after("30 2 * * *", "2026-03-28T12:00", BERLIN, 2) == ["2026-03-29 03:30", "2026-03-30 02:30"]
    assert after("*/30 * * * *", "2026-03-29T01:00", BERLIN, 3) == [
        "2026-03-29 01:30",
        "2026-03-29 03:00",
        "2026-03-29 03:30",
    ]


def test_clocks_put_back():
    # 2:30 comes twice: what is to happen once a day happens once, what is to happen every half hour goes on.
    assert after("30 2 * * *", "2026-10-24T12:00", BERLIN, 2) == ["2026-10-25 02:30", "2026-10-26 02:30"]
    assert after("*/30 * * * *", "2026-10-25T01:30", BERLIN, 5) == [
        "2026-10-25 02:00",
        "2026-10-25 02:30",
        "2026-10-25 02:00",
        "2026-10-25 02:30",
        "2026-10-25 03:00",
    ]
    assert after("45 1 * * *", "2026-04-04T12:00", LORD_HOWE, 2) == ["2026-04-05 01:45", "2026-04-06 01:45"]


def test_clocks_put_forward_over_midnight():
    assert after("15 0 * * *", "2026-03-07T12:00", HAVANA, 2) == ["2026-03-08 01:15", "2026-03-09 00:15"]
    assert after("15 * 8 3 *", "2026-03-07T12:00", HAVANA) == "2026-03-08 01:15"


@pytest.fixture
def in_berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    assert os.environ.get("TZ") != "Europe/Berlin"
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize("text", ["30 2 * * *", "*/15 * * * *", "0 12 * * *"])
@pytest.mark.parametrize("when", ["2026-03-28T12:00", "2026-10-24T12:00", "2026-10-25T02:20"])
def test_the_machines_own_zone_is_the_same_as_one_that_is_named(text, when):
    table = Timetable.parse(text)
    own = named = datetime.fromisoformat(when).replace(tzinfo=BERLIN).timestamp()
    for _ in range(30):
        own, named = table.next_after(own), table.next_after(named, BERLIN)
        assert own == named


fields = st.tuples(
    st.sampled_from(["*", "*/7", "0", "59", "10-20/3", "1,2"]),
    st.sampled_from(["*", "*/5", "0", "2", "22-23"]),
    st.sampled_from(["*", "1", "29", "*/3"]),
    st.sampled_from(["*", "3", "oct", "jan-jun"]),
    st.sampled_from(["*", "0", "mon-fri"]),
)


@given(
    fields,
    st.floats(1_700_000_000, 1_900_000_000),
    st.sampled_from([UTC, BERLIN, LORD_HOWE, HAVANA]),
)
def test_the_next_time_is_later_whole_and_nothing_fits_in_between(words, now, zone):
    table = Timetable.parse(" ".join(words))
    found = table.next_after(now, zone)
    assert found > now
    assert found % 60 == 0
    # Whatever lies halfway has the same next time.
    assert table.next_after(now + (found - now) / 2, zone) == found
