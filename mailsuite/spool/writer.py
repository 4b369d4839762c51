"""The one thread that writes: whatever is pending becomes the next group, with one commit and one sync.

It never waits for more work or for a timer: while one group is being synced, the next one gathers by itself. The
results of a group go to the reactor in one call. How a group is run is the business of `transactions`; whether in this
process or in another one, of whoever makes the writer.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsuite.interfaces import SpoolError
from mailsuite.spool.transactions import Operation, RunsGroups

_GROUP_LIMIT = 1000  # operations; a longer transaction would only make the first of them wait


class Writer:
    """Has operations run by `transactions`. `path` names the database in errors.

    `committed` is called on the reactor's thread with the operations of a group that are now durable, before
    those who wait for them are told.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFromThreads,
        transactions: RunsGroups,
        path: str,
        committed: Callable[[Sequence[Operation]], None],
    ) -> None:
        self._reactor = reactor
        self._transactions = transactions
        self._path = path
        self._committed = committed
        self._pending: SimpleQueue[Operation | None] = SimpleQueue()
        self._closed: Deferred[None] | None = None
        self._last: Operation | None = None
        self._complaint = ""
        self._thread = threading.Thread(target=self._work, name="spool writer", daemon=True)

    @property
    def count(self) -> int:
        """How many transactions were committed."""
        return self._transactions.count

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

    def close(self, last: Operation) -> Deferred[None]:
        """Finish what was submitted, run `last` by itself, close the database, end the thread."""
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
                self._transactions.run(operations)
                self._reactor.callFromThread(self._report, operations)
            if group[-1] is None:
                break
        self._finish()

    def _finish(self) -> None:
        if self._last is not None:
            self._transactions.run([self._last])
            if self._last.error is not None:
                self._log.error("{path}: not all was written down at the end", path=self._path)
        self._transactions.close()
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
