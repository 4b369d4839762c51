"""A small SQLite file that mail goes on without: for what is a pity to lose, and no more than that.

Each piece of work opens the database anew, in a thread, and is one transaction: there are few of them. A database that
is lost is made anew; one that is broken, or of another version, is thrown away; a disk that is full or may not be
written is logged, once. Nothing is raised for any of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from twisted.logger import Logger

_T = TypeVar("_T")
InThread = Callable[..., Awaitable[Any]]


class SmallDatabase:
    """The database in a file, of so many octets at the most.

    `schema` are the statements that make it; with a later `version` what is there is thrown away. `what` names in the
    log what is not kept.
    """

    _log = Logger()

    def __init__(
        self, file: Path, in_thread: InThread, schema: str, *, what: str, largest: int, version: int = 1
    ) -> None:
        self._file = file
        self._in_thread = in_thread
        self._schema = schema
        self._version = version
        self._what = what
        self._largest = largest
        self._lock = Lock()
        self._complaint = ""

    async def do(self, work: Callable[..., _T], *args: object) -> _T | None:
        """What `work(connection, *args)` returns, done in a thread; None where the disk or the file is at fault."""
        result: _T | None = await self._in_thread(self._work, work, *args)
        return result

    def _work(self, work: Callable[..., _T], *args: object) -> _T | None:
        with self._lock:
            for attempt in (1, 2):
                try:
                    with self._opened() as connection:
                        connection.execute("BEGIN IMMEDIATE")
                        result = work(connection, *args)
                        connection.execute("COMMIT")
                except (sqlite3.OperationalError, OSError) as error:
                    self._complain(error)
                    return None
                except (sqlite3.DatabaseError, _OfAnotherMake) as error:
                    self._log.warn("{file} is thrown away: {error}", file=str(self._file), error=error)
                    if attempt == 2 or not self._throw_away():
                        return None
                else:
                    self._complaint = ""
                    return result
        return None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=5.0, isolation_level=None)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._file.chmod(0o600)  # it tells with whom we exchange mail
                connection.executescript(f"BEGIN; {self._schema}; PRAGMA user_version = {self._version}; COMMIT")
            elif version != self._version:
                raise _OfAnotherMake(f"it is of version {version}")
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count = {self._largest // size}")
            yield connection

    def _throw_away(self) -> bool:
        try:
            for name in (self._file, self._file.with_name(f"{self._file.name}-journal")):
                name.unlink(missing_ok=True)
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: Exception) -> None:
        """Log a fault once, until there is another or none."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            self._log.error("{file}: {what} are not kept: {error}", file=str(self._file), what=self._what, error=error)


class _OfAnotherMake(Exception):
    """The database is not one of ours, or of another version."""
