"""The reader for other processes: beside a server that runs, after it, where there is none."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mailsuite.interfaces import SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import HeldMail
from mailsuite.mail.route import Destination
from mailsuite.spool import schema
from mailsuite.spool.reading import SpoolReader
from mailsuite.spool.sqlite import SqliteSpool
from tests.contracts.spool.kit import ENVELOPE, HOLD, HOLD2, target
from tests.spool.pump import Pump

LATER_COLUMNS = {
    "messages": ("options", "rank"),
    "recipients": ("options", "reverse_local_part", "reverse_domain", "rank", "delay_told", "expired"),
}
EVENT = Event(1_700_000_000.0, EventKind.TURN, "ship", None, {"messages": 3})


def fill(pump: Pump, spool: SqliteSpool) -> list[HeldMail]:
    for destination in (HOLD, HOLD2, HOLD):
        draft = spool.draft()
        draft.write(b"Hello\r\n")
        pump.run(draft.commit(ENVELOPE, [target(destination)]))
        pump.advance(1)
    pump.run(spool.record([EVENT, Event(EVENT.time, EventKind.PULL, "home")]))
    now = pump.seconds()
    return [HeldMail("branch.example", 1, 7, now - 2), HeldMail("ship.example", 2, 14, now - 3)]


def test_reader_sees_what_the_server_has_written(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    reader = SpoolReader(directory)
    expected = fill(pump, spool)
    assert list(reader.held()) == expected
    assert reader.oldest() == {one.domain: one.oldest for one in expected}
    assert list(reader.history(subject="ship")) == [EVENT]
    assert len(reader.history(limit=1)) == 1
    assert list(reader.history(kind=EventKind.PULL, subject="ship")) == []
    pump.run(spool.claim_held([HOLD], 1))
    assert list(reader.held()) == expected == list(pump.run(spool.held()))


def test_reader_sees_a_spool_that_is_stopped_and_the_server_starts_again(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump)
    pump.run(spool.start())
    expected = fill(pump, spool)
    pump.run(spool.stop())
    reader = SpoolReader(str(directory))
    assert list(reader.held()) == expected
    assert list(reader.history(kind=EventKind.TURN)) == [EVENT]
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.iterdir())
    pump.run(spool.start())
    assert list(reader.held()) == expected == list(pump.run(spool.held()))
    pump.run(spool.stop())


def test_reader_sees_what_a_killed_server_has_left(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump)
    pump.run(spool.start())
    expected = fill(pump, spool)
    pump.run(spool.stop())
    program = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute(\"INSERT INTO events (time, kind, detail) VALUES (1, 'etrn', '{}')\")\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(directory / "queue.db")], check=False)
    assert (directory / "queue.db-wal").stat().st_size > 0
    reader = SpoolReader(directory)
    assert [event.kind for event in reader.history()] == [EventKind.PULL, EventKind.TURN, EventKind.ETRN]
    assert list(reader.held()) == expected


def test_reader_cannot_write(directory: Path, spool: SqliteSpool) -> None:
    with (
        SpoolReader(directory)._connection() as db,  # noqa: SLF001 - what it hands out is what is meant
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        db.execute("DELETE FROM held")
    assert SpoolReader(directory).held() == []


def test_what_is_no_spool_is_said_in_a_sentence(tmp_path: Path) -> None:
    for directory in (tmp_path / "nowhere", tmp_path):
        for ask in (SpoolReader(directory).held, SpoolReader(directory).oldest, SpoolReader(directory).history):
            with pytest.raises(SpoolError, match=f"There is no spool in {directory}"):
                ask()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "queue.db").touch()
    with pytest.raises(SpoolError, match="start the server first"):
        SpoolReader(tmp_path).held()
    (tmp_path / "queue.db").write_bytes(os.urandom(5000))
    with pytest.raises(SpoolError, match="cannot be read"):
        SpoolReader(tmp_path).held()


def test_spool_of_another_version_is_refused(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump)
    pump.run(spool.start())
    pump.run(spool.stop())
    for version in (schema.VERSION - 1, schema.VERSION + 1):
        db = sqlite3.connect(directory / "queue.db")
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
        with pytest.raises(SpoolError, match=rf"another version of mailsuite \(version {version}"):
            SpoolReader(directory).held()


def test_events_of_a_kind_that_is_not_known_are_left_out(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    pump.run(spool.record([EVENT]))
    db = sqlite3.connect(directory / "queue.db", isolation_level=None)
    db.execute("INSERT INTO events (time, kind, detail) VALUES (1, 'from a later version', '{}')")
    db.close()
    assert list(SpoolReader(directory).history()) == list(pump.run(spool.history())) == [EVENT]


def test_migration_counts_what_is_held_already(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump)
    pump.run(spool.start())
    for destinations in ((HOLD, HOLD, HOLD2), (HOLD,), (Destination("maildir"),)):
        draft = spool.draft()
        draft.write(b"Hello\r\n")
        pump.run(draft.commit(ENVELOPE, [target(one) for one in destinations]))
    pump.run(spool.stop())
    # Back to what version 1 was.
    db = sqlite3.connect(directory / "queue.db", isolation_level=None)
    for name in ("held_comes", "held_goes", "held_is_moved_in", "held_is_moved_out"):
        db.execute(f"DROP TRIGGER {name}")
    for name in ("held", "events", "partials", "completed", "journal"):
        db.execute(f"DROP TABLE {name}")
    db.execute("DROP INDEX recipients_held")
    db.execute("DROP INDEX recipients_waiting")
    for table, columns in LATER_COLUMNS.items():
        for column in columns:
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    db.execute("CREATE INDEX recipients_waiting ON recipients (destination, due, message) WHERE lease_owner IS NULL")
    db.execute("PRAGMA user_version = 1")
    left = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")}
    db.close()
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(schema.MIGRATIONS[0])
    assert left == {name for (name,) in fresh.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")}
    fresh.close()
    pump.run(spool.start())
    now = pump.seconds()
    assert list(pump.run(spool.held())) == [
        HeldMail("branch.example", 1, 7, now),
        HeldMail("ship.example", 2, 14, now),
    ]
    pump.run(spool.stop())
