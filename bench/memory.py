"""What an idle connection costs a server in memory: greeted, EHLO answered, then silent.

The difference of the proportional set size of all the server's processes, with and without the
connections, divided by their number. The kernel's socket buffers are not in it.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from pathlib import Path

from bench.servers import MailServer
from tests.peers.process import LOOPBACK, PeerError

_SETTLE_SECONDS = 1.0
_TIMEOUT = 30.0


def raise_file_limit() -> int:
    """Let this process and those it starts open as many files as the system allows; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def idle_connection(server: MailServer, connections: int) -> float:
    """Octets for each of so many idle connections to a running server. Raises `PeerError`."""
    with contextlib.ExitStack() as first:
        # What the first connections load and allocate once is not theirs.
        for _ in range(min(10, connections)):
            first.enter_context(_connection(server.port))
    time.sleep(_SETTLE_SECONDS)
    before = resident(server.pid)
    with contextlib.ExitStack() as all_of_them:
        for _ in range(connections):
            all_of_them.enter_context(_connection(server.port))
        time.sleep(_SETTLE_SECONDS)
        return (resident(server.pid) - before) / connections


def resident(pid: int) -> int:
    """The proportional set size, in octets, of a process and all below it."""
    total = 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                name, value, *_ = line.split()
                if name == "Pss:":
                    total += int(value) * 1024
    return total


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # `pid (command) state parent ...`, where the command may hold anything, brackets too
            parent = int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    tree = [pid]
    for member in tree:
        tree += children.get(member, [])
    return tree


def _connection(port: int) -> socket.socket:
    connection = socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT)
    try:
        _expect_positive(connection)
        connection.sendall(b"EHLO client.test\r\n")
        _expect_positive(connection)
    except OSError as problem:
        connection.close()
        raise PeerError(f"an idle connection was not served: {problem}") from None
    return connection


def _expect_positive(connection: socket.socket) -> None:
    reply = b""
    while not (reply.endswith(b"\n") and reply.splitlines()[-1][3:4] == b" "):
        received = connection.recv(4096)
        if not received:
            raise ConnectionError("it was closed")
        reply += received
    if reply[:1] != b"2":
        raise ConnectionError(f"the server said {reply!r}")
