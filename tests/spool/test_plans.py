"""What the queries cost when a hundred thousand recipients wait for a destination that is dead."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from mailsuite.mail.content import MemoryContent
from mailsuite.mail.queue import Delivery, Settlement
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import EVERYTHING, QueueAction, Selection
from mailsuite.spool import changes, claims, journal, looking, managing
from mailsuite.spool.changes import Judgement, Release, Settling
from mailsuite.spool.choosing import conditions
from mailsuite.spool.claims import Claim, Claimed
from tests.contracts.spool.kit import DELIVERED, OTHER, RELAY, deferred
from tests.spool.conftest import crowded

T = TypeVar("T")

NOW = 1_000_000.0
OWNER = 1
DEAD = Destination("relay", "dead.example")

# 50,000 messages for the dead, each with one recipient who is due and one who is not yet; two messages for others.
CROWD = """
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 50002)
    INSERT INTO messages (
        key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, arrived, size, in_file
    )
        SELECT n, 'Q' || n, 'joe', 'example.org', '7BIT', 0, NULL, n, 4, 0 FROM n;
    INSERT INTO contents SELECT key, x'61626364' FROM messages;
    INSERT INTO recipients (key, message, local_part, domain, destination, due)
        SELECT key, key, 'a', 'dead.example', 'relay:dead.example', key FROM messages WHERE key <= 50000;
    INSERT INTO recipients (key, message, local_part, domain, destination, due)
        SELECT key + 100000, key, 'b', 'dead.example', 'relay:dead.example', 2000000 - key
        FROM messages WHERE key <= 50000;
    INSERT INTO recipients (key, message, local_part, domain, destination, due) VALUES
        (200001, 50001, 'c', 'example.org', 'relay:example.org', 50001),
        (200002, 50002, 'd', 'example.org', 'relay:[192.0.2.1]:25', 50002);
    INSERT INTO journal SELECT queue_id, key, arrived, 'received', 'joe@example.org', '{"sender":"joe@example.org"}'
        FROM messages;
"""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from crowded(tmp_path_factory.mktemp("crowd"), CROWD)


def effort(db: sqlite3.Connection, ask: Callable[[], T]) -> tuple[T, int]:
    """What is asked, and how many hundred steps SQLite's machine took for it."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(step, 100)
    try:
        return ask(), steps
    finally:
        db.set_progress_handler(None, 0)


def claim(destination: Destination, limit: int) -> Claim:
    return Claim([destination], limit, OWNER, NOW)


def delivery(one: Claimed) -> Delivery:
    return Delivery(one.message, one.destination, one.recipients, MemoryContent(b"abcd"))


def test_claim_takes_the_longest_due_without_a_look_at_the_others(db: sqlite3.Connection) -> None:
    taken, steps = effort(db, lambda: claim(DEAD, 10).run(db))
    assert [one.message.queue_id for one in taken] == [f"Q{number}" for number in range(1, 11)]
    assert [one.recipients[0].address.local_part for one in taken] == ["a"] * 10
    assert steps < 20
    taken, steps = effort(db, lambda: claim(RELAY, 10).run(db))
    assert [one.message.queue_id for one in taken] == ["Q50001"]
    assert steps < 5


def test_outcomes_cost_what_they_concern(db: sqlite3.Connection) -> None:
    dead = [delivery(one) for one in claim(DEAD, 10).run(db)]
    (live,) = (delivery(one) for one in claim(RELAY, 10).run(db))
    settlements = [Settlement(live, (DELIVERED,)), *(Settlement(one, (deferred(NOW + 60),)) for one in dead[:5])]
    judgements = [Judgement.of(one, OWNER, NOW, lambda *_: pytest.fail("no reports"), count()) for one in settlements]
    _, steps = effort(db, lambda: Settling(judgements, OWNER).run(db))
    assert steps < 10
    _, steps = effort(db, lambda: Release(dead[5:], OWNER).run(db))
    assert steps < 10
    assert db.execute("SELECT count(*) FROM recipients").fetchall() == [(100_001,)]
    assert db.execute("SELECT count(*) FROM messages").fetchall() == [(50_001,)]
    assert db.execute("SELECT count(*) FROM contents").fetchall() == [(50_001,)]


def test_destinations_are_found_without_a_look_at_all_recipients(db: sqlite3.Connection) -> None:
    found, steps = effort(db, lambda: db.execute(claims.DESTINATIONS).fetchall())
    assert sorted(found) == [(str(OTHER), 50002.0), (str(DEAD), 1.0), (str(RELAY), 50001.0)]
    assert steps < 8


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (claims.CHOOSE, r"USING (COVERING )?INDEX recipients_waiting \(destination=\? AND rank=\? AND due<\?\)"),
        (claims.NEXT_RANK, r"USING (COVERING )?INDEX recipients_waiting \(destination=\? AND rank>\?\)"),
        (claims.LEASE, r"USING INDEX recipients_of_message \(message=\?\)"),
        (changes.REMOVE, r"USING INTEGER PRIMARY KEY \(rowid=\?\)"),
        ("SELECT 1 FROM messages WHERE queue_id = ?", r"USING COVERING INDEX sqlite_autoindex_messages_1 .*"),
    ],
)
def test_queries_walk_an_index_and_never_sort(db: sqlite3.Connection, statement: str, expected: str) -> None:
    found = plan(db, statement)
    steps = [step for step in found if "json_each" not in step and "SUBQUERY" not in step]
    assert len(steps) == 1, found
    assert re.fullmatch(rf"SEARCH (recipients|messages) {expected}", steps[0])


