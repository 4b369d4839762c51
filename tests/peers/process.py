"""Starting, awaiting and ending the peers' processes, and the ports they listen on.

Known limit: a port that `free_port` returns is free at that moment only; another process may take it
before the peer does. Each of our processes looks in another place, so this is rare.
"""

from __future__ import annotations

import abc
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.02


class PeerError(Exception):
    """A peer did not start, or did not do in time what the rig asked of it."""


class Server(abc.ABC):
    """Something that can be started and stopped; as a context manager, it runs inside the block."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start it and return when it greets. Raises `PeerError`; nothing is left running then."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it. Nothing happens when it does not run."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def cache_directory() -> Path:
    """Where unpacked peers live: outside the tree, shared by all checkouts of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mailsuite-peers"


_FIRST_PORT = 20_000
_PORTS = 12_000
_walk = itertools.count(os.getpid() * 997)


def free_port() -> int:
    """A TCP port on the loopback that nobody listened on a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that differ from each other, below those that the system gives to outgoing connections.

    Each test process walks through them from a place of its own, so that none comes again soon.
    """
    found: list[int] = []
    while len(found) < count:
        port = _FIRST_PORT + next(_walk) % _PORTS
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            found.append(port)
    return found


def run(
    arguments: Sequence[str | Path],
    *,
    timeout: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it with what it printed, stderr behind stdout.

    `environment` is added to ours. The exit status is the caller's to judge. Raises
    `subprocess.TimeoutExpired` after `timeout` seconds; the command is killed by then.
    """
    finished = subprocess.run(
        [str(argument) for argument in arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        check=False,
    )
    output = finished.stdout.decode("utf-8", "replace")
    return subprocess.CompletedProcess(finished.args, finished.returncode, output)


def spawn(
    arguments: Sequence[str | Path],
    *,
    output: Path,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server in a process group of its own, so that `stop` reaches its children too.

    What it prints goes to the file `output`.
    """
    with output.open("ab") as sink:
        return subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )


def wait_until(condition: Callable[[], object], *, timeout: float = 10.0, why: Callable[[], str] = lambda: "") -> None:
    """Return when the condition holds. Raises `AssertionError` with `why()` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} seconds: {why()}")
        time.sleep(0.02)


def wait_for_greeting(
    port: int,
    process: subprocess.Popen[bytes],
    *,
    output: Path,
    timeout: float = 20.0,
    expected: bytes = b"220",
) -> None:
    """Return when the server on the port says 220: a port alone may answer before its server works.

    `expected` is how another greeting begins; where it is empty, a connection that is closed at once will do.
    Raises `PeerError`, with the last of what the process printed to `output`, when the process ends
    first or `timeout` seconds pass.
    """
    deadline = time.monotonic() + timeout
    while True:
        heard: bytes | str
        try:
            with socket.create_connection((LOOPBACK, port), timeout=timeout) as connection:
                heard = connection.recv(512)
            if heard.startswith(expected):
                return
        except OSError as problem:
            heard = str(problem)
        if process.poll() is not None:
            raise PeerError(f"ended with status {process.returncode}: {_tail(output)}")
        if time.monotonic() > deadline:
            raise PeerError(f"port {port} does not greet ({heard!r}): {_tail(output)}")
        time.sleep(POLL_SECONDS)


def stop(process: subprocess.Popen[bytes], *, timeout: float = 10.0) -> None:
    """End a process that `spawn` started: SIGTERM, then SIGKILL for what is left of its group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def expect_end(group: int, *, timeout: float = 5.0) -> None:
    """Return when no process is left of the group of one that `spawn` started and that has ended.

    Raises `PeerError` after `timeout` seconds; what is left is killed by then.
    """
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(POLL_SECONDS)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    raise PeerError(f"process {group} has left others behind, which did not end")


def _tail(path: Path, limit: int = 2000) -> str:
    try:
        return path.read_text("utf-8", "replace")[-limit:].strip() or "it printed nothing"
    except OSError:
        return "it printed nothing"
