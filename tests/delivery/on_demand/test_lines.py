"""What the log says of on-demand mail relay."""

import pytest
from twisted.logger import capturedLogs

from mailsuite.delivery.on_demand.lines import in_words
from mailsuite.mail.history import EventKind
from tests.delivery.on_demand.conftest import SHIP

SENT = {"messages": 1, "octets": 5007, "seconds": 0.42, "deferred": 0, "failed": 0, "address": "192.0.2.1"}


@pytest.mark.parametrize(
    ("kind", "detail", "line"),
    [
        (
            EventKind.TURN,
            SENT | {"text": "all was sent"},
            "turn of home from 192.0.2.1: 1 message, 5007 octets in 0.4 s, all was sent",
        ),
        (
            EventKind.TURN,
            SENT | {"messages": 0, "deferred": 2, "address": "", "text": "the line broke", "times": 3},
            "turn of home from a local socket: 0 messages, 5007 octets in 0.4 s, 2 deferred, the line broke (3 times)",
        ),
        (EventKind.SEEN, {"address": "192.0.2.1", "text": "no mail"}, "turn of home from 192.0.2.1: no mail"),
        (
            EventKind.ETRN,
            {"node": "@home.example", "waiting": 2, "address": "192.0.2.1"},
            "etrn of home for @home.example from 192.0.2.1: 2 messages pending, started",
        ),
        (
            EventKind.ETRN,
            SENT | {"node": "home.example", "text": "the queue was sent"},
            (
                "queue of home for home.example, started from 192.0.2.1: 1 message, 5007 octets in 0.4 s, "
                "the queue was sent"
            ),
        ),
        (
            EventKind.WARNED,
            {"messages": 3, "until": 1.0, "text": "a@home.example was told that it expires"},
            "held for home: 3 messages near their time, a@home.example was told that it expires",
        ),
        (EventKind.PULL, {"text": "there is no mail"}, "pull of home: there is no mail"),
    ],
)
def test_events_are_sentences(kind, detail, line):
    assert in_words(kind, "home", detail) == line


def test_a_customer_that_asks_for_nothing_all_day_is_logged_each_time_and_written_down_once_an_hour(provider):
    with capturedLogs() as events:
        for _ in range(8):
            assert provider.refused(identity=SHIP).code == 453
            provider.clock.advance(900)
    assert [event["line"] for event in events if "line" in event] == ["turn of ship from 192.0.2.7: no mail"] * 8
    seen = provider.events(EventKind.SEEN)
    assert [(one.subject, one.detail["text"], one.detail["messages"]) for one in seen] == [("ship", "no mail", 0)] * 2
    assert provider.events() == []