def test_destinations_hop_along_the_index(db: sqlite3.Connection) -> None:
    found = [step for step in plan(db, claims.DESTINATIONS) if "recipients" in step]
    assert len(found) == 5
    assert all(re.match(r"SEARCH recipients USING (COVERING )?INDEX recipients_waiting", step) for step in found)


def test_reroute_reads_by_the_key(db: sqlite3.Connection) -> None:
    rows, steps = effort(db, lambda: db.execute(claims.WAITING, (1000, 100)).fetchall())
    assert [row[0] for row in rows] == list(range(1001, 1101))
    assert steps < 50


# ------------------------------------------------------------------------------------------ operators


def test_pages_of_the_queue_cost_what_they_show(db: sqlite3.Connection) -> None:
    for selection in (EVERYTHING, Selection(recipient="a@dead.example"), Selection(ids=("Q900", "Q77"))):
        found, steps = effort(db, lambda given=selection: looking.select(db, given, 10, "Q4", NOW))  # type: ignore[misc]
        assert [one.message.queue_id for one in found][:1] == (["Q77"] if selection.ids else ["Q40"])
        assert steps < 30
        meant = conditions(selection, NOW)
        steps_of_plan = plan(db, looking.SELECT.format(columns="*", message=meant.message, recipient=meant.recipient))
        assert any(re.match(r"SEARCH messages USING INDEX sqlite_autoindex_messages_1", one) for one in steps_of_plan)
        assert not any("TEMP B-TREE" in one for one in steps_of_plan)


def test_selection_of_little_is_a_walk_through_the_index_of_messages(db: sqlite3.Connection) -> None:
    found, steps = effort(db, lambda: looking.select(db, Selection(destination=OTHER), 10, "", NOW))
    assert [one.message.queue_id for one in found] == ["Q50002"]
    assert steps < 60_000


def test_loads_are_one_walk_through_all_recipients(db: sqlite3.Connection) -> None:
    found, steps = effort(db, lambda: looking.loads(db, 10, NOW))
    assert [(load.destination, load.messages, load.recipients) for load in found] == [
        (DEAD, 50_000, 100_000),
        (OTHER, 1, 1),
        (RELAY, 1, 1),
    ]
    assert steps < 150_000
    walk = plan(db, looking.LOADS.format(ages=looking.AGES))
    assert walk.count("SCAN recipients") == 1
    assert "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)" in walk


def test_bites_of_an_action_begin_where_the_last_one_ended(db: sqlite3.Connection) -> None:
    everything = Selection()
    first = managing.choose(db, everything, managing.Bite((), 0, 0, None), NOW)
    assert first is not None
    assert (len(first.keys), first.at, first.last) == (1000, 1000, 200_002)
    second, steps = effort(db, lambda: managing.choose(db, everything, first, NOW))
    assert second is not None
    assert (second.keys[0], second.at) == (1001, 2000)
    assert steps < 300
    few, steps = effort(
        db, lambda: managing.choose(db, Selection(ids=("Q7", "Q49999")), managing.Bite((), 0, 0, 9**9), NOW)
    )
    assert few is not None
    assert few.keys == [7, 49999, 100_007, 149_999]
    assert steps < 10
    numbers = count()
    change = managing.Manage(QueueAction.HOLD, second.keys, "root", NOW, numbers)
    (changed, busy), steps = effort(db, lambda: change.run(db))
    assert (len(changed), busy) == (1000, 0)
    assert steps < 3000


def test_steps_of_a_message_lie_together(db: sqlite3.Connection) -> None:
    (step,) = plan(db, journal.READ)
    assert step == "SEARCH journal USING PRIMARY KEY (queue_id=?)"
    walk = plan(db, journal.OLD)
    assert walk[0] == "SEARCH journal USING PRIMARY KEY (queue_id>? AND queue_id<?)"
    assert not any("TEMP B-TREE" in one for one in walk)
    (_, *rest) = plan(db, journal.FORGET)
    assert plan(db, journal.FORGET)[0] == "SEARCH journal USING PRIMARY KEY (queue_id=?)", rest


def plan(db: sqlite3.Connection, statement: str) -> list[str]:
    named = dict.fromkeys(re.findall(r":(\w+)", statement))
    arguments = named or [None] * statement.count("?")
    return [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", arguments)]
