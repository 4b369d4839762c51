"""The database in a process of its own: the near end, which the writer's thread uses.

Each statement of SQLite's gives the interpreter's lock away, and has to win it back from a busy reactor, which then
waits for its own turn: that costs both more than the work does. Here a group costs the thread one write and one read.

The process holds the spool's lock as long as it lives: when this process is killed, the next one cannot begin before
what it had been given is done, and waits some seconds for that. When the process itself is lost, what it had been given
may be done or not, and nothing more can be: every operation fails from then on, and `lost` is told, so that the server
ends and is started anew. Nothing that was acknowledged is lost by that.
"""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.logger import Logger, LogLevel

from mailsuite.interfaces import SpoolDown, SpoolError
from mailsuite.spool.errors import CommitFailed, spool_error
from mailsuite.spool.frames import READY, receive, send
from mailsuite.spool.transactions import Operation

_MODULE: Final = "mailsuite.spool.worker"
_BUFFER: Final = 1024 * 1024  # octets; a whole group in one write where the system allows
_PATIENCE: Final = 30.0  # seconds that it has to end when it was told to


class ProcessLost(SpoolDown):
    """The process has ended although nobody had asked it to."""


class ProcessTransactions:
    """Has groups run by a child. Starting it blocks; raises `SpoolError`.

    The child inherits the descriptor `lock`. `lost` is called once, in a thread of its own or in the writer's, when
    the child is gone, be it that nothing is being written.
    """

    _log = Logger()

    def __init__(self, path: str, lock: int, lost: Callable[[SpoolError], None]) -> None:
        self._path = path
        self._lost = lost
        self._gone: SpoolError | None = None
        self.count = 0
        self._socket, far = socket.socketpair()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        with far:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-P", "-m", _MODULE, path],
                    stdin=far.fileno(),
                    stdout=subprocess.DEVNULL,
                    pass_fds=(lock,),
                )
            except OSError as error:
                self._socket.close()
                raise SpoolError(f"The spool's writer cannot be started: {error}") from error
        self._closing = False
        self._telling = threading.Lock()
        greeting = self._receive()
        if greeting != READY:
            self.close()
            raise SpoolError(f"The spool's writer does not begin: {greeting or 'it has ended'}")
        threading.Thread(target=self._watch, name="spool watcher", daemon=True).start()

    def run(self, group: Sequence[Operation]) -> None:
        """Run a group, and set `result` or `error` of each. Raises nothing."""
        if self._gone is not None:
            for operation in group:
                operation.error = self._gone
            return
        octets = self._pickled(group)
        if octets is None:
            for operation in group if len(group) > 1 else ():
                self.run([operation])
            return
        try:
            send(self._socket, octets)
            answer = self._receive()
        except Exception as error:  # noqa: BLE001 - a defect concerns this group alone, unless it went half through
            self._break_off(group, error)
            return
        if answer is None:
            self._break_off(group, None)
            return
        self.count, answers, lines = answer
        for level, line in lines:
            self._log.emit(LogLevel.levelWithName(level), "{line}", line=line)
        for operation, (failed, result, effects) in zip(group, answers, strict=True):
            operation.error, operation.result = failed, result
            if effects is not None:
                operation.take(effects)

    def _pickled(self, group: Sequence[Operation]) -> bytes | None:
        """A group as octets; None where somebody has put into it what is no plain data: one alone gets its error."""
        try:
            return pickle.dumps(group, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # noqa: BLE001 - whatever it is that cannot be pickled
            if len(group) == 1:
                group[0].error = spool_error(error, self._path)
            return None

    def close(self) -> None:
        """Let the child close the database and end."""
        self._closing = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._log.error("{path}: the spool's writer does not end; it is killed", path=self._path)
            self._process.kill()
            self._process.wait()
        self._socket.close()

    def _receive(self) -> Any:  # noqa: ANN401 - whatever was pickled
        """The child's next answer, or None when it has ended."""
        octets = receive(self._socket)
        return None if octets is None else pickle.loads(octets)  # noqa: S301 - from our own other half

    def _break_off(self, group: Sequence[Operation], error: Exception | None) -> None:
        why = "has ended" if error is None else f"cannot be used ({error!r})"
        gone = self._tell(why)
        for operation in group:
            operation.error = CommitFailed(str(gone))
        with suppress(OSError):
            self._process.kill()  # half of what it is given next would be nonsense

    def _watch(self) -> None:
        self._process.wait()
        if not self._closing:
            self._tell("has ended")

    def _tell(self, why: str) -> SpoolError:
        """Say once that nothing can be written any more."""
        with self._telling:
            if self._gone is not None:
                return self._gone
            self._gone = ProcessLost(f"The spool's writer for {self._path} {why}; start the server again")
        self._lost(self._gone)
        return self._gone
