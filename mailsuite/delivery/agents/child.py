"""A child process that gets a message on its standard input: fed as fast as it reads, watched, ended if need be."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsuite.mail.content import Content

_CHUNK: Final = 64 * 1024
_MOST_OUTPUT: Final = 2000  # octets
_STDIN: Final = 0
_PATIENCE: Final = 1.0  # seconds after its end in which what it has written is read
_NOT_STARTED: Final = (126, 127)  # as shells have it, where a program cannot be run


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child has ended: its exit status, or the signal that ended it, and what it wrote first."""

    status: int | None
    signal: int | None = None
    output: bytes = b""
    timed_out: bool = False

    @property
    def not_started(self) -> bool:
        """Whether the program could not be run."""
        return self.status in _NOT_STARTED


async def run_child(
    reactor: IReactorProcess,
    clock: IReactorTime,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    head: bytes,
    content: Content,
    *,
    timeout: float,  # noqa: ASYNC109 - the clock is the reactor's
) -> Ending:
    """Run a program by its whole path on `head` and `content`, their line ends made LF, and see how it ends.

    It is killed after `timeout` seconds, and when we are cancelled. Raises `OSError` where it cannot be spawned, or the
    content not be read; then it is killed too, so that it never takes a part for the whole.
    """
    if not os.access(arguments[0], os.X_OK):
        return Ending(_NOT_STARTED[-1], output=os.strerror(errno.ENOENT).encode())
    encoded = [os.fsencode(word) for word in arguments]
    child = _Child(clock, head, content)
    # It is set before there is anything that it might have to end: what it will not take has then started nothing.
    alarm = clock.callLater(timeout, child.time_out)
    try:
        reactor.spawnProcess(
            child,
            encoded[0],
            encoded,
            env={os.fsencode(name): os.fsencode(value) for name, value in environment.items()},
            childFDs={0: "w", 1: "r", 2: "r"},
        )
        return await child.ended
    except CancelledError:
        child.kill()
        raise
    finally:
        if alarm.active():
            alarm.cancel()


@implementer(IPullProducer)
class _Child(ProcessProtocol):
    """Our end of a child process."""

    def __init__(self, clock: IReactorTime, head: bytes, content: Content) -> None:
        self.ended: Deferred[Ending] = Deferred()
        self._clock = clock
        self._head = head
        self._content = content
        self._offset = 0
        self._held = b""
        self._output = b""
        self._timed_out = False
        self._trouble: Failure | None = None
        self._patience: IDelayedCall | None = None  # with whoever else holds its output open
        self._is_open = True
        self._reading: Deferred[None] | None = None

    def time_out(self) -> None:
        """End it: it took too long."""
        self._timed_out = True
        self.kill()

    def kill(self) -> None:
        """End it, without asking."""
        self._stop_reading()
        if self.transport is not None:
            try:
                self.transport.signalProcess("KILL")
            except ProcessExitedAlready:
                return

    # ------------------------------------------------------------------------------ what Twisted calls, of a process

    def connectionMade(self) -> None:
        self.transport.write(self._head.replace(b"\r\n", b"\n"))  # type: ignore[union-attr]
        # Each time that all was written the next chunk is asked for.
        self.transport.pipes[_STDIN].registerProducer(self, False)  # type: ignore[union-attr]

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        del childFD
        room = _MOST_OUTPUT - len(self._output)
        if room > 0:
            self._output += data[:room]

    def childConnectionLost(self, childFD: int) -> None:
        if childFD == _STDIN:  # it reads no more
            self._is_open = False
            self._stop_reading()

    def processExited(self, reason: Failure) -> None:
        # What it has written may still stand in the pipes; what it has started in turn may hold them open for long.
        self._is_open = False
        self._stop_reading()
        self._patience = self._clock.callLater(_PATIENCE, self._give_up_listening, reason)
        stdin = self.transport.pipes.get(_STDIN)  # type: ignore[union-attr]
        if stdin is not None:
            stdin.connectionLost(reason)  # what it was not sent is sent to nobody

    def processEnded(self, reason: Failure) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._end(reason)

    def _give_up_listening(self, reason: Failure) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]
        self._end(reason)

    def _end(self, reason: Failure) -> None:
        if self.ended.called:
            return
        if self._trouble is not None:
            self.ended.errback(self._trouble)
            return
        signal = None if isinstance(reason.value, ProcessDone) else getattr(reason.value, "signal", None)
        status = getattr(reason.value, "exitCode", None)
        self.ended.callback(Ending(status, signal, self._output, self._timed_out))

    # ---------------------------------------------------------------------- what Twisted calls, of a pull producer

    def resumeProducing(self) -> None:
        if self._is_open and self._reading is None:
            reading = Deferred.fromCoroutine(self._feed())
            if not reading.called:
                self._reading = reading
            reading.addErrback(self._cannot_read)

    def stopProducing(self) -> None:
        self._stop_reading()

    # -------------------------------------------------------------------------------------------------- the content

    async def _feed(self) -> None:
        """Write the next chunk; at the end of the content close the child's standard input."""
        chunk = await self._content.read(self._offset, _CHUNK)
        self._reading = None
        if not self._is_open:
            return
        self._offset += len(chunk)
        octets = self._held + chunk
        # A CR at the end of a chunk waits for what follows it.
        self._held = b"\r" if chunk and octets.endswith(b"\r") else b""
        octets = octets.removesuffix(b"\r") if self._held else octets
        if octets:
            self.transport.write(octets.replace(b"\r\n", b"\n"))  # type: ignore[union-attr]
        elif chunk:
            self.resumeProducing()
        if not chunk:
            self.transport.pipes[_STDIN].unregisterProducer()  # type: ignore[union-attr]
            self.transport.closeStdin()  # type: ignore[union-attr]

    def _cannot_read(self, failure: Failure) -> None:
        self._reading = None
        if isinstance(failure.value, CancelledError):
            return
        self._trouble = failure
        self.kill()

    def _stop_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
