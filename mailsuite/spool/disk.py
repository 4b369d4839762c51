"""Threads and connections for the disk work that is not a transaction: content files, and reading.

Nothing here runs on the reactor's thread but the starting of jobs and what follows them.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mailsuite.spool.schema import connect_reader

_T = TypeVar("_T")
_IDLE_CONNECTIONS = 4
_log = Logger()


class _Thread(threading.Thread):
    """Ends with the process, as the writer's thread does: an end without a stop is a crash like any other."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(daemon=True, **keywords)


class _Pool(ThreadPool):
    threadFactory = _Thread  # type: ignore[assignment]  # it takes keywords only


class Disk:
    """A pool of threads, which knows when all of its work is done."""

    def __init__(self, reactor: IReactorFromThreads, threads: int) -> None:
        self._reactor = reactor
        self._pool = _Pool(0, threads, "spool")
        self._running = 0
        self._waiting: list[Deferred[None]] = []
        self._open = False

    def start(self) -> None:
        """Take jobs from now on."""
        self._open = True
        self._pool.start()

    def run(self, job: Callable[..., _T], *arguments: object) -> Deferred[_T]:
        """Run a job in a thread; its result or its exception. After `stop` an `OSError`.

        A cancellation forgets the result; the job runs on.
        """
        if not self._open:
            return fail(OSError(errno.EBADF, "the spool is closed"))
        self._running += 1
        answer: Deferred[_T] = Deferred()
        work = deferToThreadPool(self._reactor, self._pool, job, *arguments)
        work.addCallbacks(answer.callback, answer.errback)
        work.addBoth(self._ended)
        return answer

    def idle(self) -> Deferred[None]:
        """Wait until no job runs, and none follows from one."""
        answer: Deferred[None] = Deferred()
        if self._running:
            self._waiting.append(answer)
        else:
            answer.callback(None)
        return answer

    def stop(self) -> None:
        """Take no more jobs, end the threads. To be called when it is idle, for it waits for them."""
        if self._open:
            self._open = False
            self._pool.stop()

    def _ended(self, _: object) -> None:
        self._running -= 1
        if not self._running:
            waiting, self._waiting = self._waiting, []
            for answer in waiting:
                answer.callback(None)


class Readers:
    """Connections for reading, one for each thread that reads at the moment; a few stay open."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for the block, in any worker thread. Raises `OSError`, also where SQLite fails in the block."""
        try:
            db = self._take()
            try:
                yield db
            finally:
                self._give_back(db)
        except sqlite3.Error as error:
            raise OSError(errno.EIO, f"cannot read {self._path}: {error}") from error

    def close(self) -> None:
        """Close what is idle now, and the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, f"{self._path} is closed")
            if self._idle:
                return self._idle.pop()
        return connect_reader(self._path)

    def _give_back(self, db: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(db)
                return
        db.close()


def detached(work: Coroutine[Deferred[Any], Any, _T]) -> Deferred[_T]:
    """Run a coroutine that a cancellation does not reach: what is cancelled is the answer alone."""
    answer: Deferred[_T] = Deferred()

    def failed(failure: Failure) -> None:
        if answer.called:
            _log.failure("this failed after its caller was cancelled", failure)
        else:
            answer.errback(failure)

    ensureDeferred(work).addCallbacks(answer.callback, failed)
    return answer
