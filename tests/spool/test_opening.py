"""The spool's directory: who may use it, what is made, what is refused."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from mailsuite.interfaces import SpoolError
from mailsuite.spool import schema
from mailsuite.spool.sqlite import SqliteSpool
from tests.contracts.spool.kit import ENVELOPE, RELAY, target
from tests.spool.pump import Pump


def put(pump: Pump, spool: SqliteSpool, content: bytes = b"Hello\r\n") -> str:
    draft = spool.draft()
    draft.write(content)
    pump.run(draft.commit(ENVELOPE, [target(RELAY)]))
    return draft.queue_id


def filled(pump: Pump, directory: Path) -> str:
    """Make a spool with one large message in it."""
    spool = SqliteSpool(directory, pump, spill=100)
    pump.run(spool.start())
    queue_id = put(pump, spool, b"x" * 1000)
    pump.run(spool.stop())
    return queue_id


def test_what_is_made_is_for_the_owner_alone(pump: Pump, directory: Path) -> None:
    before = os.umask(0)
    try:
        spool = SqliteSpool(directory, pump, spill=100)
        pump.run(spool.start())
        put(pump, spool, b"x" * 1000)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [directory, *directory.rglob("*")]}
    pump.run(spool.stop())
    assert modes.pop("spool") == 0o700
    assert modes.pop("contents") == 0o700
    assert {"queue.db", "queue.db-wal", "lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_second_process_is_refused(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    other = SqliteSpool(directory, pump)
    with pytest.raises(SpoolError, match=f"Another mailsuite .process {os.getpid()}. uses the spool in {directory}"):
        pump.run(other.start())
    with pytest.raises(SpoolError):
        pump.run(other.count())
    with pytest.raises(SpoolError, match="open already"):
        pump.run(spool.start())
    assert pump.run(spool.count()) == 0


def test_start_can_be_tried_again(pump: Pump, directory: Path) -> None:
    first, second = SqliteSpool(directory, pump), SqliteSpool(directory, pump)
    pump.run(first.start())
    with pytest.raises(SpoolError):
        pump.run(second.start())
    pump.run(first.stop())
    pump.run(second.start())
    put(pump, second)
    pump.run(second.stop())
    pump.run(second.start())
    assert pump.run(second.count()) == 1
    pump.run(second.stop())


def test_stopped_spool_leaves_one_closed_database(pump: Pump, directory: Path) -> None:
    filled(pump, directory)
    assert sorted(path.name for path in directory.iterdir()) == ["contents", "lock", "queue.db"]


def test_commits_are_synced(tmp_path: Path) -> None:
    db = schema.connect(str(tmp_path / "queue.db"))
    found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    db.close()
    assert found == ["wal", 2]  # 2: FULL


def damage_start(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(5000))


def damage_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 + 100)
        file.write(os.urandom(path.stat().st_size - 4096 - 100))


def cut(path: Path) -> None:
    os.truncate(path, 4096 * 3)


@pytest.mark.parametrize("damage", [damage_start, damage_middle, cut])
def test_damaged_database_is_refused_by_name(pump: Pump, directory: Path, damage: Callable[[Path], None]) -> None:
    queue_id = filled(pump, directory)
    database = directory / "queue.db"
    whole = database.read_bytes()
    damage(database)
    spool = SqliteSpool(directory, pump)
    with pytest.raises(SpoolError, match=str(database)):
        pump.run(spool.start())
    assert (directory / "contents" / queue_id).exists()
    database.write_bytes(whole)
    pump.run(spool.start())
    assert pump.run(spool.count()) == 1
    pump.run(spool.stop())


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: os.truncate(path, 0)])
def test_lost_database_is_not_replaced_by_an_empty_one(
    pump: Pump, directory: Path, lose: Callable[[Path], None]
) -> None:
    queue_id = filled(pump, directory)
    database = directory / "queue.db"
    whole = database.read_bytes()
    lose(database)
    spool = SqliteSpool(directory, pump)
    for _ in range(2):
        with pytest.raises(SpoolError, match=rf"{database} is (missing|empty), but there was a queue"):
            pump.run(spool.start())
    assert (directory / "contents" / queue_id).exists()
    database.write_bytes(whole)
    pump.run(spool.start())
    assert pump.run(spool.count()) == 1
    pump.run(spool.stop())


def test_later_schema_is_refused(pump: Pump, directory: Path) -> None:
    filled(pump, directory)
    db = sqlite3.connect(directory / "queue.db")
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(SpoolError, match="later mailsuite"):
        pump.run(SqliteSpool(directory, pump).start())


def test_each_migration_runs_once(monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path) -> None:
    filled(pump, directory)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE two (x);", "CREATE TABLE three (x);"))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 2)
    for _ in range(2):
        spool = SqliteSpool(directory, pump)
        pump.run(spool.start())
        assert pump.run(spool.count()) == 1
        pump.run(spool.stop())
    db = sqlite3.connect(directory / "queue.db")
    assert schema.version(db) == schema.VERSION
    assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name IN ('two', 'three')").fetchall() == [(2,)]
    db.close()


def test_failed_migration_leaves_the_version_before_it(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path
) -> None:
    filled(pump, directory)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE two (x); CREATE TABLE two (x);"))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(SpoolError, match="already exists"):
        pump.run(SqliteSpool(directory, pump).start())
    db = sqlite3.connect(directory / "queue.db")
    assert schema.version(db) == schema.VERSION - 1
    assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'two'").fetchall() == [(0,)]
    db.close()


def test_file_in_place_of_the_directory_is_refused(pump: Pump, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a directory")
    with pytest.raises(SpoolError, match=str(path)):
        pump.run(SqliteSpool(path, pump).start())


def test_files_without_a_row_are_swept_and_rows_without_a_file_are_kept(pump: Pump, directory: Path) -> None:
    lost = filled(pump, directory)
    kept = filled(pump, directory)
    contents = directory / "contents"
    (contents / "ORPHAN1").write_bytes(b"half a message")
    (contents / lost).unlink()
    logged: list[str] = []

    def observe(event: dict[str, object]) -> None:
        if event.get("log_level") is LogLevel.critical:
            logged.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    try:
        spool = SqliteSpool(directory, pump)
        pump.run(spool.start())
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [path.name for path in contents.iterdir()] == [kept]
    assert len(logged) == 1
    assert lost in logged[0]
    missing, whole = sorted(pump.run(spool.claim(RELAY, 10)), key=lambda one: one.message.queue_id == kept)
    assert missing.message.queue_id == lost
    with pytest.raises(OSError, match=lost):
        pump.run(missing.content.read(0, 10))
    with pytest.raises(OSError, match=lost):
        missing.content.open()
    assert pump.run(whole.content.read(0, 2000)) == b"x" * 1000
    (contents / lost).write_bytes(b"an operator found it")
    pump.run(spool.stop())
