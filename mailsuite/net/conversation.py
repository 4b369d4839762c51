"""The session's end of a connection: events of the core come in, messages to the core go out.

Rules:
- Output is gathered, and leaves in one write when the session waits for input that is not there yet, at `drain`, and
  at the end. While the core has further events ready, nothing is written.
- A session that finds everything ready would never wait, so after a hundred events, or some ten milliseconds, it is
  made to wait for one turn of the reactor. What was gathered is written then.
- Nothing grows: unparsed input past a bound pauses the transport, and a peer that does not read what we write is
  read no further.
- Nothing recurses: a session is only ever continued from the reactor, or goes on by itself.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from mailsuite.interfaces import IConversation
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Peer, TLSFacts
from mailsuite.net.stepping import Waiter
from mailsuite.net.timeouts import Patience, Timeouts
from mailsuite.wire.core import (
    NEED_DATA,
    Answer,
    ConnectionClosed,
    Core,
    EndOfFile,
    Event,
    LocalProtocolError,
    PeerTooSlow,
    Phase,
    RemoteProtocolError,
    Role,
    Signal,
    Violation,
)

INPUT_BOUND: Final = 64 * 1024  # octets
EVENTS_IN_A_ROW: Final = 100
_SECONDS_IN_A_ROW: Final = 0.01
_NOT_FOR_SESSIONS: Final = (Signal, Answer, Violation, EndOfFile)


class Stop(Enum):
    """Why a session must wait."""

    INPUT = auto()  # the core needs more octets
    ROOM = auto()  # the transport's buffer is full
    BREATH = auto()  # the reactor has others to serve


class Outlet(Protocol):
    """What a conversation asks of its connection."""

    def write(self, data: bytes) -> None:
        """Send this, under TLS where there is TLS."""

    def pause_input(self) -> None:
        """Read no more for now."""

    def resume_input(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Write what there is and end the connection; `Conversation.close` is called within."""


