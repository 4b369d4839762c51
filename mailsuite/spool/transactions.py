"""Operations on the database, and the transactions that run them in groups.

An operation is plain data: it may be run in this process or, pickled, in another one (`process`). What of it stays
here, whoever runs it, is named in `near`; what running it has changed for those who wait comes back as its `effects`.

An operation that fails does not spoil the others: the group is rolled back, and each of its operations has a
transaction to itself. A COMMIT that fails fails its whole group.

Operations run in the order of the group, but for kinds with a `rank`: all of those run together, before the others. So
fifty messages are inserted by a handful of statements.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.spool.errors import CommitFailed, spool_error


class Operation(ABC):
    """Something to do within a transaction.

    It may be run more than once, each time in a transaction that did not happen before. `result` goes to whoever waits.
    All slots must hold plain data, but for those that `near` names: they stay where the operation was made.
    """

    __slots__ = ("deferred", "error", "result")

    rank: ClassVar[int | None] = None
    near: ClassVar[frozenset[str]] = frozenset({"deferred", "error", "result"})

    def __init__(self) -> None:
        self.deferred: Deferred[Any] = Deferred()
        self.error: SpoolError | None = None
        self.result: Any = None

    @abstractmethod
    def run(self, db: sqlite3.Connection) -> Any:  # noqa: ANN401 - each kind has its own
        """Do it, in a thread or a process that may block. Whatever it raises fails this operation alone."""

    @classmethod
    def run_together(cls, db: sqlite3.Connection, operations: Sequence[Any]) -> None:
        """Do all that is pending of a kind with a rank. If it raises, each is run alone in a new transaction."""
        for operation in operations:
            operation.result = operation.run(db)

    def effects(self) -> Any:  # noqa: ANN401 - each kind has its own
        """What running it has changed here, beside `result`: plain data, None where there is nothing."""
        return None

    def take(self, effects: Any) -> None:  # noqa: ANN401 - see `effects`
        """Change the same here, when it was run elsewhere."""
        raise TypeError(f"{type(self).__name__} has no effects to take: {effects!r}")

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name, None) for name in _carried(type(self))])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(_carried(type(self)), state, strict=True):
            setattr(self, name, value)
        self.error = self.result = None


@cache
def _carried(kind: type[Operation]) -> tuple[str, ...]:
    """The slots that go along to another process."""
    slots = [name for base in reversed(kind.__mro__) for name in getattr(base, "__slots__", ())]
    return tuple(name for name in slots if name not in kind.near)


class RunsGroups(Protocol):
    """What a writer asks for: the database in this process, or in another one. All of it blocks."""

    @property
    def count(self) -> int:
        """How many transactions were committed."""

    def run(self, group: Sequence[Operation]) -> None:
        """Run a group, and set `result` or `error` of each. Raises nothing."""

    def close(self) -> None:
        """Close the database."""


class Transactions:
    """Groups on a connection that it owns. `path` names the database in errors."""

    _log = Logger()

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._path = path
        self.count = 0

    def run(self, group: Sequence[Operation]) -> None:
        """Run a group, and set `result` or `error` of each. Raises nothing."""
        self._run(group)
        if any(isinstance(operation.error, SpoolFull) for operation in group):
            self._make_room()

    def close(self) -> None:
        """Close the connection. The last one: SQLite brings the log into the database."""
        try:
            self._db.close()
        except sqlite3.Error as error:
            self._log.error("{path}: {error}", path=self._path, error=error)

    def _run(self, group: Sequence[Operation]) -> None:
        kind: type[SpoolError] = SpoolError
        try:
            self._roll_back()  # in case that it did not work the last time
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._operate(group)
            except Exception:
                self._roll_back()
                if len(group) == 1:
                    raise
                for operation in group:
                    self._run([operation])
                return
            kind = CommitFailed
            self.count += 1
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - each operation's Deferred gets it
            self._roll_back()
            for operation in group:
                operation.error = spool_error(error, self._path, kind=kind)

    def _operate(self, group: Sequence[Operation]) -> None:
        together: dict[type[Operation], list[Operation]] = {}
        others: list[Operation] = []
        for operation in group:
            if operation.rank is None:
                others.append(operation)
            else:
                together.setdefault(type(operation), []).append(operation)
        for kind in sorted(together, key=_rank):
            kind.run_together(self._db, together[kind])
        for operation in others:
            operation.result = operation.run(self._db)

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:  # SQLite rolls back by itself after some errors
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._log.error("{path}: cannot roll back: {error}", path=self._path, error=error)

    def _make_room(self) -> None:
        # The log can be written from its start again once all of it is in the database: then deletions find room.
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _rank(kind: type[Operation]) -> int:
    return kind.rank or 0
