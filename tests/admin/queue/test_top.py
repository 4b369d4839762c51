"""The table of `queue top`, and its rows as JSON."""

import pytest

from mailsuite.admin.queue.top import load_row, table
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import DestinationLoad

NOW = 1e9
SLOW = DestinationLoad(
    Destination("relay", "slow.test"),
    12_345,
    20_000,
    5 << 20,
    NOW - 7200,
    NOW + 600,
    0,
    3,
    "try later",
    (1, 2, 0, 0, 0, 9),
)
HELD = DestinationLoad(Destination("hold", "ship.test"), 1, 1, 100, NOW - 60, NOW - 60, 0, 0, None, (1, 0, 0, 0, 0, 0))
PAUSED = DestinationLoad(Destination("maildir"), 2, 2, 100, NOW - 60, NOW - 60, 2, 0, None, (2, 0, 0, 0, 0, 0))
STATUS = {
    "relay:slow.test": {
        "runs": 3,
        "allowed": 5,
        "ready": 7,
        "failures": 2,
        "up_at": NOW + 3600,
        "rate": 1.25,
        "last_error": "4\x1b[2J",
    }
}


def cells(lines, number):
    """A row by the titles above it; columns begin where their rule does."""
    titles, rule = lines[0], lines[1]
    ends = [at for at, character in enumerate(rule + " ") if character == " " and rule[at - 1] == "-"]
    starts = [0, *(end + 2 for end in ends[:-1])]
    return {
        titles[start:end].strip(): lines[number][start:end].strip() for start, end in zip(starts, ends, strict=True)
    }


def test_a_wide_table_has_it_all():
    lines = table([SLOW, HELD, PAUSED], STATUS, NOW, 200)
    assert cells(lines, 2) == {
        "Destination": "relay:slow.test",
        "Messages": "12,345",
        "Recip.": "20,000",
        "Size": "5.0 MiB",
        "Held": "",
        "Active": "3",
        "5m": "1",
        "1h": "2",
        "6h": "",
        "1d": "",
        "5d": "",
        "older": "9",
        "Conn.": "3/5",
        "Rate": "1.2/s",
        "Oldest": "2 hours",
        "Next try": "rests, in 1 hour",
        "Last error": "4?[2J",
    }
    assert cells(lines, 3)["Next try"] == "when asked for"
    assert cells(lines, 4)["Next try"] == "on hold"
    assert cells(lines, 4)["Destination"] == "maildir"


def test_a_narrow_table_has_errors_below_it():
    lines = table([SLOW, HELD], None, NOW, 80)
    assert max(map(len, lines)) <= 80
    assert cells(lines, 2)["Conn."] == "-"
    assert "Size" not in lines[0]
    assert lines[-2:] == ["", "relay:slow.test: try later"]


@pytest.mark.parametrize("status", [None, {}, STATUS["relay:slow.test"]])
def test_json_has_the_same_keys_whether_a_server_runs_or_not(status):
    row = load_row(SLOW, status)
    assert row["ages"] == {"300": 1, "3600": 2, "21600": 0, "86400": 0, "432000": 0, "older": 9}
    server = {key: row[key] for key in ("runs", "allowed", "ready", "failures", "up_at", "rate", "last_error")}
    if status is None:
        assert set(server.values()) == {None}
    else:
        assert (server["runs"], server["failures"]) == (status.get("runs", 0), status.get("failures", 0))
