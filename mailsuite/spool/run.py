"""A run of the SQLite spool: what there is between its start and its stop, and how that is put together."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from mailsuite.interfaces import SpoolError
from mailsuite.mail.route import Destination
from mailsuite.spool import opening
from mailsuite.spool.aging import Aging
from mailsuite.spool.allowance import Bounds
from mailsuite.spool.changes import EndOfLease
from mailsuite.spool.completed import CompletedNames
from mailsuite.spool.disk import Disk, Readers
from mailsuite.spool.draft import Enter
from mailsuite.spool.entry import Entries, Room
from mailsuite.spool.errors import spool_error
from mailsuite.spool.files import ContentFiles
from mailsuite.spool.ids import QueueIds
from mailsuite.spool.partials import Partials
from mailsuite.spool.process import ProcessTransactions
from mailsuite.spool.transactions import Operation, RunsGroups, Transactions
from mailsuite.spool.writer import Writer

_T = TypeVar("_T")
_log = Logger()


class Setting(NamedTuple):
    """What a spool was made with; see `SqliteSpool`."""

    directory: str
    reactor: IReactorFromThreads
    clock: IReactorTime
    spill: int
    lease: float
    room: Room
    threads: int
    history_time: float
    journal_time: float
    bounds: Bounds
    completed_count: int
    completed_octets: int
    process: bool


class Around(NamedTuple):
    """Whom a run asks, and tells."""

    committed: Callable[[Sequence[Operation]], None]
    has_room: Callable[[Destination, int], bool]
    enter: Enter
    lost: Callable[[SpoolError], object]


class Run(NamedTuple):
    """What there is between `start` and `stop`."""

    path: str
    owner: int
    lock: int
    ids: QueueIds
    entries: Entries
    writer: Writer
    disk: Disk
    files: ContentFiles
    readers: Readers
    partials: Partials
    aging: Aging

    def read(self, look: Callable[[sqlite3.Connection], _T]) -> Deferred[_T]:
        """Look into the database, in a thread. Raises `SpoolError`."""
        return _read(self.path, self.disk, self.readers, look)

    async def end(self) -> None:
        """Finish what was asked, give all leases back, close."""
        self.aging.stop()
        parts = self.partials.end()
        self.files.discard_arriving()
        await parts
        await self.disk.idle()  # files that were being finished; their messages are with the writer now
        self.readers.close()
        await self.writer.close(EndOfLease(self.owner))
        await self.disk.idle()  # files of what was settled last
        self.disk.stop()
        os.close(self.lock)


async def begin(setting: Setting, around: Around) -> Run:
    """Open the spool in its directory. Raises `SpoolError`; then nothing is left open."""
    clock, path = setting.clock, opening.database(setting.directory)
    disk = Disk(setting.reactor, setting.threads)
    disk.start()
    try:
        now = clock.seconds()
        opened = await disk.run(opening.open_spool, setting.directory, now + setting.lease, now - setting.bounds.time)
    except BaseException:
        disk.stop()
        raise
    try:
        transactions = await disk.run(_transactions, setting, path, opened, around.lost)
    except BaseException:
        disk.stop()
        os.close(opened.lock)
        raise
    readers = Readers(path)
    writer = Writer(setting.reactor, transactions, path, around.committed)
    files = ContentFiles(opening.contents(setting.directory), disk)
    aging = Aging(
        clock,
        writer.submit,
        lambda look: _read(path, disk, readers, look),
        setting.history_time,
        setting.journal_time,
        setting.bounds.time,
    )
    partials = Partials(
        clock,
        writer.submit,
        files,
        setting.bounds,
        setting.room,
        setting.spill,
        around.enter,
        found=opened.parts,
        completed=CompletedNames(
            clock,
            writer.submit,
            opened.completed,
            setting.completed_count,
            setting.completed_octets,
            setting.bounds.time,
        ),
    )
    entries = Entries(clock, opened.owner, opened.last_message, opened.last_recipient, around.has_room)
    ids = QueueIds(clock, opened.owner)
    writer.start()
    aging.start()
    return Run(path, opened.owner, opened.lock, ids, entries, writer, disk, files, readers, partials, aging)


def _transactions(
    setting: Setting, path: str, opened: opening.Opened, lost: Callable[[SpoolError], object]
) -> RunsGroups:
    """Who runs the operations. Blocks; raises `SpoolError`."""
    if not setting.process:
        return Transactions(opened.db, path)

    def has_lost(error: SpoolError) -> None:
        setting.reactor.callFromThread(lost, error)

    try:
        transactions = ProcessTransactions(path, opened.lock, has_lost)
    except SpoolError as error:
        _log.error("{error}; its work is done by a thread instead, more slowly", error=error)
        return Transactions(opened.db, path)
    opened.db.close()
    return transactions


def _read(path: str, disk: Disk, readers: Readers, look: Callable[[sqlite3.Connection], _T]) -> Deferred[_T]:
    def read() -> _T:
        try:
            with readers.connection() as db:
                return look(db)
        except OSError as error:
            raise spool_error(error, path) from error

    return disk.run(read)
