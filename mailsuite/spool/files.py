"""Content files: written while the message arrives, swept after a crash.

A file has the queue id as its name from its first octet on, so one rule tells what is rubbish: a file whose id has no
row, as a message or as a part of one. A file is synced, with its directory, before its row is committed; it is unlinked
after the row's deletion was committed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import Logger

from mailsuite.interfaces import SpoolError
from mailsuite.spool.contents import FileContent
from mailsuite.spool.disk import Disk
from mailsuite.spool.errors import spool_error

_log = Logger()

# A visit to a thread for so many octets: few visits, and yet the disk begins while the peer sends.
_BATCH = 1024 * 1024


class ContentFiles:
    """The directory of content files."""

    def __init__(self, directory: str, disk: Disk) -> None:
        self.directory = directory
        self._disk = disk
        self._arriving: set[ArrivingFile] = set()

    def arrive(self, queue_id: str) -> ArrivingFile:
        """A new file, to be written."""
        file = ArrivingFile(self._disk, f"{self.directory}/{queue_id}", self._arriving.discard)
        self._arriving.add(file)
        return file

    async def reopen(self, queue_id: str, size: int) -> ArrivingFile:
        """The file of a part, to be written on behind its `size` octets. Raises `OSError` where it has not so many."""
        path = f"{self.directory}/{queue_id}"
        descriptor = await self._disk.run(_reopen, path, size)
        file = ArrivingFile(self._disk, path, self._arriving.discard, descriptor, size)
        self._arriving.add(file)
        return file

    def content(self, queue_id: str, size: int) -> FileContent:
        """The content in the file of that id."""
        return FileContent(self._disk, self.directory, queue_id, size)

    def unlink(self, queue_ids: Sequence[str]) -> None:
        """Remove the files of messages that are gone, in a thread."""
        job = self._disk.run(unlink, [f"{self.directory}/{queue_id}" for queue_id in queue_ids])
        job.addErrback(lambda failure: _log.failure("content files were not removed", failure))

    def discard_arriving(self) -> None:
        """Remove every file that is being written and was not asked to be finished."""
        for file in tuple(self._arriving):
            if not file.is_finishing:
                file.discard()


class ArrivingFile:
    """A content file under way, for one draft. All calls come on the reactor's thread.

    What is appended gathers in memory and goes to a thread in batches, one visit at a time: at most about two
    batches and one piece lie in memory. `ended` is told when nothing more will be done to it.
    """

    def __init__(
        self, disk: Disk, path: str, ended: Callable[[ArrivingFile], None], descriptor: int = -1, position: int = 0
    ) -> None:
        self._disk = disk
        self._path = path
        self._ended = ended
        self._descriptor = descriptor  # these two are touched by the visiting thread only
        self._position = position
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._visiting = False
        self._error: Exception | None = None
        self._room: Deferred[None] | None = None
        self._finished: Deferred[None] | None = None
        self._size: int | None = None  # what it is cut back to at its end
        self._closed = False
        self._discarded = False

    @property
    def is_finishing(self) -> bool:
        """Whether `finish` was called."""
        return self._finished is not None

    def append(self, data: bytes) -> Deferred[None] | None:
        """Take octets. A Deferred means: wait for it before the next. Raises `SpoolError` when a write has failed."""
        if (error := self._trouble()) is not None:
            raise error
        self._gathered.append(data)
        self._gathered_size += len(data)
        if self._gathered_size < _BATCH:
            return None
        if not self._visiting:
            self._visit()
            return None
        if self._room is None or self._room.called:
            self._room = Deferred()
        return self._room

    def finish(self, size: int | None = None) -> Deferred[None]:
        """Write what is left, cut it back to `size` octets, sync file and directory.

        Raises `SpoolError`; then all that is left is `discard`.
        """
        if (error := self._trouble()) is not None:
            return fail(error)
        self._size = size
        self._finished = Deferred()
        self._visit()
        return self._finished

    def discard(self) -> None:
        """Remove the file. Does nothing a second time."""
        if not self._discarded:
            self._discarded = True
            self._visit()

    def _trouble(self) -> SpoolError | None:
        if self._discarded:
            return SpoolError(f"{self._path} was given up")
        return None if self._error is None else spool_error(self._error, self._path)

    def _visit(self) -> None:
        if not self._visiting:
            self._visiting = True
            visits = ensureDeferred(self._visits())
            visits.addErrback(lambda failure: _log.failure("cannot remove {path}", failure, path=self._path))

    async def _visits(self) -> None:
        # Whoever is told something in here may call back at once, so each round looks at the state anew.
        try:
            while not self._discarded:
                last = self._finished is not None
                if self._closed or self._error is not None or not (last or self._gathered_size >= _BATCH):
                    return
                pieces, self._gathered, self._gathered_size = self._gathered, [], 0
                try:
                    await self._disk.run(self._write, pieces, last)
                except Exception as error:  # noqa: BLE001 - the draft tells it
                    self._error = error
                self._tell(last=last)
            self._error = self._trouble()  # whoever waits for the end is told
            self._tell(last=True)
            self._ended(self)
            await self._disk.run(self._remove)
        finally:
            self._visiting = False

    def _tell(self, *, last: bool) -> None:
        error, finished = self._error, self._finished
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)  # after an error the next append says what happened
        if finished is not None and not self._closed and (last or error is not None):
            self._closed = True
            self._ended(self)
            if error is None:
                finished.callback(None)
            else:
                finished.errback(spool_error(error, self._path))

    # In a thread, one at a time:

    def _write(self, pieces: list[bytes], last: bool) -> None:  # noqa: FBT001 - called through the pool
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        octets = memoryview(b"".join(pieces))
        size = len(octets)
        while octets:
            octets = octets[os.write(self._descriptor, octets) :]
        if not last:
            # What was just written goes to the disk now, without waiting for it, so that the last sync is short.
            # (Linux drops clean pages on this advice, and these are dirty: a delivery still finds them in memory.)
            with suppress(OSError, AttributeError):  # not every system has it
                os.posix_fadvise(self._descriptor, self._position, size, os.POSIX_FADV_DONTNEED)
            self._position += size
            return
        if self._size is not None:
            os.ftruncate(self._descriptor, self._size)
        os.fsync(self._descriptor)
        self._close()
        sync_directory(os.path.dirname(self._path))

    def _remove(self) -> None:
        self._close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _reopen(path: str, size: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    if (found := os.fstat(descriptor).st_size) != size:
        os.close(descriptor)
        raise OSError(errno.EIO, f"{path} has {found} octets in place of {size}")
    return descriptor


def sync_directory(path: str) -> None:
    """Make the names in a directory durable. Blocks; raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(directory: str, known: Collection[str]) -> list[str]:
    """Remove files that no row knows, and return the ids whose file is missing. Blocks; raises `OSError`."""
    found = set(os.listdir(directory))
    rubbish = found.difference(known)
    unlink([f"{directory}/{name}" for name in rubbish])
    if rubbish:
        _log.info("removed {count} content files of messages that were never accepted", count=len(rubbish))
    missing = sorted(set(known).difference(found))
    for queue_id in missing:
        _log.critical(
            "the content of message {queue_id} is lost: {directory}/{queue_id} is missing",
            queue_id=queue_id,
            directory=directory,
        )
    return missing


def unlink(paths: Sequence[str]) -> None:
    """Remove files, as far as they are there. Blocks; what cannot be removed is logged."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            # The next start sweeps it.
            _log.error("cannot remove {path}: {error}", path=path, error=error)
