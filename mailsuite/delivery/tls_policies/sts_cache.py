"""MTA-STS policies on the disk, so that a restart is no chance to suppress them (RFC 8461 section 10.2).

SQLite, because one policy is then one row to write: a file would be written whole for each. Calls are few, some for
each domain and day. Where the file or the disk is at fault, policies are fetched as if there had been none, and mail
goes on.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final, NamedTuple

from mailsuite.delivery.small_database import InThread, SmallDatabase
from mailsuite.delivery.tls_policies.sts_policy import Mode, PolicyInvalid, StsPolicy, parse_policy

_LARGEST: Final = 256 * 1024 * 1024
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

    def __init__(self, file: Path, in_thread: InThread) -> None:
        self._database = SmallDatabase(file, in_thread, _SCHEMA, what="MTA-STS policies", largest=_LARGEST)

    async def load(self, domain: str) -> Stored | None:
        """What is stored of a domain, expired or not."""
        rows = await self._database.do(_select, "SELECT id, body, fetched FROM policies WHERE domain = ?", (domain,))
        for identity, body, fetched in rows or ():
            try:
                return Stored(str(identity), parse_policy(bytes(body)), bytes(body), float(fetched))
            except (PolicyInvalid, TypeError, ValueError):
                continue  # written by nobody of ours
        return None

    async def store(self, domain: str, stored: Stored, now: float) -> None:
        """Keep a policy, which was used now."""
        values = (domain, stored.id, stored.body, stored.fetched, stored.expires, now, now)
        await self._database.do(_change, "INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    async def renew(self, domain: str, stored: Stored, now: float) -> None:
        """Keep a policy that nobody has used just now."""
        values = (stored.id, stored.body, stored.fetched, stored.expires, now, domain)
        await self._database.do(
            _change,
            "UPDATE policies SET id = ?, body = ?, fetched = ?, expires = ?, tried = ? WHERE domain = ?",
            values,
        )

    async def note_use(self, domain: str, now: float) -> None:
        """Remember that mail went by this policy."""
        await self._database.do(_change, "UPDATE policies SET used = ? WHERE domain = ?", (now, domain))

    async def note_try(self, domain: str, when: float) -> None:
        """Remember that it could not be fetched anew."""
        await self._database.do(_change, "UPDATE policies SET tried = ? WHERE domain = ?", (when, domain))

    async def due(self, *, tried_before: float, used_after: float, now: float, limit: int) -> list[str]:
        """Domains whose policies should be fetched anew, the longest due first; what has expired is forgotten."""
        await self._database.do(_change, "DELETE FROM policies WHERE expires < ?", (now,))
        rows = await self._database.do(
            _select,
            "SELECT domain FROM policies WHERE tried < ? AND used > ? ORDER BY tried LIMIT ?",
            (tried_before, used_after, limit),
        )
        return [str(domain) for (domain,) in rows or ()]


def _select(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _change(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> None:
    connection.execute(statement, values)
