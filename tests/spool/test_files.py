"""Large contents: streamed to a file while they arrive, never without their row for long."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.mail.queue import Settlement
from mailsuite.spool import files
from mailsuite.spool.disk import Disk
from mailsuite.spool.files import ArrivingFile
from mailsuite.spool.sqlite import SqliteSpool
from tests.contracts.spool.kit import DELIVERED, ENVELOPE, RELAY, target
from tests.spool.pump import Pump

CHUNK = bytes(range(256)) * 256


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "contents").iterdir())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_large_content_is_on_the_disk_before_it_is_committed(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    draft = spool.draft()

    async def send() -> None:
        for _ in range(64):
            waiting = draft.write(CHUNK)
            if waiting is not None:
                await waiting

    pump.run(send())
    path = directory / "contents" / draft.queue_id
    assert path.stat().st_size >= 3 * 1024 * 1024
    pump.run(draft.commit(ENVELOPE, [target(RELAY)]))
    assert path.read_bytes() == CHUNK * 64


def test_file_and_directory_are_synced_before_the_row_is_committed(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        db = sqlite3.connect(directory / "queue.db")
        rows = db.execute("SELECT count(*) FROM messages").fetchone()[0]
        db.close()
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), rows))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", note)
    draft = spool.draft()
    draft.write(CHUNK)
    pump.run(draft.commit(ENVELOPE, [target(RELAY)]))
    contents = directory / "contents"
    assert synced == [(str(contents / draft.queue_id), 0), (str(contents), 0)]
    assert pump.run(spool.count()) == 1


def test_write_makes_the_peer_wait_when_the_disk_is_slower(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, spool: SqliteSpool
) -> None:
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda *arguments: (time.sleep(0.01), write(*arguments))[1])
    draft = spool.draft()
    most = 0

    async def send() -> int:
        nonlocal most
        waits = inflight = 0
        for _ in range(160):
            waiting = draft.write(CHUNK)
            inflight += len(CHUNK)
            if waiting is not None:
                assert not waiting.called
                await waiting
                waits += 1
                inflight = 0
            most = max(most, inflight)
        return waits

    waits = pump.run(send())
    assert waits >= 5
    assert most <= 2 * 1024 * 1024
    pump.run(draft.commit(ENVELOPE, [target(RELAY)]))
    (delivery,) = pump.run(spool.claim(RELAY, 1))
    assert delivery.content.size == 160 * len(CHUNK)
    with delivery.content.open() as file:
        assert file.read() == CHUNK * 160


@pytest.mark.parametrize("chunks", [1, 20, 80])
def test_aborted_file_is_removed(pump: Pump, directory: Path, spool: SqliteSpool, chunks: int) -> None:
    before = descriptors()
    draft = spool.draft()
    for _ in range(chunks):
        draft.write(CHUNK)
    draft.abort()
    pump.until(lambda: listed(directory) == [] and descriptors() <= before + 2)
    assert pump.run(spool.count()) == 0


def test_session_that_waits_for_the_disk_is_woken_by_an_abort(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda *arguments: (time.sleep(0.05), write(*arguments))[1])
    draft = spool.draft()
    waiting = None
    while waiting is None:
        waiting = draft.write(CHUNK)
    draft.abort()
    pump.run(waiting)
    pump.until(lambda: listed(directory) == [])
    with pytest.raises(SpoolError):
        draft.write(CHUNK)


def test_file_goes_after_the_last_recipient(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    draft = spool.draft()
    draft.write(CHUNK)
    pump.run(draft.commit(ENVELOPE, [target(RELAY, "a"), target(RELAY, "b")]))
    (delivery,) = pump.run(spool.claim(RELAY, 1))
    with delivery.content.open() as file:
        pump.run(spool.settle([Settlement(delivery, (DELIVERED, DELIVERED))] * 2))
        pump.until(lambda: listed(directory) == [])
        assert file.read() == CHUNK  # whoever reads is not disturbed
    with pytest.raises(FileNotFoundError):
        delivery.content.open()
    with pytest.raises(FileNotFoundError):
        pump.run(delivery.content.read(0, 1))


def test_who_waits_for_the_end_of_a_file_that_is_given_up_is_told(pump: Pump, tmp_path: Path) -> None:
    disk = Disk(pump, 2)
    disk.start()
    file = ArrivingFile(disk, str(tmp_path / "FILE"), lambda _: None)
    for _ in range(20):
        file.append(CHUNK)
    finished = file.finish()
    file.discard()
    with pytest.raises(SpoolError, match="given up"):
        pump.run(finished)
    pump.run(disk.idle())
    disk.stop()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="closed"):
        pump.run(disk.run(list))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Make a function of os fail as on a full disk, for content files."""

    def fail(name: str) -> None:
        def no_room(*arguments: Any) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, name, no_room)

    yield fail
    monkeypatch.undo()


@pytest.mark.parametrize("function", ["open", "write", "fsync"])
def test_full_disk_is_told_and_nothing_of_the_message_stays(
    failing: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    pump: Pump,
    directory: Path,
    spool: SqliteSpool,
    function: str,
) -> None:
    before = descriptors()
    failing(function)
    for size in (1, 100):  # one that fails at the end, and one that fails on the way
        draft = spool.draft()

        async def send(draft: Any = draft, size: int = size) -> None:
            for _ in range(size):
                waiting = draft.write(CHUNK)
                if waiting is not None:
                    await waiting
            await draft.commit(ENVELOPE, [target(RELAY)])

        with pytest.raises(SpoolFull):
            pump.run(send())
        draft.abort()
    monkeypatch.undo()
    pump.until(lambda: listed(directory) == [] and descriptors() <= before + 3)
    assert pump.run(spool.count()) == 0
    draft = spool.draft()
    draft.write(CHUNK)
    pump.run(draft.commit(ENVELOPE, [target(RELAY)]))
    assert listed(directory) == [draft.queue_id]


def test_stop_removes_files_of_drafts_that_were_never_committed(
    pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    before = descriptors()
    drafts = [spool.draft() for _ in range(3)]
    for draft in drafts:
        for _ in range(20):
            draft.write(CHUNK)
    answer = ensureDeferred(spool_commit(drafts[0]))
    pump.run(spool.stop())
    pump.run(answer)
    assert listed(directory) == [drafts[0].queue_id]
    assert descriptors() < before
    for draft in drafts[1:]:
        with pytest.raises(SpoolError):
            draft.write(CHUNK)
        with pytest.raises(SpoolError):
            pump.run(draft.commit(ENVELOPE, [target(RELAY)]))
        draft.abort()


async def spool_commit(draft: Any) -> None:
    await draft.commit(ENVELOPE, [target(RELAY)])
