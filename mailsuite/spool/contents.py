"""Contents that do not lie in memory: files beside the database, and octets within it.

Both are `mailsuite.mail.content.Content`. They hold no descriptor between two reads, so any number of them costs
nothing; and after their message has left the queue, or the spool has stopped, reading them raises `OSError`.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterable
from io import BytesIO
from typing import BinaryIO

from twisted.internet.defer import Deferred

from mailsuite.spool.disk import Disk, Readers


class FileContent:
    """A content file; `queue_id` is its name."""

    __slots__ = ("_disk", "_path", "_size", "queue_id")

    def __init__(self, disk: Disk, directory: str, queue_id: str, size: int) -> None:
        self._disk = disk
        self._path = f"{directory}/{queue_id}"
        self._size = size
        self.queue_id = queue_id

    @property
    def size(self) -> int:
        """How many octets there are."""
        return self._size

    def in_memory(self) -> None:
        """They never lie in memory."""
        return

    def read(self, offset: int, limit: int) -> Deferred[bytes]:
        """Up to `limit` octets from `offset`, by a thread of the spool."""
        return self._disk.run(self._slice, offset, limit)

    def open(self) -> BinaryIO:
        """The file."""
        return open(self._path, "rb")

    def _slice(self, offset: int, limit: int) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, limit, offset)
        finally:
            os.close(descriptor)


class StoredContent:
    """A content in the database. `message` is the key of its row."""

    __slots__ = ("_disk", "_message", "_readers", "_size")

    def __init__(self, disk: Disk, readers: Readers, message: int, size: int) -> None:
        self._disk = disk
        self._readers = readers
        self._message = message
        self._size = size

    @property
    def size(self) -> int:
        """How many octets there are."""
        return self._size

    def in_memory(self) -> None:
        """Not loaded."""
        return

    def read(self, offset: int, limit: int) -> Deferred[bytes]:
        """Up to `limit` octets from `offset`, by a thread of the spool."""
        return self._disk.run(self._slice, offset, limit)

    def open(self) -> BinaryIO:
        """The octets, read at once: they are no more than the bound above which a content is a file."""
        return BytesIO(self._slice(0, self._size))

    def _slice(self, offset: int, limit: int) -> bytes:
        with self._readers.connection() as db:
            rows = db.execute(
                "SELECT substr(octets, ?, ?) FROM contents WHERE message = ?", (offset + 1, limit, self._message)
            ).fetchall()
        if not rows:
            raise FileNotFoundError(errno.ENOENT, f"content {self._message} is not in the database")
        return bytes(rows[0][0])


def load(db: sqlite3.Connection, messages: Iterable[int]) -> dict[int, bytes]:
    """The octets of these messages, by key; those that have none in the database are missing."""
    wanted = json.dumps(list(messages))
    rows = db.execute(
        "SELECT message, octets FROM contents WHERE message IN (SELECT value FROM json_each(?))", (wanted,)
    )
    return dict(rows.fetchall())
