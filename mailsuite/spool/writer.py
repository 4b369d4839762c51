"""The one thread that writes: whatever is pending becomes the next transaction, with one commit and one sync.

It never waits for more work or for a timer: while one transaction is being synced, the next group gathers by itself.
The results of a group go to the reactor in one call. An operation that fails does not spoil the others: the group is
rolled back, and each of its operations has a transaction to itself. A COMMIT that fails fails its whole group.

Operations run in the order in which they were submitted, but for kinds with a `rank`: all of those that are pending run
together, before the others. So fifty messages are inserted by a handful of statements. That matters beyond SQLite's
own time: each statement gives up the interpreter's lock, and has to win it back from a busy reactor.
"""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.spool.errors import CommitFailed, spool_error

_GROUP_LIMIT = 1000  # operations; a longer transaction would only make the first of them wait


class Operation(ABC):
    """Something to do within a transaction.

    It may be run more than once, each time in a transaction that did not happen before. `result` goes to whoever waits.
    """

    __slots__ = ("deferred", "error", "result")

    rank: ClassVar[int | None] = None

    def __init__(self) -> None:
        self.deferred: Deferred[Any] = Deferred()
        self.error: SpoolError | None = None
        self.result: Any = None

    @abstractmethod
    def run(self, db: sqlite3.Connection) -> Any:  # noqa: ANN401 - each kind has its own
        """Do it, in the writer's thread. Whatever it raises fails this operation alone."""

    @classmethod
    def run_together(cls, db: sqlite3.Connection, operations: Sequence[Any]) -> None:
        """Do all that is pending of a kind with a rank. If it raises, each is run alone in a new transaction."""
        for operation in operations:
            operation.result = operation.run(db)


class Writer:
    """Runs operations on a connection that it owns. `path` names the database in errors.

    `committed` is called on the reactor's thread with the operations of a group that are now durable, before
    those who wait for them are told.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFromThreads,
        db: sqlite3.Connection,
        path: str,
        committed: Callable[[Sequence[Operation]], None],
    ) -> None:
        self._reactor = reactor
        self._db = db
        self._path = path
        self._committed = committed
        self._pending: SimpleQueue[Operation | None] = SimpleQueue()
        self._closed: Deferred[None] | None = None
        self._last: Callable[[sqlite3.Connection], None] | None = None
        self._complaint = ""
        self._thread = threading.Thread(target=self._work, name="spool writer", daemon=True)
        self.transactions = 0

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, operation: Operation) -> Deferred[Any]:
        """Have an operation run; its result, once that is durable. Raises `SpoolError`.

        A cancellation forgets the result and changes nothing else.
        """
        if self._closed is not None:
            return fail(SpoolError(f"The spool {self._path} is closed"))
        self._pending.put(operation)
        return operation.deferred

    def close(self, last: Callable[[sqlite3.Connection], None]) -> Deferred[None]:
        """Finish what was submitted, run `last` by itself, close the connection, end the thread."""
        self._last = last
        self._closed = Deferred()
        self._pending.put(None)
        return self._closed

    # In the thread:

    def _work(self) -> None:
        take = self._pending.get
        while True:
            # Nobody else takes, so what qsize() counts is there. None comes last: submit() refuses after close().
            group = [take()]
            group += [take() for _ in range(min(self._pending.qsize(), _GROUP_LIMIT))]
            operations = [operation for operation in group if operation is not None]
            if operations:
                self._run(operations)
                self._reactor.callFromThread(self._report, operations)
                if any(isinstance(operation.error, SpoolFull) for operation in operations):
                    self._make_room()
            if group[-1] is None:
                break
        self._finish()

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
            self.transactions += 1
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

    def _finish(self) -> None:
        try:
            if self._last is not None:
                self._last(self._db)
        except Exception:  # noqa: BLE001 - it is closed in any case
            self._log.failure("{path}: not all was written down at the end", path=self._path)
        try:
            self._db.close()  # the last connection: SQLite brings the log into the database
        except sqlite3.Error as error:
            self._log.error("{path}: {error}", path=self._path, error=error)
        self._reactor.callFromThread(self._ended)

    # On the reactor's thread:

    def _report(self, group: Sequence[Operation]) -> None:
        durable = [operation for operation in group if operation.error is None]
        for operation in group:
            if operation.error is not None:
                self._complain(operation.error)
        if durable:
            if self._complaint:
                self._complaint = ""
                self._log.info("{path}: writing works again", path=self._path)
            try:
                self._committed(durable)
            except Exception:  # noqa: BLE001 - those who wait are to be told all the same
                self._log.failure("a watcher of the spool failed")
        for operation in group:
            if operation.error is None:
                operation.deferred.callback(operation.result)
            else:
                operation.deferred.errback(operation.error)

    def _complain(self, error: SpoolError) -> None:
        # Once for each trouble: a full disk would fill the log as well.
        if str(error) == self._complaint:
            return
        self._complaint = str(error)
        cause = error.__cause__
        if cause is None or isinstance(cause, (sqlite3.Error, OSError)):
            self._log.error("{error}", error=error)
        else:
            self._log.error("{error}", error=error, log_failure=Failure(cause))  # type: ignore[no-untyped-call]

    def _ended(self) -> None:
        self._thread.join()
        if self._closed is not None:
            self._closed.callback(None)


def _rank(kind: type[Operation]) -> int:
    return kind.rank or 0
