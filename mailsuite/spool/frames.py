"""What goes between the writer's thread and the process that has the database: frames over a socket."""

from __future__ import annotations

import socket
import struct
from typing import Final

READY: Final = "ready"  # the first answer, when the database is open; in its place stands what is wrong

_LENGTH: Final = struct.Struct("!I")
_PIECE: Final = 1024 * 1024


def send(connection: socket.socket, octets: bytes) -> None:
    """Send a frame. Blocks; raises `OSError`."""
    connection.sendall(_LENGTH.pack(len(octets)) + octets)


def receive(connection: socket.socket) -> bytes | None:
    """Receive what is in a frame; None at the end, be it in the midst of one. Blocks; raises `OSError`."""
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    octets = connection.recv(min(count, _PIECE))
    if len(octets) == count:
        return octets
    pieces, have = [octets], len(octets)
    while have < count and pieces[-1]:
        pieces.append(connection.recv(min(count - have, _PIECE)))
        have += len(pieces[-1])
    return b"".join(pieces) if have == count else None
