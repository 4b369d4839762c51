"""`queue list`, `show` and `cat`, over a queue that a server has left or is working on."""

import json
import os

import pytest

from mailsuite.admin.queue import listing
from mailsuite.admin.queue.listing import _for_terminal, _part
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.options import MessageOptions
from mailsuite.mail.selection import EVERYTHING, QueueAction, Selection
from tests.admin.test_accounts import expect_refusal, expect_success

HOUR = 3600.0


def test_an_empty_queue_is_told_and_one_that_nobody_has_made(queue, tmp_path):
    expect_success(queue("queue", "list"), "The queue is empty.\n")
    expect_success(queue("queue", "list", "--json"), "[\n]\n")
    expect_success(queue("queue", "list", "--error", "x"), "Nothing is queued that fits.\n")
    queue.config.write_text(queue.config.read_text().replace('"data"', '"nowhere"'))
    for words in (("queue", "list"), ("queue", "show", "HOE1"), ("trace", "HOE1")):
        result = queue(*words)
        said = f"there is no queue in {tmp_path / 'nowhere' / 'spool'} (by {queue.config})"
        expect_refusal(result, said, status=os.EX_UNAVAILABLE)


def test_what_is_being_returned_is_shown_so(queue):
    queue_id = queue.put("a@held.example")
    queue.clock.run(queue.spool.manage(QueueAction.EXPIRE, EVERYTHING, by="root"))
    for words in (("queue", "show", queue_id), ("trace", queue_id)):
        said = queue(*words).output
        assert "a@held.example: being returned" in said
        assert "for expired:" not in said


def test_a_table_tells_each_recipient_how_it_stands_and_why(queue):
    late = queue.put("a@slow.test", "b@slow.test", age=2 * HOUR)
    held = queue.put("c@held.example")
    due = queue.put("d@slow.test", sender=None)
    queue.defer("slow.test")
    result = queue("queue", "list")
    expect_success(result)
    table = [line.split("  ") for line in result.stdout.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in table]
    assert rows[2] == [
        late,
        "2 hours",
        "80 octets",
        "bob@example.net",
        "a@slow.test",
        "waiting, in 10 minutes",
        "4.4.1 mx.test: no answer in time",
    ]
    assert rows[3] == ["b@slow.test", "waiting, in 10 minutes", "4.4.1 mx.test: no answer in time"]
    by_id = {row[0]: row for row in rows if row}
    assert by_id[held][4:] == ["c@held.example", "for customer"]
    assert by_id[due][3:] == ["<>", "d@slow.test", "due", "not tried yet; its destination: no answer in time"]
    assert rows[-1] == ["3 messages, 4 recipients, 240 octets."]


def test_conditions_choose_and_ids_can_be_piped(queue):
    old = queue.put("a@one.test", age=3 * HOUR)
    new = queue.put("b@two.test", "c@one.test")
    expect_success(queue("queue", "list", "--ids"), f"{old}\n{new}\n")
    expect_success(queue("queue", "list", "--ids", "--older", "2h"), f"{old}\n")
    expect_success(queue("queue", "list", "--ids", "--domain", "two.test"), f"{new}\n")
    result = queue("queue", "list", "--json", "--domain", "one.test", new)
    expect_success(result)
    [row] = json.loads(result.stdout)
    assert [one["address"] for one in row["recipients"]] == ["c@one.test"]
    assert row["queue_id"] == new


def test_json_has_all_there_is(queue):
    options = MessageOptions(require_tls=True, priority=3, envid="x")
    queue_id = queue.put("a@slow.test", envelope=Envelope(Address("bob", "example.net"), options=options))
    queue.defer("slow.test")
    [row] = json.loads(queue("queue", "list", "--json").stdout)
    assert {key: row[key] for key in ("queue_id", "size", "sender", "body", "options")} == {
        "queue_id": queue_id,
        "size": 80,
        "sender": "bob@example.net",
        "body": "7BIT",
        "options": {"require_tls": True, "priority": 3, "envid": "x"},
    }
    [recipient] = row["recipients"]
    assert recipient["due"] > recipient["last_attempt"] > row["arrived"] - 1
    assert (recipient["state"], recipient["attempts"], recipient["last_remote"]) == ("waiting", 1, "mx.test")


def test_a_limit_says_that_there_is_more(queue):
    ids = [queue.put("a@one.test") for _ in range(3)]
    result = queue("queue", "list", "--limit", "2")
    assert result.exit_code == 0
    assert "There is more than these 2: say --limit 0" in result.stderr
    assert "2 messages, 2 recipients" in result.stdout
    assert queue("queue", "list", "--limit", "3").stderr == ""
    expect_success(queue("queue", "list", "--limit", "0", "--ids"), "".join(f"{one}\n" for one in ids))
    assert len(json.loads(queue("queue", "list", "--limit", "1", "--json").stdout)) == 1


