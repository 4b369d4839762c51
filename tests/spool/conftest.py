"""The SQLite spool on a pump, and what must hold of its directory after every test."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailsuite.spool import schema
from mailsuite.spool.sqlite import SqliteSpool
from tests.spool.pump import Pump

pytest.register_assert_rewrite("tests.contracts.spool")

COUNTED = """
    SELECT destination, count(*), sum(size) FROM (SELECT DISTINCT destination, message FROM recipients)
    JOIN messages ON messages.key = message WHERE destination LIKE 'hold:%' GROUP BY destination ORDER BY destination
"""
SPILL = 1000  # above it, contents are files


@pytest.fixture
def pump() -> Pump:
    return Pump()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a spool is. When the test is over it must be whole, whatever the test did."""
    path = tmp_path / "spool"
    yield path
    if (path / "queue.db").exists():
        check_whole(path)


@pytest.fixture
def spool(directory: Path, pump: Pump) -> Iterator[SqliteSpool]:
    """A spool that was started."""
    spool = SqliteSpool(directory, pump, spill=SPILL)
    pump.run(spool.start())
    yield spool
    pump.run(spool.stop())


def crowded(directory: Path, rows: str) -> Iterator[Path]:
    """A database with many rows, which statements make."""
    path = directory / "queue.db"
    db = schema.connect(str(path))
    schema.migrate(db, str(path))
    db.executescript(f"BEGIN; {rows} COMMIT;")
    db.close()
    yield path
    path.unlink()


@pytest.fixture
def db(crowd: Path) -> Iterator[sqlite3.Connection]:
    """The crowd of a module, within a transaction that is rolled back."""
    db = schema.connect(str(crowd))
    db.execute("BEGIN")
    yield db
    db.execute("ROLLBACK")
    db.close()


def check_whole(directory: Path) -> None:
    """Tables are consistent, and files and rows belong together."""
    db = sqlite3.connect(directory / "queue.db")
    try:
        assert query(db, "PRAGMA integrity_check") == [("ok",)]
        assert query(db, "PRAGMA foreign_key_check") == []
        assert query(db, "SELECT key FROM messages WHERE key NOT IN (SELECT message FROM recipients)") == []
        stored = query(db, "SELECT key FROM messages WHERE NOT in_file")
        assert sorted(stored) == sorted(query(db, "SELECT message FROM contents"))
        files = sorted(name for (name,) in query(db, "SELECT queue_id FROM messages WHERE in_file"))
        files += [name for (name,) in query(db, "SELECT queue_id FROM partials WHERE octets IS NULL")]
        counted = query(db, COUNTED)
        assert query(db, "SELECT * FROM held ORDER BY destination") == counted
    finally:
        db.close()
    assert sorted(path.name for path in (directory / "contents").iterdir()) == sorted(files)


def query(db: sqlite3.Connection, statement: str) -> list[Any]:
    return db.execute(statement).fetchall()
