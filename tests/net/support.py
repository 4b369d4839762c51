"""What the tests of net talk with: a core for a protocol of lines, and connections without sockets."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailsuite.mail.reply import Reply
from mailsuite.net.connection import Connection
from mailsuite.net.timeouts import Timeouts
from mailsuite.session.handover import Handover
from mailsuite.wire.core import (
    NEED_DATA,
    PAUSED,
    Answer,
    EndOfFile,
    Event,
    LocalProtocolError,
    Phase,
    Role,
    Signal,
    Violation,
)


@dataclass(frozen=True, slots=True)
class Line(Event):
    """A line that the peer said; a server must answer it."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Chunk(Event):
    """Some of the octets that were announced by `data N`."""

    data: bytes


class LineCore:
    """Lines end with LF. A server is paused until it has answered; a client may always speak.

    The core itself answers lines that begin with `?`, ends the connection at `exit`, does not understand `%`. A
    server's answer `turn` ends its life, as 220 to STARTTLS does; so does a client when it reads `turn`.
    """

    def __init__(self, role: Role = Role.SERVER) -> None:
        self.role = role
        self.buffer = b""
        self.paused = False
        self.done = False
        self.eof = False
        self.content = 0
        self.calls = 0

    @property
    def timeout(self) -> Phase:
        if self.role is Role.CLIENT:
            return Phase.RESPONSE
        if self.paused:
            return Phase.WORKING
        return Phase.DATA_BLOCK if self.content else Phase.COMMAND

    @property
    def trailing_data(self) -> bytes:
        return self.buffer if self.done else b""

    @property
    def buffered(self) -> int:
        return len(self.buffer)

    def receive_data(self, data: bytes) -> None:
        self.buffer += data
        self.eof = self.eof or not data

    def next_event(self) -> Event | Signal:
        self.calls += 1
        if self.paused or self.done:
            return PAUSED
        if self.content and self.buffer:
            data, self.buffer = self.buffer[: self.content], self.buffer[self.content :]
            self.content -= len(data)
            return Chunk(data)
        line, end, rest = self.buffer.partition(b"\n")
        if not end:
            return EndOfFile() if self.eof else NEED_DATA
        self.buffer = rest
        if line.startswith(b"?"):
            return Answer(b"what?\n")
        if line == b"exit":
            self.done = True
            return Answer(b"gone\n", closing=True)
        if line == b"%":
            return Violation("a percent sign")
        if self.role is Role.CLIENT:
            self.done = line == b"turn"
        elif line.startswith(b"data "):
            self.content = int(line[5:])
        else:
            self.paused = True
        return Line(line)

    def send(self, message: bytes | Reply) -> bytes:
        if self.done:
            raise LocalProtocolError("nothing can be said any more")
        if isinstance(message, Reply):
            self.done = message.code == 421
            return message.encoded
        self.paused = False
        self.done = self.role is Role.SERVER and message == b"turn\n"
        return message


async def echo(conversation: Any) -> Handover | None:
    """Answer each line by itself, and end at `quit`."""
    while True:
        event = await conversation.receive()
        if isinstance(event, Line):
            conversation.send(event.text + b"\n")
            if event.text == b"quit":
                return None


def keeping(kept, *, answer=True):
    """A session that keeps its events, and what ends them."""

    async def session(conversation):
        try:
            while True:
                event = await conversation.receive()
                kept.append(event)
                if answer and isinstance(event, Line):
                    conversation.send(event.text + b"\n")
        except Exception as error:
            kept.append(error)
            raise

    return session


class Wire(StringTransport):
    """A transport that remembers each write, and what it was asked to do."""

    def __init__(self, host: str = "192.0.2.1") -> None:
        super().__init__(
            hostAddress=IPv4Address("TCP", "10.0.0.1", 25),
            peerAddress=IPv4Address("TCP", host, 54321),
            lenient=True,
        )
        self.writes: list[bytes] = []
        self.has_room = True

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)
        if not self.has_room and self.producer is not None:
            self.producer.pauseProducing()

    def make_room(self) -> None:
        self.has_room = True
        self.producer.resumeProducing()

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)


def turn(clock: Clock) -> None:
    """One turn of the reactor: what it is asked to call meanwhile waits for the next turn."""
    due = [call for call in clock.calls if call.getTime() <= clock.seconds()]
    for call in due:
        clock.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)


Session = Callable[[Any], Awaitable[Any]]


class Side:
    """A connection on a `Wire`, made of a core and a session, and what has become of it."""

    def __init__(
        self,
        session: Session = echo,
        core: Any = None,
        *,
        clock: Clock | None = None,
        timeouts: Timeouts | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.wire = Wire()
        self.core = core or LineCore()
        self.over: list[Any] = []
        self.connection = Connection(
            self.core,
            session,  # type: ignore[arg-type]
            clock=self.clock,
            timeouts=timeouts or Timeouts(),
            **options,
        )
        self.connection.finished().addBoth(self.over.append)
        self.connection.makeConnection(self.wire)

    @property
    def conversation(self) -> Any:
        return self.connection.conversation

    @property
    def writes(self) -> list[bytes]:
        return self.wire.writes

    def receive(self, data: bytes) -> None:
        self.connection.dataReceived(data)

    def lose(self, error: Exception | None = None) -> None:
        self.wire.connected = False
        self.connection.connectionLost(Failure(error or ConnectionDone()))

    @property
    def is_closing(self) -> bool:
        return self.wire.disconnecting


def pump(one: Side, other: Side) -> None:
    """Carry octets between two sides, and the end of the connection, until nothing moves."""
    read = {one: 0, other: 0}
    read = getattr(one, "carried", read)
    one.carried = other.carried = read  # type: ignore[attr-defined]
    moved = True
    while moved:
        moved = False
        for source, target in ((one, other), (other, one)):
            data = source.wire.sent[read[source] :]
            if data and target.wire.connected:
                moved = True
                read[source] += len(data)
                target.receive(data)
    if one.is_closing or other.is_closing:
        for side in (one, other):
            if side.wire.connected:
                side.lose()


def failures_in(events):
    return [event["log_failure"].value for event in events if "log_failure" in event]
