"""Looks into a spool from another process, while the server runs or is stopped: for commands.

It blocks, and it only reads: nothing is locked, swept or migrated. The database's own files beside it may appear and
stay, as the server's do. Limits: one schema, that of this version; a spool that another version has left is refused.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from mailsuite.interfaces import SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import HeldMail
from mailsuite.spool import claims, opening, schema
from mailsuite.spool.events import as_events, history_query


class SpoolReader:
    """Reads the spool in a directory. All methods raise `SpoolError`, one sentence, where that cannot be."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = os.path.abspath(directory)
        self._path = opening.database(self._directory)

    def held(self) -> Sequence[HeldMail]:
        """As `ISpool.held`."""
        with self._connection() as db:
            return claims.held(db.execute(claims.HELD).fetchall())

    def oldest(self) -> Mapping[str, float]:
        """When the oldest message arrived that is held for a domain; what expires next is among these."""
        return {one.domain: one.oldest for one in self.held()}

    def history(
        self,
        *,
        kind: EventKind | None = None,
        subject: str | None = None,
        queue_id: str | None = None,
        limit: int = 100,
    ) -> Sequence[Event]:
        """As `ISpool.history`."""
        statement, arguments = history_query(kind, subject, queue_id, limit)
        with self._connection() as db:
            return as_events(db.execute(statement, arguments).fetchall())

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
