"""Getting files onto stable storage, many at a time.

Two ways. `files` asks for each file by fsync: right on every file system; several threads ask at once, so that
one commit of the file system's journal serves many of them. `filesystem` asks once for everything by syncfs(2), which
costs least where mail has the file system to itself, and waits for everybody else's files where it has not.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any


class Sync(StrEnum):
    """How a batch of files is made durable."""

    AUTO = "auto"  # a few files each by itself, many together by one sync of their file system
    FILES = "files"
    FILESYSTEM = "filesystem"


def _find_syncfs() -> Callable[[int], int] | None:
    try:
        function: Any = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError, TypeError):  # no C library to ask, or one without syncfs
        return None
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_int
    found: Callable[[int], int] = function
    return found


_syncfs = _find_syncfs()


def has_syncfs() -> bool:
    """Whether this system can sync a file system as a whole."""
    return _syncfs is not None


def syncfs_reports_errors() -> bool:
    """Whether a sync of the file system tells of data that could not be written: Linux does since 5.8."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return has_syncfs() and version is not None and (int(version[1]), int(version[2])) >= (5, 8)


def sync_filesystem(descriptor: int) -> None:
    """Wait until everything on the descriptor's file system is on stable storage. Raises `OSError`.

    Linux reports write errors of the whole file system here since 5.8; an older kernel keeps silent about them.
    """
    if _syncfs is None:
        raise OSError("this system has no syncfs")
    if _syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_directory(path: str, *, dir_fd: int | None = None) -> None:
    """Wait until a directory's entries are on stable storage. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
