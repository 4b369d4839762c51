"""The disk's errors in the spool's words."""

from __future__ import annotations

import errno
import sqlite3

from mailsuite.interfaces import SpoolError, SpoolFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
# The low byte of an extended result code is the primary one (https://sqlite.org/rescode.html).
_PRIMARY = 0xFF
# The index of the log (the -shm file) cannot grow: that is how a full disk looks there.
_SHM_SIZE = sqlite3.SQLITE_IOERR_SHMSIZE


class CommitFailed(SpoolError):
    """A COMMIT ended with an error of the disk: only the next start will show what of it is there."""


def is_full(error: BaseException) -> bool:
    """Whether an error of the system or of SQLite says that there is no room."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)  # missing where the module itself raised it
        return code & _PRIMARY == sqlite3.SQLITE_FULL or code == _SHM_SIZE
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def spool_error(error: BaseException, place: str, *, kind: type[SpoolError] = SpoolError) -> SpoolError:
    """The error to raise for one of the disk: `SpoolFull`, or else of that kind. `place` is a path for the sentence."""
    if isinstance(error, SpoolError):
        return error
    translated = (
        SpoolFull(f"There is no room for {place}: {error}")
        if is_full(error)
        else kind(f"The spool cannot use {place}: {error}")
    )
    translated.__cause__ = error
    return translated