def test_what_programs_read_has_no_limit_unless_one_is_given(queue, monkeypatch):
    monkeypatch.setattr(listing, "_MOST_FOR_PEOPLE", 2)
    ids = [queue.put("a@one.test") for _ in range(3)]
    expect_success(queue("queue", "list", "--ids"), "".join(f"{one}\n" for one in ids))
    assert len(json.loads(queue("queue", "list", "--json").stdout)) == 3
    assert "There is more than these 2" in queue("queue", "list").stderr
    cut = queue("queue", "list", "--ids", "--limit", "1")
    assert (cut.stdout, "There is more than these 1" in cut.stderr) == (f"{ids[0]}\n", True)


def test_many_recipients_are_counted_not_listed(queue):
    queue.put(*(f"user{number}@one.test" for number in range(20)))
    result = queue("queue", "list")
    assert result.stdout.count("@one.test") == 5
    assert "... and 15 more" in result.stdout
    assert "1 message, 20 recipients" in result.stdout


def test_ids_that_are_not_queued_are_told_with_what_is(queue):
    queue_id = queue.put("a@one.test")
    result = queue("queue", "list", queue_id, "HOE9")
    assert result.exit_code == 1
    assert queue_id in result.stdout
    assert "HOE9 is not in the queue; `mailsuite trace HOE9` tells what has become of it" in result.stderr


def test_show_tells_all_of_one_message(queue):
    options = MessageOptions(require_tls=True)
    envelope = Envelope(Address("bob", "example.net"), submitter="bob", options=options)
    queue_id = queue.put("a@slow.test", envelope=envelope)
    queue.defer("slow.test", "4\x1b[2Jgo away")
    result = queue("queue", "show", queue_id.lower())
    expect_success(result)
    for text in (
        f"{queue_id}\n",
        "Sender: bob@example.net, handed in by bob.\n",
        "Content: 80 octets, 7BIT.\n",
        "Asked for: REQUIRETLS.\n",
        "  Subject: hello\n",
        "  Message-ID: <1@example.net>\n",
        "received  from <bob@example.net> of 192.0.2.7:4022 (mx.example.net), ESMTP, 80 octets\n",
        "to a@slow.test, goes to relay:slow.test: MX of the domain\n",
        "attempt   relay:slow.test, 1.5 s\n",
        "a@slow.test delayed 4.4.1 mx.test: 4?[2Jgo away; next at ",
    ):
        assert text in result.stdout, result.stdout
    [row] = json.loads(queue("queue", "show", queue_id, "--json").stdout)
    assert [step["kind"] for step in row["history"]] == ["received", "attempt"]
    assert row["header"]["Subject"] == "hello"


def test_cat_gives_the_octets_or_a_part_of_them(queue):
    body = b"x" * 900 + b"\r\n" + b"\xff\x00\r\n" * 900
    content = b"Subject: large\r\nX: y\r\n\r\n" + body
    queue_id = queue.put("a@one.test", content=content)
    assert queue("queue", "cat", queue_id).stdout_bytes == content
    assert queue("queue", "cat", "--header", queue_id).stdout_bytes == b"Subject: large\r\nX: y\r\n"
    assert queue("queue", "cat", "--body", queue_id).stdout_bytes == body
    expect_refusal(queue("queue", "cat", "HOE1"), "HOE1 is not in the queue")


def test_content_that_is_lost_is_a_sentence(queue, tmp_path):
    queue_id = queue.put("a@one.test", content=b"x" * 2000)
    queue.stop()
    (tmp_path / "data" / "spool" / "contents" / queue_id).unlink()
    expect_refusal(queue("queue", "cat", queue_id), "cannot be read")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("content", "header", "body"),
    [
        (b"A: b\r\n\r\nc\r\n\r\nd", b"A: b\r\n", b"c\r\n\r\nd"),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"A: b\r\n\r\n", b"A: b\r\n", b""),
        (b"", b"", b""),
    ],
)
def test_parts_do_not_depend_on_how_they_are_read(size, content, header, body):
    def chunks():
        return iter([content[at : at + size] for at in range(0, len(content), size)])

    assert b"".join(_part(chunks(), "header")) == header
    assert b"".join(_part(chunks(), "body")) == body
    assert b"".join(_part(chunks(), None)) == content


def test_a_terminal_gets_nothing_that_commands_it():
    shown = b"".join(_for_terminal(iter([b"a\x1b[2J\r\n\xc3", b"\xbc\x07\xff\tb\r\n"])))
    assert shown.decode() == "a?[2J\nü?\ufffd\tb\n"


def test_what_is_on_hold_is_listed_as_such(queue):
    queue_id = queue.put("a@one.test")
    queue.clock.run(queue.spool.manage(QueueAction.HOLD, Selection((queue_id,)), by="me"))
    expect_success(queue("queue", "list", "--ids", "--state", "on-hold"), f"{queue_id}\n")
    assert "operator  hold for a@one.test by me" in queue("queue", "show", queue_id).stdout
