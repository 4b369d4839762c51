"""The disk's errors in the spool's words."""

from __future__ import annotations

import errno
import sqlite3

from mailsuite.interfaces import SpoolDown, SpoolError, SpoolFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
# The low byte of an extended result code is the primary one (https://sqlite.org/rescode.html).
_PRIMARY = 0xFF
# The index of the log (the -shm file) cannot grow: that is how a full disk looks there.
_SHM_SIZE = sqlite3.SQLITE_IOERR_SHMSIZE


# Of these it does not matter what was to be written. Others (a text that is none, a damaged page) concern that alone.
_DOWN = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


class CommitFailed(SpoolDown):
    """A COMMIT ended with an error of the disk: only the next start will show what of it is there."""


def is_full(error: BaseException) -> bool:
    """Whether an error of the system or of SQLite says that there is no room."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)  # missing where the module itself raised it
        return code & _PRIMARY == sqlite3.SQLITE_FULL or code == _SHM_SIZE
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def is_down(error: BaseException) -> bool:
    """Whether an error of the system or of SQLite says that nothing can be written, whatever it is."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _DOWN
    return isinstance(error, (OSError, MemoryError))


def spool_error(error: BaseException, place: str, *, kind: type[SpoolError] = SpoolError) -> SpoolError:
    """The error to raise for one of the disk: `SpoolFull`, or else of that kind, `SpoolDown` where it is plain.

    `place` is a path for the sentence.
    """
    if isinstance(error, SpoolError):
        return error
    if kind is SpoolError and is_down(error):
        kind = SpoolDown
    translated = (
        SpoolFull(f"There is no room for {place}: {error}")
        if is_full(error)
        else kind(f"The spool cannot use {place}: {error}")
    )
    translated.__cause__ = error
    return translated
