"""Where the control socket lies, and what to do with what is there already.

It is made when the spool is open, so nobody else serves over this data directory, and a socket that nobody answers at
was left behind by a process that died: it is removed. What is no socket is left alone.

Known limit: a path that is longer than a socket's may be (107 octets) needs /proc.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NAME: Final = "control.sock"
_LONGEST_PATH: Final = 107  # octets: what fits into sockaddr_un on Linux, with its final NUL


class ControlError(Exception):
    """The server cannot be talked to; one sentence says why."""


class NotRunning(ControlError):
    """There is no server to talk to."""


class NotAnswering(ControlError):
    """There is a server, and it does not answer."""


def remove_stale(path: Path) -> None:
    """Remove the socket that a dead process has left. Raises `ControlError` for whatever else is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_be_made(path, error) from None
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"{path}: it is no socket, and stands where the control socket should be; take it away")
    with short_path(path) as short, socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(short)
        except BlockingIOError:
            is_answered = True  # by somebody who is busy
        except OSError:
            is_answered = False
        else:
            is_answered = True
    if is_answered:
        raise ControlError(f"{path}: another server answers there; stop it, or give this one its own data_directory")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_be_made(path, error) from None


def cannot_be_made(path: Path, error: object) -> ControlError:
    """What is told of a socket that cannot be made."""
    reason = getattr(error, "strerror", None) or error
    return ControlError(f"{path}: the control socket cannot be made ({reason}), so no command can talk to this server")


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path to the same place that a socket can have, however long it is."""
    text = os.fspath(path)
    if len(os.fsencode(text)) <= _LONGEST_PATH or not Path("/proc/self/fd").exists():
        yield text
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
