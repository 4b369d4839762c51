"""Opening the spool's directory: the lock, the database, what a crash has left.

    <directory>/lock         locked while a process uses the spool; says which
    <directory>/queue.db     the database, with -wal and -shm beside it
    <directory>/contents/    a file for each large content

All of it blocks and runs in a thread. A spool that is broken is never replaced by a new and empty one: where the
database is missing although there was one, `SpoolError` says so, and nothing is swept.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple

from twisted.logger import Logger

from mailsuite.interfaces import SpoolError, SpoolInUse
from mailsuite.spool import completed, partials, schema
from mailsuite.spool.changes import void
from mailsuite.spool.errors import spool_error
from mailsuite.spool.files import sweep, sync_directory

_log = Logger()

_DATABASE = "queue.db"
_PATIENCE = 3.0  # seconds for the lock
_PAUSE = 0.02


class Opened(NamedTuple):
    """An open spool. Who holds `lock` (a descriptor) holds the directory; `owner` is the lease of this run.

    `parts` are the names of parts, with the times when they were kept; `completed` those of completed
    transactions, with their weights.
    """

    lock: int
    db: sqlite3.Connection
    owner: int
    last_message: int
    last_recipient: int
    parts: dict[str, float]
    completed: dict[str, int]


def database(directory: str) -> str:
    """The path of the database."""
    return f"{directory}/{_DATABASE}"


def contents(directory: str) -> str:
    """The directory of content files."""
    return f"{directory}/contents"


def was_used(directory: str) -> bool:
    """Whether a spool in this directory has ever been started. Blocks; raises `OSError`."""
    with suppress(FileNotFoundError):
        return os.stat(f"{directory}/lock").st_size > 0
    return False


def open_spool(directory: str, lease_until: float, partials_since: float, *, patience: float = _PATIENCE) -> Opened:
    """Lock, check, migrate; void dead leases and take ours; sweep. Raises `SpoolError`, leaving nothing open.

    Parts of messages, and names of completed ones, that were kept before `partials_since` go. It waits for the lock for
    `patience` seconds.
    """
    path = database(directory)
    with ExitStack() as undo:
        try:
            _make_directory(directory)
            lock = _lock(directory, patience)
            undo.callback(os.close, lock)
            _make_directory(contents(directory))
            created = _prepare(directory, lock)
            db = schema.connect(path)
            undo.callback(db.close)
            if schema.version(db):
                schema.check(db, path)
            elif not created:
                raise SpoolError(f"{path} is empty, but there was a queue in it. {_cure(directory)}")
            schema.migrate(db, path)
            owner, last_message, last_recipient = _take_over(db, lease_until)
            files = partials.examine(db, contents(directory), partials_since)
            known = db.execute("SELECT queue_id FROM messages WHERE in_file")
            sweep(contents(directory), files.union(queue_id for (queue_id,) in known.fetchall()))
            parts = dict(db.execute("SELECT name, kept FROM partials ORDER BY kept").fetchall())
            complete = completed.examine(db, partials_since)
            sync_directory(directory)
            os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)
            os.fsync(lock)
        except (OSError, sqlite3.Error) as error:
            raise spool_error(error, path) from error
        undo.pop_all()
    return Opened(lock, db, owner, last_message, last_recipient, parts, complete)


def _make_directory(path: str) -> None:
    with suppress(FileExistsError):
        os.makedirs(path, 0o700)
        sync_directory(os.path.dirname(path) or ".")


def _lock(directory: str, seconds: float) -> int:
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # The writer of a server that was killed holds it for a moment longer, until what it was given is done.
    end = time.monotonic() + seconds
    while not (locked := _try_to_lock(lock)) and time.monotonic() < end:
        time.sleep(_PAUSE)
    if not locked:
        process = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        if process.isdigit() and not _is_alive(int(process)):
            raise SpoolError(
                f"What a mailsuite had begun that was killed is still being written in {directory}; "
                "start again in a moment"
            )
        who = f" (process {process})" if process else ""
        raise SpoolInUse(f"Another mailsuite{who} uses the spool in {directory}; stop it first")
    return lock


def _try_to_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _prepare(directory: str, lock: int) -> bool:
    """Make the database's file where this is the first start. Whether it may be empty."""
    path = database(directory)
    # The lock gets its text at the end of the first start that succeeds.
    used = os.fstat(lock).st_size > 0 or bool(os.listdir(contents(directory)))
    if os.path.exists(path):
        return not used
    if used:
        raise SpoolError(f"{path} is missing, but there was a queue in it. {_cure(directory)}")
    # By hand, for SQLite would make it readable for others; its own files beside it take the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return True


def _cure(directory: str) -> str:
    return f"Restore it, or remove {directory} to begin with an empty queue"


def _take_over(db: sqlite3.Connection, lease_until: float) -> tuple[int, int, int]:
    """End the leases of earlier runs, and begin ours; its number, and the last keys of messages and recipients."""
    db.execute("BEGIN IMMEDIATE")
    # We hold the lock, so whoever had these is dead.
    replayed = void(db)
    owner = db.execute("INSERT INTO leases (lease_until) VALUES (?)", (lease_until,)).lastrowid
    db.execute("COMMIT")
    if replayed:
        _log.warn("{replayed} recipients were being served when the last run ended", replayed=replayed)
    last_message, last_recipient = db.execute(
        "SELECT (SELECT max(key) FROM messages), (SELECT max(key) FROM recipients)"
    ).fetchone()
    return int(owner or 0), last_message or 0, last_recipient or 0