@implementer(IConversation)
class Conversation:
    """One connection's conversation, whatever pairs of core and session hold it one after the other."""

    tls: TLSFacts | None = None
    line_by_line = False

    _waiter: Waiter | None = None
    _stop = Stop.INPUT  # why the waiter waits, where there is one
    _wants_event = True  # what it waits for: an event, or room only
    _breath: IDelayedCall | None = None
    _in_a_row = 0
    _row_began = 0.0
    _choked = False
    _input_paused = False
    _writing = False
    _eof = False
    _closed: str | None = None  # why nothing more can be received
    _farewell: Reply | None = None

    def __init__(
        self, core: Core, peer: Peer, local: Peer, outlet: Outlet, clock: IReactorTime, timeouts: Timeouts
    ) -> None:
        self.core = core
        self.peer = peer
        self.local = local
        self._outlet = outlet
        self._clock = clock
        self._patience = Patience(clock, timeouts, self._too_slow)
        self._out: list[bytes] = []

    # ------------------------------------------------------------------------------ for the session

    async def receive(self) -> Event:
        event = self._pull()
        if isinstance(event, Stop):
            return await self._wait(event)  # type: ignore[no-any-return] # an event, as it wants one
        if self._input_paused and self.core.buffered < INPUT_BOUND // 2:
            self._resume_input()
        return event

    def send(self, message: object) -> None:
        self._out.append(self.core.send(message))

    async def drain(self) -> None:
        self.flush()
        self._check_open()
        stop = self._step()
        if stop is not None:
            await self._wait(stop, for_event=False)

    # --------------------------------------------------------------------------- for the connection

    @property
    def closed(self) -> str | None:
        """Why nothing more can be received; None while the conversation goes on."""
        return self._closed

    def replace_core(self, core: Core, data: bytes = b"") -> None:
        """Go on through another core, which is given the octets that the last one left."""
        self.core = core
        if data:
            core.receive_data(data)
        if self._eof:
            core.receive_data(b"")

    def received(self, data: bytes) -> None:
        """Octets of the peer."""
        if self._closed is not None:
            return
        self.core.receive_data(data)
        if self._waiter is not None and self._stop is Stop.INPUT:
            self._patience.progress(len(data))
            self._go_on()
        # Whoever waits for input is to get it; pausing then would be forever.
        waits = self._waiter is not None and self._stop is Stop.INPUT
        if self.core.buffered > INPUT_BOUND and not (waits or self._input_paused or self.closed):
            self._input_paused = True
            self._outlet.pause_input()

    def input_ended(self) -> None:
        """The peer has ended its side: what it said is still answered."""
        self._eof = True
        self.core.receive_data(b"")
        if self._stop is Stop.INPUT:
            self._go_on()

    def room(self, *, full: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self._choked = full
        if not full and self._stop is Stop.ROOM:
            self._go_on()

    def flush(self) -> None:
        """Write what is there."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._writing = True
            try:
                self._outlet.write(data)
            finally:
                self._writing = False

    def discard(self) -> None:
        """Forget what was not written yet."""
        self._out.clear()

    def say(self, reply: Reply) -> None:
        """Say this on the server's behalf, if the core is one and can still say it."""
        if self._closed is None and self.core.role is Role.SERVER:
            with suppress(Exception):  # the core may itself be what went wrong
                self._out.append(self.core.send(reply))

    def say_and_close(self, reply: Reply) -> None:
        """End with this reply, now if the peer's next command is waited for, else as soon as it is."""
        self._farewell = reply
        if (
            self._waiter is not None
            and self._stop is Stop.INPUT
            and self.core.role is Role.SERVER
            and self.core.timeout is Phase.COMMAND
        ):
            self._bid_farewell()

    def close(self, why: str) -> None:
        """Nothing more will be received, for the reason given."""
        if self._closed is None:
            self._closed = why
            self._patience.stop()

    def lost(self, why: str) -> bool:
        """The transport is gone. Tells whether the session learns that from us: it may be waiting elsewhere."""
        self.close(why)
        self._out.clear()
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
        if self._waiter is None:
            return self._writing  # then the session is just calling us, and will ask for more
        if self._wants_event:
            self._go_on()
        else:
            self._throw(ConnectionClosed(why))
        return True

    # ----------------------------------------------------------------------------------------- steps

    def _check_open(self) -> None:
        if self._closed is not None:
            raise ConnectionClosed(self._closed)

    def _step(self) -> Stop | None:
        """Take one more step without the reactor, unless the session must wait before it."""
        if self._choked:
            return Stop.ROOM
        self._in_a_row = steps = self._in_a_row + 1
        if steps % 8 == 0:
            now = self._clock.seconds()
            if steps == 8:
                self._row_began = now
            elif steps >= EVENTS_IN_A_ROW or now - self._row_began > _SECONDS_IN_A_ROW:
                return Stop.BREATH
        return None

    def _pull(self) -> Event | Stop:
        """The next event for the session, or why it must wait. Raises as `receive`."""
        if self._closed is not None:
            return self._pull_last(self._closed)
        while True:
            stop = self._step()
            if stop is not None:
                return stop
            event = self.core.next_event()
            if not isinstance(event, _NOT_FOR_SESSIONS):
                return event
            if event is NEED_DATA:
                return Stop.INPUT
            if isinstance(event, Answer):
                self._out.append(event.data)
                if event.closing:
                    self._outlet.close()
                    raise ConnectionClosed("the peer was told that the connection ends")
            else:
                self._raise(event)

    def _raise(self, event: object) -> None:
        if isinstance(event, Violation):
            raise RemoteProtocolError(event.reason)
        if isinstance(event, EndOfFile):
            self.flush()
            raise ConnectionClosed("the peer has ended the connection")
        raise LocalProtocolError("the session waits for an event before it has answered the last one")

    def _pull_last(self, why: str) -> Event:
        """What a server said before the connection was lost is still heard: it may be the 250 to a message."""
        if self.core.role is Role.CLIENT:
            event = self.core.next_event()
            if not isinstance(event, _NOT_FOR_SESSIONS):
                return event
        raise ConnectionClosed(why)

    # --------------------------------------------------------------------------------------- waiting

    def _wait(self, stop: Stop, *, for_event: bool = True) -> Waiter:
        self._waiter = waiter = Waiter(self._forget_waiter)
        self._wants_event = for_event
        self._suspend(stop)
        return waiter

    def _forget_waiter(self, _waiter: Deferred[Any]) -> None:
        """Whoever waited has cancelled."""
        self._waiter = None
        self._patience.end()

    def _suspend(self, stop: Stop) -> None:
        """The session waits: write what there is, and see to it that something ends the wait."""
        self._stop = stop
        self.flush()
        if self._waiter is None:
            return  # the write has shown that the connection is gone
        if stop is Stop.BREATH:
            if self._breath is None:
                self._breath = self._clock.callLater(0, self._breathed)
            return
        self._in_a_row = 0
        if stop is Stop.ROOM:
            # RFC 5321 section 4.5.3.2.5: "while awaiting the completion of each TCP SEND call"
            self._patience.begin(Phase.DATA_BLOCK, paced=False)
            return
        if self._input_paused:
            self._resume_input()
        phase = self.core.timeout
        if self._farewell is not None and phase is Phase.COMMAND and self.core.role is Role.SERVER:
            self._bid_farewell()
        else:
            # A client waits for replies while content flows; how many octets they have says nothing.
            self._patience.begin(phase, paced=self.core.role is Role.SERVER)

    def _go_on(self) -> None:
        """What the session waits for may have come."""
        if self._waiter is None:
            return
        try:
            result = self._pull() if self._wants_event else self._step()
        except Exception as error:  # noqa: BLE001 - it is the session's to see
            self._throw(error)
            return
        if not isinstance(result, Stop):
            self._wake(result)
        elif (
            result is self._stop is Stop.INPUT  # after any other wait, it is not yet input that is waited for
            and not self._out
            and self.core.timeout is self._patience.phase
        ):
            self._in_a_row = 0  # a line that is not whole yet: its limit runs on
        else:
            self._patience.end()
            self._suspend(result)

    def _wake(self, result: object) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._patience.end()
            waiter.fire(result)

    def _throw(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._patience.end()
            waiter.fail(error)

    def _breathed(self) -> None:
        self._breath = None
        self._in_a_row = 0
        if self._stop is Stop.BREATH:
            self._go_on()

    def _too_slow(self, phase: Phase) -> None:
        self._throw(PeerTooSlow(phase))

    def _bid_farewell(self) -> None:
        assert self._farewell is not None
        self.say(self._farewell)
        self._outlet.close()
        self._throw(ConnectionClosed("we have ended the connection"))

    def _resume_input(self) -> None:
        self._input_paused = False
        if not self._eof:
            self._outlet.resume_input()
