"""Transactions with a name that have been completed, until their peers are known to have heard so (RFC 1845 section 3).

A row for each is written in the transaction that commits its message. Which names there are is known in memory, so
that nothing is read for the many that are not there. They are kept for a set time, and within bounds: past these the
oldest go, some at once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from mailsuite.mail.envelope import Envelope
from mailsuite.mail.partial import Completed
from mailsuite.mail.route import Target
from mailsuite.spool.columns import ENVELOPE, envelope_of, envelope_row, targets_of, targets_text
from mailsuite.spool.rows import Row
from mailsuite.spool.transactions import Operation

RECALL = f"SELECT queue_id, {ENVELOPE}, targets, received FROM completed WHERE name = ? AND time >= ?"  # noqa: S608
HEARD = "DELETE FROM completed WHERE name IN (SELECT value FROM json_each(?))"
EXPIRE = "DELETE FROM completed WHERE name IN (SELECT name FROM completed WHERE time < ? ORDER BY time LIMIT ?)"
_SHARE: Final = 16  # past the bounds one in so many goes


def completion_row(
    name: str, queue_id: str, envelope: Envelope, targets: Sequence[Target], received: int, now: float
) -> Row:
    """The row for a message that is being committed."""
    return (name, queue_id, *envelope_row(envelope), targets_text(targets), received, now)


class Recall(Operation):
    """Looks a completed transaction up. The result is its row, or None."""

    __slots__ = ("_name", "_since")

    def __init__(self, name: str, since: float) -> None:
        super().__init__()
        self._name = name
        self._since = since

    def run(self, db: sqlite3.Connection) -> Row | None:
        row: Row | None = db.execute(RECALL, (self._name, self._since)).fetchone()
        return row


class Heard(Operation):
    """Removes completed transactions."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._names = json.dumps(list(names))

    def run(self, db: sqlite3.Connection) -> None:
        db.execute(HEARD, (self._names,))


def expire(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove up to so many from before a time, the oldest first; tell how many."""
    return db.execute(EXPIRE, (before, limit)).rowcount


def examine(db: sqlite3.Connection, before: float) -> dict[str, int]:
    """Remove what is too old; the weights of what is there by name, the oldest first. Blocks."""
    db.execute("DELETE FROM completed WHERE time < ?", (before,))
    return dict(db.execute("SELECT name, length(name) + length(targets) FROM completed ORDER BY time").fetchall())


class CompletedNames:
    """The names of completed transactions in a running spool; `found` are the weights of those that it began with.

    There are no more than `count`, of `octets` in all, each for `time` seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        submit: Callable[[Operation], Deferred[Any]],
        found: dict[str, int],
        count: int,
        octets: int,
        time: float,
    ) -> None:
        self._clock = clock
        self._submit = submit
        self._names = found  # with their weights, the oldest first
        self._weight = sum(found.values())
        self._count = count
        self._octets = octets
        self._time = time

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, row: Row) -> None:
        """A message was committed with this row of its name."""
        name = row[0]
        self._drop(name)
        self._names[name] = weight = len(name) + len(row[-3])
        self._weight += weight
        if len(self._names) > self._count or self._weight > self._octets:
            self._make_room()

    async def recall(self, name: str) -> Completed | None:
        """The transaction of that name. Raises `SpoolError`."""
        row = await self._submit(Recall(name, self._clock.seconds() - self._time))
        if row is None:
            self._drop(name)
            return None
        queue_id, *envelope, targets, received = row
        return Completed(queue_id, envelope_of(tuple(envelope)), targets_of(targets), received)

    def heard(self, names: Sequence[str]) -> Deferred[None]:
        """See `ISpool.heard`."""
        known = [name for name in names if name in self._names]
        for name in known:
            self._drop(name)
        return self._submit(Heard(known)) if known else succeed(None)

    def _drop(self, name: str) -> None:
        self._weight -= self._names.pop(name, 0)

    def _make_room(self) -> None:
        count, octets = self._count - self._count // _SHARE, self._octets - self._octets // _SHARE
        gone: list[str] = []
        for name, weight in self._names.items():
            left = len(self._names) - len(gone)
            if left <= count and self._weight <= octets:
                break
            gone.append(name)
            self._weight -= weight
        for name in gone:
            del self._names[name]
        self._submit(Heard(gone)).addErrback(lambda _: None)  # the writer has logged it; they go by time
