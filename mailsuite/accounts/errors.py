"""The errors of those who edit the directory, and why a file cannot be read."""

from __future__ import annotations


class DirectoryError(ValueError):
    """What was asked of the directory cannot be done.

    The message is one sentence for the person who asked: it names the thing and the cure, and never holds a
    password.
    """


class OutdatedDirectory(DirectoryError):
    """The directory's file was made by an older mailsuite: a server brings it up to date when it starts."""


def reason_of(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, without its path: what tells of it has named that already."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]
