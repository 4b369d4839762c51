"""MTA-STS policies on the disk, so that a restart is no chance to suppress them (RFC 8461 section 10.2).

SQLite, because one policy is then one row to write: a file would be written whole for each. Each call opens the
database anew, in a thread: calls are few, some for each domain and day. A database that is lost is made anew; one that
is broken or of another make is thrown away; a disk that is full or may not be written is logged. In all these cases
policies are fetched as if there had been none, and mail goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar

from twisted.logger import Logger

from mailsuite.delivery.tls_policies.sts_policy import Mode, PolicyInvalid, StsPolicy, parse_policy

_T = TypeVar("_T")
InThread = Callable[..., Awaitable[Any]]

_VERSION: Final = 1
_SCHEMA: Final = """
    CREATE TABLE policies (
        domain TEXT PRIMARY KEY,
        id TEXT NOT NULL,
        body BLOB NOT NULL,
        fetched REAL NOT NULL,  -- POSIX time
        expires REAL NOT NULL,
        used REAL NOT NULL,     -- roughly when mail last went by it
        tried REAL NOT NULL     -- when it was last fetched, or should have been
    ) WITHOUT ROWID
"""


class Stored(NamedTuple):
    """A policy, the id it was announced by, and until when it holds (POSIX time)."""

    id: str
    policy: StsPolicy
    body: bytes
    fetched: float

    @property
    def expires(self) -> float:
        return self.fetched + self.policy.max_age

    @property
    def is_active(self) -> bool:
        """Whether it demands anything (RFC 8461 section 5)."""
        return self.policy.mode is not Mode.NONE


class StsCache:
    """The policies in a file. Nothing here raises for what is wrong with it."""

    _log = Logger()

    def __init__(self, file: Path, in_thread: InThread) -> None:
        self._file = file
        self._in_thread = in_thread
        self._lock = Lock()
        self._complaint = ""

    async def load(self, domain: str) -> Stored | None:
        """What is stored of a domain, expired or not."""
        rows = await self._do(_select, "SELECT id, body, fetched FROM policies WHERE domain = ?", (domain,))
        for identity, body, fetched in rows or ():
            try:
                return Stored(str(identity), parse_policy(bytes(body)), bytes(body), float(fetched))
            except (PolicyInvalid, TypeError, ValueError):
                continue  # written by nobody of ours
        return None

    async def store(self, domain: str, stored: Stored, now: float) -> None:
        """Keep a policy, which was used now."""
        values = (domain, stored.id, stored.body, stored.fetched, stored.expires, now, now)
        await self._do(_change, "INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    async def renew(self, domain: str, stored: Stored, now: float) -> None:
        """Keep a policy that nobody has used just now."""
        values = (stored.id, stored.body, stored.fetched, stored.expires, now, domain)
        await self._do(
            _change,
            "UPDATE policies SET id = ?, body = ?, fetched = ?, expires = ?, tried = ? WHERE domain = ?",
            values,
        )

    async def note_use(self, domain: str, now: float) -> None:
        """Remember that mail went by this policy."""
        await self._do(_change, "UPDATE policies SET used = ? WHERE domain = ?", (now, domain))

    async def note_try(self, domain: str, when: float) -> None:
        """Remember that it could not be fetched anew."""
        await self._do(_change, "UPDATE policies SET tried = ? WHERE domain = ?", (when, domain))

    async def due(self, *, tried_before: float, used_after: float, now: float, limit: int) -> list[str]:
        """Domains whose policies should be fetched anew, the longest due first; what has expired is forgotten."""
        await self._do(_change, "DELETE FROM policies WHERE expires < ?", (now,))
        rows = await self._do(
            _select,
            "SELECT domain FROM policies WHERE tried < ? AND used > ? ORDER BY tried LIMIT ?",
            (tried_before, used_after, limit),
        )
        return [str(domain) for (domain,) in rows or ()]

    async def _do(self, action: Callable[..., _T], *args: object) -> _T | None:
        result: _T | None = await self._in_thread(self._work, action, *args)
        return result

    def _work(self, action: Callable[..., _T], *args: object) -> _T | None:
        """In a thread."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    with self._opened() as connection:
                        result = action(connection, *args)
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
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
                connection.execute("COMMIT")
            elif version != _VERSION:
                raise _OfAnotherMake(f"it is of version {version}")
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
            self._log.error("{file}: MTA-STS policies are not kept: {error}", file=str(self._file), error=error)


class _OfAnotherMake(Exception):
    """The database is not one of ours, or of a later version."""


def _select(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _change(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> None:
    connection.execute(statement, values)
