"""What the queries cost when a hundred thousand messages are held for a thousand domains, beside as many events."""

import json
import random
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsuite.mail.history import EventKind
from mailsuite.mail.route import Destination
from mailsuite.spool import changes, claims, completed, events, partials
from mailsuite.spool.changes import Hurry
from mailsuite.spool.claims import Claim
from tests.spool.conftest import crowded
from tests.spool.test_plans import effort, plan

DOMAINS = [Destination("hold", f"d{number}.example") for number in range(1000)]
ALONE = Destination("hold", "alone.example")
RELAY = Destination("relay", "example.org")

# 100,000 messages; half of them are for one customer alone, the others for a thousand domains in turn.
CROWD = """
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000)
    INSERT INTO messages (
        key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, arrived, size, in_file
    )
        SELECT n, 'Q' || n, 'joe', 'example.org', '7BIT', 0, NULL, n, 4, 0 FROM n;
    INSERT INTO recipients (key, message, local_part, domain, destination, due)
        SELECT key, key, 'a', 'x.example',
            CASE WHEN key <= 50000 THEN 'hold:alone.example' ELSE 'hold:d' || (key % 1000) || '.example' END, key
        FROM messages;
    INSERT INTO recipients (message, local_part, domain, destination, due)
        SELECT key, 'b', 'y.example', 'relay:example.org', 2000000 - key FROM messages WHERE key <= 20000;
    INSERT INTO events (time, kind, subject, queue_id, detail)
        SELECT key, CASE key % 3 WHEN 0 THEN 'turn' WHEN 1 THEN 'pull' ELSE 'etrn' END, 's' || (key % 50),
            CASE WHEN key % 10 = 0 THEN 'Q' || key END, '{}'
        FROM messages;
"""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from crowded(tmp_path_factory.mktemp("held"), CROWD)


def test_held_is_told_without_counting(db: sqlite3.Connection) -> None:
    found, steps = effort(db, lambda: claims.held(db.execute(claims.HELD).fetchall()))
    assert len(found) == 1001
    assert (found[0].domain, found[0].messages, found[0].octets, found[0].oldest) == ("alone.example", 50000, 200000, 1)
    assert {(one.messages, one.octets) for one in found[1:]} == {(50, 200)}
    assert steps < 1000  # hundreds: some fifty for each domain, none for a message


def test_claim_for_one_domain_looks_at_what_it_takes(db: sqlite3.Connection) -> None:
    taken, steps = effort(db, lambda: Claim([ALONE], 10, 1, 0.0).run(db))
    assert [one.message.queue_id for one in taken] == [f"Q{number}" for number in range(1, 11)]
    assert steps < 20


def test_claim_for_a_thousand_domains_looks_at_the_first_of_each_and_what_it_takes(db: sqlite3.Connection) -> None:
    everything = [*DOMAINS, ALONE]
    random.Random(1).shuffle(everything)
    taken, steps = effort(db, lambda: Claim(everything, 20, 1, 0.0).run(db))
    assert [one.message.queue_id for one in taken] == [f"Q{number}" for number in range(1, 21)]
    assert steps < 500
    taken, steps = effort(db, lambda: Claim(DOMAINS, 30, 1, 0.0).run(db))
    assert [one.message.queue_id for one in taken] == [f"Q{number}" for number in range(50001, 50031)]
    assert steps < 500


