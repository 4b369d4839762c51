"""Looks into a spool from another process, while the server runs or is stopped: for commands.

It blocks, and it only reads: nothing is locked, swept or migrated. The database's own files beside it may appear and
stay, as the server's do. Limits: one schema, that of this version; a spool that another version has left is refused.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import BinaryIO

from mailsuite.interfaces import SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import HeldMail
from mailsuite.mail.selection import DestinationLoad, QueuedMessage, Selection
from mailsuite.spool import claims, events, looking, opening, schema

_CONTENT = "SELECT octets FROM messages LEFT JOIN contents ON contents.message = messages.key WHERE queue_id = ?"
_PIECE = 256 * 1024  # octets


class SpoolReader:
    """Reads the spool in a directory. All methods raise `SpoolError`, one sentence, where that cannot be."""

    def __init__(self, directory: str | os.PathLike[str], now: Callable[[], float] = time.time) -> None:
        self._directory = os.path.abspath(directory)
        self._now = now
        self._path = opening.database(self._directory)

    def held(self) -> Sequence[HeldMail]:
        """As `ISpool.held`."""
        with self._connection() as db:
            return claims.held(db.execute(claims.HELD).fetchall())

    def oldest(self) -> Mapping[str, float]:
        """When the oldest message arrived that is held for a domain; what expires next is among these."""
        return {one.domain: one.oldest for one in self.held()}

    def select(self, selection: Selection, limit: int, *, after: str = "") -> Sequence[QueuedMessage]:
        """As `ISpool.select`. What a killed server had under way is shown as active until the next start."""
        with self._connection() as db:
            return looking.select(db, selection, limit, after, self._now())

    def loads(self, limit: int) -> Sequence[DestinationLoad]:
        """As `ISpool.loads`."""
        with self._connection() as db:
            return looking.loads(db, limit, self._now())

    def find(self, text: str, limit: int = 100) -> Sequence[str]:
        """As `ISpool.find`."""
        with self._connection() as db:
            return looking.find(db, text, limit)

    def content(self, queue_id: str) -> Iterator[bytes]:
        """All of a queued message, in pieces. They raise `OSError` where the file cannot be read to its end."""
        with self._connection() as db:
            row = db.execute(_CONTENT, (queue_id,)).fetchone()
        if row is None:
            raise SpoolError(f"There is no message {queue_id} in the queue")
        if row[0] is not None:
            return iter((bytes(row[0]),))
        path = f"{opening.contents(self._directory)}/{queue_id}"
        try:
            return _pieces(open(path, "rb"))
        except OSError as error:
            raise SpoolError(f"{path} cannot be read: {error}") from error

    def history(
        self,
        *,
        kind: EventKind | None = None,
        subject: str | None = None,
        queue_id: str | None = None,
        limit: int = 100,
    ) -> Sequence[Event]:
        """As `ISpool.history`."""
        with self._connection() as db:
            return events.history(db, kind, subject, queue_id, limit)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            if not os.stat(self._path).st_size:
                raise SpoolError(f"There is no queue in {self._directory} yet; start the server first")
            with closing(schema.connect_reader(self._path)) as db:
                if (found := schema.version(db)) != schema.VERSION:
                    raise SpoolError(
                        f"{self._path} was written by another version of mailsuite (version {found} of the schema, "
                        f"here it is {schema.VERSION}); start this version's server once, or use the other's command"
                    )
                yield db
        except FileNotFoundError:
            raise SpoolError(f"There is no spool in {self._directory}") from None
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"{self._path} cannot be read: {error}") from error


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece
