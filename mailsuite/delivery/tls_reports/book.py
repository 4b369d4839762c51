"""The counts on the disk, until their day's report has left; and which reports have left, or are to be tried again.

Bounded: of a domain and day so many kinds of events are kept apart, after which only their kind counts, and then
nothing; what is older than a few days is forgotten; and the file has a size that it does not pass.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from mailsuite.delivery.small_database import InThread, SmallDatabase
from mailsuite.delivery.tls_reports.tally import Event, Policy

_LARGEST: Final = 128 * 1024 * 1024
_MOST_KINDS: Final = 100  # of events of a domain and day; the same number again without their details
_KEPT_DAYS: Final = 3
_NEVER: Final = 1e18
_SCHEMA: Final = """
    CREATE TABLE policies (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        source TEXT NOT NULL,
        text TEXT NOT NULL,   -- JSON
        hosts TEXT NOT NULL   -- JSON
    );
    CREATE TABLE counts (
        day INTEGER NOT NULL,
        domain TEXT NOT NULL,
        policy INTEGER NOT NULL,
        kind TEXT NOT NULL,
        local TEXT NOT NULL,
        host TEXT NOT NULL,
        address TEXT NOT NULL,
        reason TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (day, domain, policy, kind, local, host, address, reason)
    ) WITHOUT ROWID;
    CREATE TABLE reports (
        day INTEGER NOT NULL,
        domain TEXT NOT NULL,
        tries INTEGER NOT NULL,
        due REAL NOT NULL,    -- POSIX time of the next try
        PRIMARY KEY (day, domain)
    ) WITHOUT ROWID
"""


class Due(NamedTuple):
    """A report that is to be made, and how often that was tried."""

    day: int
    domain: str
    tries: int


class Book:
    """The counts in a file. Nothing here raises for what is wrong with it."""

    def __init__(self, file: Path, in_thread: InThread, *, largest: int = _LARGEST) -> None:
        self._database = SmallDatabase(file, in_thread, _SCHEMA, what="counts for reports on TLS", largest=largest)

    async def add(self, counts: Sequence[tuple[Event, int]]) -> bool:
        """Write counts down; whether that was possible."""
        return await self._database.do(_add, counts) is not None

    async def due(self, today: int, now: float, limit: int) -> list[Due]:
        """Reports of days that are over, and not tried in vain just now. Their days come in order."""
        return await self._database.do(_due, today, now, limit) or []

    async def next_due(self, today: int) -> float | None:
        """When the next report is due that was tried in vain; None where there is none."""
        found = await self._database.do(_next_due, today)
        return found[0] if found else None

    async def events(self, day: int, domain: str) -> list[tuple[Event, int]]:
        """All that was counted for a report."""
        return await self._database.do(_events, day, domain) or []

    async def defer(self, due: Due, until: float) -> None:
        """A report was tried in vain."""
        await self._database.do(_mark, due.day, due.domain, due.tries + 1, until)

    async def close(self, due: Due) -> None:
        """A report has left, or never will: there is none of this domain and day any more."""
        await self._database.do(_close, due)

    async def prune(self, today: int) -> None:
        """Forget what is too old for a report."""
        await self._database.do(_prune, today - _KEPT_DAYS)


def _add(connection: sqlite3.Connection, counts: Iterable[tuple[Event, int]]) -> bool:
    known: dict[Policy, int] = {}
    kinds: dict[tuple[int, str], int] = {}
    for event, count in counts:
        policy = known.get(event.policy)
        if policy is None:
            policy = known[event.policy] = _policy_id(connection, event.policy)
        key = event.day, event.domain, policy, event.kind, event.local, event.host, event.address, event.reason
        if _increase(connection, key, count):
            continue
        of_domain = event.day, event.domain
        if of_domain not in kinds:
            (kinds[of_domain],) = connection.execute(
                "SELECT count(*) FROM counts WHERE day = ? AND domain = ?", of_domain
            ).fetchone()
        if kinds[of_domain] >= _MOST_KINDS:
            key = (*key[:4], "", "", "", "")
            if kinds[of_domain] >= 2 * _MOST_KINDS or _increase(connection, key, count):
                continue
        connection.execute("INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*key, count))
        kinds[of_domain] += 1
    return True


def _increase(connection: sqlite3.Connection, key: Sequence[object], count: int) -> bool:
    changed = connection.execute(
        "UPDATE counts SET count = count + ? WHERE (day, domain, policy, kind, local, host, address, reason)"
        " = (?, ?, ?, ?, ?, ?, ?, ?)",
        (count, *key),
    )
    return changed.rowcount > 0


def _policy_id(connection: sqlite3.Connection, policy: Policy) -> int:
    values = policy.source, json.dumps(policy.text), json.dumps(policy.hosts)
    digest = sha256(json.dumps(values).encode()).digest()
    connection.execute(
        "INSERT INTO policies (digest, source, text, hosts) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (digest, *values),
    )
    (found,) = connection.execute("SELECT id FROM policies WHERE digest = ?", (digest,)).fetchone()
    return int(found)


def _due(connection: sqlite3.Connection, today: int, now: float, limit: int) -> list[Due]:
    rows = connection.execute(
        "SELECT DISTINCT counts.day, counts.domain, coalesce(tries, 0) FROM counts"
        " LEFT JOIN reports ON reports.day = counts.day AND reports.domain = counts.domain"
        " WHERE counts.day < ? AND coalesce(due, 0) <= ? ORDER BY counts.day, counts.domain LIMIT ?",
        (today, now, limit),
    )
    return [Due(*row) for row in rows]


def _next_due(connection: sqlite3.Connection, today: int) -> list[float]:
    rows = connection.execute("SELECT min(due) FROM reports WHERE day < ? AND due < ?", (today, _NEVER))
    return [float(due) for (due,) in rows if due is not None]


def _events(connection: sqlite3.Connection, day: int, domain: str) -> list[tuple[Event, int]]:
    rows = connection.execute(
        "SELECT source, text, hosts, kind, local, host, address, reason, count FROM counts"
        " JOIN policies ON policies.id = policy WHERE day = ? AND domain = ?",
        (day, domain),
    )
    return [
        (Event(day, domain, Policy(source, tuple(json.loads(text)), tuple(json.loads(hosts))), *rest), count)
        for source, text, hosts, *rest, count in rows
    ]


def _mark(connection: sqlite3.Connection, day: int, domain: str, tries: int, due: float) -> None:
    connection.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?, ?)", (day, domain, tries, due))


def _close(connection: sqlite3.Connection, due: Due) -> None:
    connection.execute("DELETE FROM counts WHERE day = ? AND domain = ?", (due.day, due.domain))
    # Stays: what is written down late makes no second report of that day.
    _mark(connection, due.day, due.domain, due.tries, _NEVER)


def _prune(connection: sqlite3.Connection, before: int) -> None:
    connection.execute("DELETE FROM counts WHERE day < ?", (before,))
    connection.execute("DELETE FROM reports WHERE day < ?", (before,))
    connection.execute("DELETE FROM policies WHERE id NOT IN (SELECT policy FROM counts)")
