"""`trace`: stories of messages, found by id, address and Message-ID; and the words of each step."""

import json

import click
import pytest

from mailsuite.admin.story import event_row, message_id, told
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.selection import QueueAction, Selection
from tests.admin.queue.conftest import queue as queue  # noqa: PLC0414 - a fixture
from tests.admin.test_accounts import expect_refusal, expect_success


@pytest.mark.parametrize("form", ["id", "small id", "sender", "recipient", "Message-ID", "without brackets", "star"])
def test_a_message_is_found_by_all_its_names(queue, form):
    queue_id = queue.put("a@slow.test")
    queue.put("b@other.test", sender=None, message_id="<2@example.net>")
    names = {
        "id": queue_id,
        "small id": queue_id.lower(),
        "sender": "bob@example.net",
        "recipient": "a@slow.test",
        "Message-ID": "<1@example.net>",
        "without brackets": "1@example.net",
        "star": "*@slow.test",
    }
    result = queue("trace", names[form])
    expect_success(result)
    assert result.stdout.startswith(f"{queue_id} <1@example.net>\n")
    assert result.stdout.endswith("Queued: a@slow.test, for relay:slow.test: due.\n\n")
    assert "b@other.test" not in result.stdout


def test_the_story_goes_on_after_the_message_has_gone(queue):
    queue_id = queue.put("a@slow.test")
    queue.defer("slow.test")
    queue.clock.run(queue.spool.manage(QueueAction.DELETE, Selection((queue_id,)), by="carol"))
    result = queue("trace", queue_id)
    expect_success(result)
    steps = [line[21:].split()[0] for line in result.stdout.splitlines()[1:-2]]
    assert steps == ["received", "to", "attempt", "a@slow.test", "operator"]
    assert "delete for a@slow.test by carol" in result.stdout
    assert "It has left the queue." in result.stdout
    [story] = json.loads(queue("trace", queue_id, "--json").stdout)
    assert story["queued"] is None
    assert [step["kind"] for step in story["history"]] == ["received", "attempt", "managed"]


def test_many_are_cut_to_the_latest_which_stand_last(queue):
    ids = [queue.put("a@slow.test") for _ in range(4)]
    result = queue("trace", "a@slow.test", "--limit", "2")
    assert result.exit_code == 0
    heads = [line.split()[0] for line in result.stdout.splitlines() if "<1@example.net>" in line]
    assert heads == ids[2:]
    assert "There are more: these are the latest 2; say --limit." in result.stderr


def test_what_is_not_on_record_is_told(queue):
    expect_refusal(queue("trace", "nobody@example.com"), "nothing is on record of nobody@example.com; name a queue id")


def lines(kind, detail, subject=None):
    return [click.unstyle(line)[31:] for line in told([Event(1e9, kind, subject, "HOE1", detail)])]


@pytest.mark.parametrize(
    ("kind", "subject", "detail", "expected"),
    [
        (
            EventKind.ATTEMPT,
            "relay:example.org",
            {
                "host": "mx.example.org",
                "address": "192.0.2.1",
                "port": 25,
                "tls": "TLSv1.3",
                "cipher": "X",
                "policy": "dane",
                "seconds": 0.84,
                "outcomes": [
                    {"recipient": "a@b", "result": "relayed", "status": "2.0.0", "text": "ok", "reply": "250 2.0.0 ok"}
                ],
            },
            ["mx.example.org [192.0.2.1] port 25, TLSv1.3 X (dane), 0.8 s", "a@b relayed 2.0.0 250 2.0.0 ok"],
        ),
        (
            EventKind.ATTEMPT,
            "relay:example.org",
            {"host": "h", "port": 25, "outcomes": [{"recipient": "a@b", "result": "failed", "reply": "550 no"}]},
            ["h port 25, in plaintext", "a@b failed 550 no"],
        ),
        (EventKind.ATTEMPT, "maildir:", {"outcomes": [{"nothing": 1}, "what"]}, ["maildir", "? ?"]),
        (EventKind.REPORTED, "a@b", {"report": "HOE2", "why": "delayed"}, ["<a@b> was told that it is late, in HOE2"]),
        (
            EventKind.REPORTED,
            "a@b",
            {"why": "dropped", "of": "failed", "text": "550 no"},
            ["the report to <a@b> on the failure was dropped: 550 no"],
        ),
        (
            EventKind.ROUTED,
            "relay:new.test",
            {"recipients": ["a@b"], "old": "relay:old.test", "new": "relay:new.test"},
            ["a@b goes to relay:new.test from now on, no more to relay:old.test"],
        ),
        (EventKind.REPORTED, "a@b", {"why": "other"}, ["<a@b> other, in a report"]),
        (EventKind.FAULT, None, {"traceback": "Traceback:\n  x\x07"}, None),
        (
            EventKind.RECEIVED,
            "",
            {"sender": "", "composed": "HOE1", "size": 5},
            ["from <>, composed here: a report on HOE1, 5 octets"],
        ),
        (EventKind.MANAGED, "hold", {"recipients": 3, "by": "me"}, ["hold for 3 recipients by me"]),
        (EventKind.MANAGED, "hold", {}, ["hold"]),
        (EventKind.TURN, "ship", {"text": "all was sent"}, ["ship all was sent"]),
    ],
)
def test_each_kind_of_step_has_its_words_whatever_is_missing(kind, subject, detail, expected):
    said = lines(kind, detail, subject)
    if expected is None:
        expected = ["a defect was met; what was under way is on hold", "Traceback:", "  x?"]
    assert said == expected


def test_rows_and_message_ids_come_from_the_details():
    received = Event(1e9, EventKind.RECEIVED, "a@b", "HOE1", {"message_id": "<x@y>"})
    assert event_row(received) == {"time": 1e9, "kind": "received", "subject": "a@b", "message_id": "<x@y>"}
    assert message_id([received]) == "<x@y>"
    assert message_id([]) is None