def test_claims_go_through_all_domains_in_the_order_of_arrival(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM recipients WHERE key > 52000")
    taken: list[int] = []
    while some := Claim(DOMAINS, 300, 1, 0.0).run(db):
        taken += [one.key for one in some]
    assert taken == list(range(50001, 52001))


def test_a_look_at_held_messages_costs_what_it_shows(db: sqlite3.Connection) -> None:
    rows, steps = effort(db, lambda: db.execute(claims.HELD_MESSAGES, (str(ALONE), 0.0, 40000.0, 10)).fetchall())
    assert [message.queue_id for message in claims.messages(rows)] == [f"Q{number}" for number in range(1, 11)]
    assert steps < 10


def test_hurrying_goes_in_bites(db: sqlite3.Connection) -> None:
    more, steps = effort(db, lambda: Hurry([ALONE, RELAY], 1000.0, 500).run(db))
    assert more
    assert steps < 1000
    assert db.execute("SELECT count(*) FROM recipients WHERE due = 1000 AND local_part = 'b'").fetchall() == [(500,)]


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"kind": EventKind.TURN},
        {"subject": "s3"},
        {"subject": "s3", "kind": EventKind.PULL},
        {"queue_id": "Q500"},
        {"queue_id": "Q600", "kind": EventKind.TURN, "subject": "s0"},
    ],
)
def test_history_walks_the_index_that_fits_and_stops(db: sqlite3.Connection, filters: dict[str, str]) -> None:
    wanted = {"kind": None, "subject": None, "queue_id": None, **filters}
    statement, arguments = events.history_query(**wanted, limit=10)  # type: ignore[arg-type]
    found, steps = effort(db, lambda: events.as_events(db.execute(statement, arguments).fetchall()))
    assert found
    assert [event.time for event in found] == sorted((event.time for event in found), reverse=True)
    assert steps < 10
    (step,) = plan(db, statement)
    assert re.match(r"(SEARCH|SCAN) events USING INDEX events_", step)


def test_old_events_go_without_a_look_at_the_others(db: sqlite3.Connection) -> None:
    removed, steps = effort(db, lambda: events.expire(db, 10000.0, 500))
    assert removed == 500
    assert steps < 500
    # One in ten is about a message that is still in the queue.
    assert db.execute("SELECT min(time) FROM events WHERE queue_id IS NULL").fetchall() == [(556,)]
    assert db.execute("SELECT count(*) FROM events WHERE time < 556").fetchall() == [(55,)]
    removed, steps = effort(db, lambda: events.expire(db, 556.0, 500))
    assert removed == 0
    assert steps < 50


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            claims.CHOOSE,
            r"SEARCH recipients USING (COVERING )?INDEX recipients_waiting \(destination=\? AND rank=\? AND due<\?\)",
        ),
        (claims.HEADS, r"SEARCH recipients USING (COVERING )?INDEX recipients_waiting \(destination=\? AND rank=\?\)"),
        (claims.HELD, r"SEARCH recipients USING COVERING INDEX recipients_held \(destination=\?.*\)"),
        (
            claims.HELD_MESSAGES,
            r"SEARCH recipients USING (COVERING )?INDEX recipients_waiting \(destination=\? AND rank=\? AND due>.*",
        ),
        (claims.COUNT_WAITING, r"SEARCH recipients USING (COVERING )?INDEX recipients_waiting \(destination=\?\)"),
        (
            changes.HURRY,
            r"SEARCH recipients USING (COVERING )?INDEX recipients_waiting \(destination=\? AND rank=\? AND due>\?\)",
        ),
        (events.EXPIRE, r"SEARCH events USING INDEX events_by_time \(time<\?\)"),
        (partials.EXPIRE, r"SEARCH partials USING INDEX partials_by_age \(kept<\?\)"),
        (completed.EXPIRE, r"SEARCH completed USING (COVERING )?INDEX completed_by_age \(time<\?\)"),
        (completed.RECALL, r"SEARCH completed USING INDEX sqlite_autoindex_completed_1 \(name=\?\)"),
        (completed.HEARD, r"SEARCH completed USING (COVERING )?INDEX sqlite_autoindex_completed_1 \(name=\?\)"),
    ],
)
def test_queries_walk_the_index_that_is_meant_and_never_sort(
    db: sqlite3.Connection, statement: str, expected: str
) -> None:
    found = plan(db, statement)
    assert any(re.fullmatch(expected, step) for step in found), found
    assert not any(re.match(r"SCAN (recipients|messages|events|partials|completed)", step) for step in found), found
    # What is shown of a page is put in order again; that is no more than the page.
    assert not any("TEMP B-TREE FOR ORDER" in step for step in found) or statement == claims.HELD_MESSAGES, found


def test_statement_takes_any_number_of_destinations(db: sqlite3.Connection) -> None:
    rows = db.execute(claims.HEADS, (json.dumps([str(one) for one in DOMAINS]),)).fetchall()
    assert sorted(due for _, due in rows) == list(range(50001, 51001))
