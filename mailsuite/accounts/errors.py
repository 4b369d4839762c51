"""The one error of those who edit the directory."""

from __future__ import annotations


class DirectoryError(ValueError):
    """What was asked of the directory cannot be done.

    The message is one sentence for the person who asked: it names the thing and the cure, and never holds a
    password.
    """
