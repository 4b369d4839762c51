"""Parts of messages in the SQLite spool: files, failures, answers that nobody waits for, a crash between two steps."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.mail.partial import Partial
from mailsuite.spool import entry, files, partials
from mailsuite.spool.errors import CommitFailed
from mailsuite.spool.partials import Keep, Take
from mailsuite.spool.sqlite import SqliteSpool
from mailsuite.spool.transactions import Transactions
from tests.contracts.spool.kit import ENVELOPE, RELAY, target
from tests.spool.conftest import SPILL
from tests.spool.pump import Pump

LARGE = bytes(range(256)) * 20
SMALL = b"Hello\r\n"
TARGETS = [target(RELAY)]


def begin(spool: SqliteSpool, octets: bytes) -> Any:
    draft = spool.draft()
    draft.write(octets)
    return draft


def keep(pump: Pump, spool: SqliteSpool, name: str, octets: bytes) -> str:
    draft = begin(spool, octets)
    pump.run(spool.keep(draft, name, ENVELOPE, TARGETS, 0))
    return draft.queue_id


def resume(pump: Pump, spool: SqliteSpool, name: str) -> Partial:
    part = pump.run(spool.resume(name))
    assert isinstance(part, Partial)
    return part


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "contents").iterdir())


def kept(directory: Path) -> list[Any]:
    db = sqlite3.connect(directory / "queue.db")
    try:
        return db.execute("SELECT name, octets IS NULL FROM partials ORDER BY name").fetchall()
    finally:
        db.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_small_part_lies_in_the_database_and_a_large_one_stays_in_its_file(
    pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    keep(pump, spool, "small", SMALL)
    queue_id = keep(pump, spool, "large", LARGE)
    assert kept(directory) == [("large", 1), ("small", 0)]
    assert listed(directory) == [queue_id]
    assert (directory / "contents" / queue_id).read_bytes() == LARGE


def test_file_and_directory_are_synced_before_the_part_is_kept(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    synced: list[Any] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, len(kept(directory))))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", note)
    queue_id = keep(pump, spool, "a", LARGE)
    assert synced == [(queue_id, 0), ("contents", 0)]
    assert len(kept(directory)) == 1
    part = resume(pump, spool, "a")
    assert kept(directory) == []
    part.draft.write(LARGE)
    pump.run(part.draft.commit(ENVELOPE, TARGETS))
    assert synced[2:] == [(queue_id, 0), ("contents", 0)]
    assert (directory / "contents" / queue_id).read_bytes() == LARGE * 2


def test_files_of_parts_that_go_are_removed(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    before = descriptors()
    keep(pump, spool, "replaced", LARGE)
    keep(pump, spool, "replaced", SMALL)
    keep(pump, spool, "forgotten", LARGE)
    pump.run(spool.forget("forgotten"))
    keep(pump, spool, "aborted", LARGE)
    resume(pump, spool, "aborted").draft.abort()
    pump.until(lambda: listed(directory) == [] and descriptors() <= before + 3)
    keep(pump, spool, "old", LARGE)
    pump.advance(48 * 3600 + 301)
    pump.until(lambda: kept(directory) == [("replaced", 0)] or kept(directory) == [])
    pump.advance(301)
    pump.until(lambda: kept(directory) == [] and listed(directory) == [])
    assert descriptors() <= before + 3


def test_old_parts_are_swept_in_bites(monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump, spill=SPILL, partials_time=100)
    pump.run(spool.start())
    for number in range(7):
        keep(pump, spool, str(number), LARGE)
    monkeypatch.setattr("mailsuite.spool.aging._PARTIALS", 3)
    before = spool.transactions
    pump.advance(300)
    pump.until(lambda: listed(directory) == [])
    assert spool.transactions - before >= 3
    pump.run(spool.stop())


def test_parts_beyond_the_bounds_leave_no_file(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump, spill=SPILL, partials_count=2, partials_octets=3 * len(LARGE))
    pump.run(spool.start())
    keep(pump, spool, "a", LARGE)
    first = keep(pump, spool, "b", LARGE)
    keep(pump, spool, "c", LARGE * 4)
    second = keep(pump, spool, "c", LARGE)
    pump.until(lambda: listed(directory) == sorted([first, second]))
    assert kept(directory) == [("b", 1), ("c", 1)]
    pump.run(spool.stop())


def test_part_is_dropped_where_the_room_is_kept_for_the_queue(pump: Pump, directory: Path) -> None:
    disk = os.statvfs(directory.parent)
    spool = SqliteSpool(directory, pump, spill=SPILL, reserve=disk.f_blocks * disk.f_frsize + 1)
    pump.run(spool.start())
    keep(pump, spool, "a", LARGE)
    keep(pump, spool, "b", SMALL)
    assert kept(directory) == []
    pump.until(lambda: listed(directory) == [])
    pump.run(spool.stop())


@pytest.mark.parametrize("function", ["open", "write", "fsync"])
def test_part_whose_file_cannot_be_written_is_dropped_with_what_had_its_name(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool, function: str
) -> None:
    before = descriptors()
    keep(pump, spool, "a", LARGE)

    def no_room(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, function, no_room)
    keep(pump, spool, "a", LARGE)
    assert kept(directory) == []
    monkeypatch.undo()
    pump.until(lambda: listed(directory) == [] and descriptors() <= before + 3)


@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_failure_to_keep_is_told_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool, octets: bytes
) -> None:
    keep(pump, spool, "a", octets)
    monkeypatch.setattr(partials, "_INSERT", "INSERT INTO nowhere VALUES (?)")
    draft = begin(spool, octets)
    with pytest.raises(SpoolError):
        pump.run(spool.keep(draft, "a", ENVELOPE, TARGETS, 0))
    assert kept(directory) == []
    pump.until(lambda: listed(directory) == [])


def test_file_stays_until_the_next_start_where_the_commit_failed(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    run = Transactions.run

    def broken(self: Transactions, group: Any) -> None:
        run(self, group)
        for operation in group:
            if isinstance(operation, Keep):  # it is on the disk, but nobody knows
                operation.error = CommitFailed("the disk said no")

    monkeypatch.setattr(Transactions, "run", broken)
    draft = begin(spool, LARGE)
    with pytest.raises(CommitFailed):
        pump.run(spool.keep(draft, "a", ENVELOPE, TARGETS, 0))
    monkeypatch.undo()
    pump.run(spool.stop())
    assert listed(directory) == [draft.queue_id]
    pump.run(spool.start())
    assert resume(pump, spool, "a").draft.size == len(LARGE)


# ------------------------------------------------------------------------------------------ completed


def complete(pump: Pump, spool: SqliteSpool, name: str, octets: bytes = SMALL) -> Any:
    draft = begin(spool, octets)
    pump.run(draft.commit(ENVELOPE, TARGETS, name=name, received=3))
    return draft


def names(directory: Path) -> list[str]:
    db = sqlite3.connect(directory / "queue.db")
    try:
        return [name for (name,) in db.execute("SELECT name FROM completed ORDER BY time, rowid")]
    finally:
        db.close()


def test_names_that_are_not_there_cost_nothing(pump: Pump, spool: SqliteSpool) -> None:
    keep(pump, spool, "a", SMALL)
    complete(pump, spool, "b")
    before = spool.transactions
    for number in range(1000):
        for asked in (spool.resume(str(number)), spool.forget(str(number)), spool.heard([str(number)])):
            assert asked.called
            assert asked.result is None
    assert spool.transactions == before


def test_name_is_written_in_the_transaction_of_its_message(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    monkeypatch.setattr(entry, "COMPLETE", "INSERT INTO nowhere VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
    with pytest.raises(SpoolError):
        complete(pump, spool, "a")
    assert pump.run(spool.count()) == 0
    monkeypatch.undo()
    before = spool.transactions
    complete(pump, spool, "a")
    assert spool.transactions == before + 1
    assert names(directory) == ["a"]


def test_commit_that_nobody_waits_for_is_known(pump: Pump, spool: SqliteSpool) -> None:
    for octets in (SMALL, LARGE):
        draft = begin(spool, octets)
        committing = draft.commit(ENVELOPE, TARGETS, name="a", received=3)
        committing.addErrback(lambda _: None)
        committing.cancel()
        pump.until(lambda: pump.run(spool.resume("a")) is not None)
        found = pump.run(spool.resume("a"))
        assert found.queue_id == draft.queue_id
        pump.run(spool.heard(["a"]))


def test_names_beyond_the_bounds_go_the_oldest_first(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump, spill=SPILL, completed_count=32)
    pump.run(spool.start())
    for number in range(33):
        complete(pump, spool, str(number))
        pump.advance(1)
    pump.until(lambda: len(names(directory)) == 30)  # some at once
    assert names(directory) == [str(number) for number in range(3, 33)]
    pump.run(spool.stop())
    spool = SqliteSpool(directory, pump, spill=SPILL, completed_octets=1000)
    pump.run(spool.start())
    complete(pump, spool, "last")
    pump.until(lambda: 5 < len(names(directory)) < 30)
    assert names(directory)[-1] == "last"
    complete(pump, spool, "huge" * 1000)
    pump.until(lambda: names(directory) == [])
    assert pump.run(spool.resume("last")) is None
    pump.run(spool.stop())


def test_old_names_are_swept(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    complete(pump, spool, "a")
    pump.advance(48 * 3600 - 1)
    complete(pump, spool, "b")
    pump.advance(302)
    pump.until(lambda: names(directory) == ["b"])
    assert pump.run(spool.resume("a")) is None


# ------------------------------------------------------------------------------------------ cancelled


@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_keeping_goes_on_when_nobody_waits(pump: Pump, spool: SqliteSpool, octets: bytes) -> None:
    keeping = spool.keep(begin(spool, octets), "a", ENVELOPE, TARGETS, 0)
    keeping.addErrback(lambda _: None)
    keeping.cancel()
    assert resume(pump, spool, "a").draft.size == len(octets)


@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_part_that_nobody_waits_for_any_more_is_put_back(
    pump: Pump, directory: Path, spool: SqliteSpool, octets: bytes
) -> None:
    queue_id = keep(pump, spool, "a", octets)
    for _ in range(3):
        answer = spool.resume("a")
        answer.addErrback(lambda _: None)
        answer.cancel()
    part = resume(pump, spool, "a")
    assert (part.draft.queue_id, part.draft.size) == (queue_id, len(octets))
    pump.run(part.draft.commit(part.envelope, part.targets))
    (delivery,) = pump.run(spool.claim(RELAY, 10))
    assert pump.run(delivery.content.read(0, 100_000)) == octets
    assert kept(directory) == []


@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_part_that_was_put_back_is_forgotten_by_whoever_comes_next(
    pump: Pump, directory: Path, spool: SqliteSpool, octets: bytes
) -> None:
    keep(pump, spool, "a", octets)
    answer = spool.resume("a")
    answer.addErrback(lambda _: None)
    answer.cancel()
    pump.run(spool.forget("a"))
    assert kept(directory) == []
    pump.until(lambda: listed(directory) == [])


# ------------------------------------------------------------------------------------------ start, stop


@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_what_was_asked_before_stop_is_done(pump: Pump, directory: Path, octets: bytes) -> None:
    before = descriptors()
    spool = SqliteSpool(directory, pump, spill=SPILL)
    pump.run(spool.start())
    keep(pump, spool, "waiting", octets)
    keep(pump, spool, "taken", octets)
    lost = resume(pump, spool, "taken")
    asked = [
        spool.keep(begin(spool, octets * 2), "a", ENVELOPE, TARGETS, 0),
        spool.keep(begin(spool, octets * 3), "a", ENVELOPE, TARGETS, 0),
    ]
    late = spool.resume("waiting")
    pump.run(spool.stop())
    for one in asked:
        assert pump.run(one) is None
    assert pump.run(late) is None
    assert descriptors() == before
    with pytest.raises(SpoolError):
        pump.run(lost.draft.commit(ENVELOPE, TARGETS))
    pump.run(spool.start())
    assert [name for name, _ in kept(directory)] == ["a", "waiting"]
    assert resume(pump, spool, "a").draft.size == 3 * len(octets)
    assert resume(pump, spool, "waiting").draft.size == len(octets)
    pump.run(spool.stop())
    assert listed(directory) == []


def test_file_with_neither_a_message_nor_a_part_is_swept_at_the_start(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump, spill=SPILL)
    pump.run(spool.start())
    whole = keep(pump, spool, "whole", LARGE)
    old = keep(pump, spool, "old", LARGE)
    cut, missing, longer = (keep(pump, spool, name, LARGE) for name in ("cut", "missing", "longer"))
    pump.run(spool.stop())
    contents = directory / "contents"
    (contents / "ORPHAN").write_bytes(b"x")
    (contents / missing).unlink()
    os.truncate(contents / cut, 100)
    with (contents / longer).open("ab") as file:
        file.write(b"x")
    db = sqlite3.connect(directory / "queue.db")
    db.execute("UPDATE partials SET kept = kept - 172801 WHERE name = 'old'")
    db.commit()
    db.close()
    pump.run(spool.start())
    assert kept(directory) == [("whole", 1)]
    assert listed(directory) == [whole]
    assert old != whole
    pump.run(spool.stop())


def test_part_whose_file_was_lost_meanwhile_is_none(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    for lose in (Path.unlink, lambda path: os.truncate(path, 10)):
        queue_id = keep(pump, spool, "a", LARGE)
        lose(directory / "contents" / queue_id)
        assert pump.run(spool.resume("a")) is None
        pump.until(lambda: listed(directory) == [])
        assert kept(directory) == []


def test_crash_after_a_part_was_taken_may_lose_it_and_nothing_else(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump, spill=SPILL)
    pump.run(spool.start())
    keep(pump, spool, "a", LARGE)
    pump.run(spool.stop())
    # What a process does that dies right after the row is gone.
    db = sqlite3.connect(directory / "queue.db")
    take = Take("a", 0)
    assert take.run(db) is not None
    db.commit()
    db.close()
    assert len(listed(directory)) == 1
    pump.run(spool.start())
    assert listed(directory) == []
    assert pump.run(spool.resume("a")) is None
    pump.run(spool.stop())


# -------------------------------------------------------------------------------------- the other bounds


def test_large_part_that_arrives_faster_than_the_disk_writes_waits(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, spool: SqliteSpool
) -> None:
    keep(pump, spool, "a", LARGE)
    part = resume(pump, spool, "a")
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda *arguments: (time.sleep(0.01), write(*arguments))[1])
    waits = 0

    async def send() -> None:
        nonlocal waits
        for _ in range(100):
            waiting = part.draft.write(LARGE * 13)
            if waiting is not None:
                waits += 1
                await waiting

    pump.run(send())
    assert waits > 2
    pump.run(part.draft.commit(ENVELOPE, TARGETS))
    (delivery,) = pump.run(spool.claim(RELAY, 1))
    with delivery.content.open() as file:
        assert file.read() == LARGE * 1301


def test_full_disk_drops_the_part(monkeypatch: pytest.MonkeyPatch, pump: Pump, spool: SqliteSpool) -> None:
    run = Transactions.run

    def full(self: Transactions, group: Any) -> None:
        run(self, [one for one in group if not isinstance(one, Keep)])
        for operation in group:
            if isinstance(operation, Keep):
                operation.error = SpoolFull("no room")

    keep(pump, spool, "a", SMALL)
    monkeypatch.setattr(Transactions, "run", full)
    keep(pump, spool, "a", SMALL)
    assert pump.run(spool.resume("a")) is None
