"""The errors of those who edit the directory, and why a file cannot be read."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class DirectoryError(ValueError):
    """What was asked of the directory cannot be done.

    The message is one sentence for the person who asked: it names the thing and the cure, and never holds a
    password.
    """


class OutdatedDirectory(DirectoryError):
    """The directory's file was made by an older mailsuite: a server brings it up to date when it starts."""


def unusable(path: Path, error: Exception, *, what: str = "used") -> str:
    """Why the directory's file cannot be used, with the cure for whoever is not permitted to."""
    refused = isinstance(error, PermissionError) or (
        isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_PERMITTED
    )
    if not refused:
        return f"{path} cannot be {what}: {error}"
    reason = reason_of(error) if isinstance(error, OSError) else str(error)
    return f"{path} cannot be {what} ({reason}); run this as the user who serves, or as root"


_NOT_PERMITTED = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH)


def reason_of(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, without its path: what tells of it has named that already."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]
