"""Who holds the server's dialogues: in memory here, over sockets in `sockets`.

In memory the core and its session are driven as a connection would drive them, without a reactor; what the client
says comes in whole packets, octet by octet, or in random pieces, and those behind the door answer at once, or only
when all has been said that comes next.

Marks: `== closed` (the server has ended the connection), `== eof` (the client ends its side), `== tls` (both begin TLS
now), `== lost` (the line breaks, and the client connects anew), `== turn ended ...` (see `held`). `C:` is always who
has connected, also where the roles have been turned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsuite.interfaces import IConversation
from mailsuite.mail.options import NO_WISHES
from mailsuite.mail.session import Peer, TLSFacts
from mailsuite.session.handover import Handover, Session
from mailsuite.wire.core import (
    NEED_DATA,
    PAUSED,
    Answer,
    ConnectionClosed,
    Core,
    EndOfFile,
    Event,
    RemoteProtocolError,
    Violation,
)
from mailsuite.wire.smtp.commands import Mail, Rcpt
from tests.dialogues.dialogue import Dialogue, Mark, Queued, Said
from tests.dialogues.house import PEER, House, Message

Cut = Callable[[bytes], Iterable[bytes]]


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def one_by_one(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def at_random(seed: object) -> Cut:
    """Cuts somewhere, the same way for the same seed."""
    chance = random.Random(str(seed))

    def cut(octets: bytes) -> Iterable[bytes]:
        while octets:
            size = chance.choice((1, 1, 2, 3, 5, 8, 40, 200, len(octets)))
            yield octets[:size]
            octets = octets[size:]

    return cut


@implementer(IConversation)
class MemoryConversation:
    """A conversation without a connection."""

    local = Peer("192.0.2.1", 25)
    line_by_line = False

    def __init__(self, core: Core, tls: TLSFacts | None = None, peer: Peer = PEER) -> None:
        self.core = core
        self.tls = tls
        self.peer = peer
        self.out = bytearray()
        self.over = ""
        self._waiter: Deferred[None] | None = None

    async def receive(self) -> Event:
        while not self.over:
            event = self.core.next_event()
            assert event is not PAUSED, "the session waits for an event before it has answered the last one"
            if event is NEED_DATA:
                self._waiter = Deferred(self._forget_waiter)
                await self._waiter
            elif isinstance(event, Answer):
                self.out += event.data
                if event.closing:
                    self.over = "the core has closed"
            elif isinstance(event, EndOfFile):
                self.over = "the client has ended"
            elif isinstance(event, Violation):
                raise RemoteProtocolError(event.reason)
            else:
                assert isinstance(event, Event)
                return event
        raise ConnectionClosed(self.over)

    def send(self, message: Any) -> None:
        self.out += self.core.send(message)

    async def drain(self) -> None:
        """There is always room."""

    def feed(self, data: bytes) -> None:
        """Octets from the client; none of them: it has ended its side."""
        self.core.receive_data(data)
        self._wake(None)

    def fail(self, error: Exception) -> bool:
        """Raise this where the session waits for the client; False where it waits for somebody else."""
        self.over = self.over or repr(error)
        return self._wake(Failure(error))

    def _wake(self, result: Any) -> bool:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(result)
        return waiter is not None

    def _forget_waiter(self, _waiter: Deferred[None]) -> None:
        self._waiter = None


class MemoryServer:
    """One pair of core and session after the other, as a connection holds them."""

    def __init__(self, house: House, *, secure: bool = False) -> None:
        self.house = house
        self._running: Deferred[Handover | None] | None = None
        self._output = bytearray()
        self._secure = secure
        self.connect()

    def connect(self) -> None:
        """A new connection, to the same house."""
        self.closed = self._eof = False
        self.handover: Handover | None = None
        self._begin(*self.house.door.open(secure=self._secure), self.house.tls_facts if self._secure else None)

    def _begin(self, core: Core, session: Session, tls: TLSFacts | None, left: bytes = b"") -> None:
        self.conversation = MemoryConversation(core, tls)
        if left:
            core.receive_data(left)
        if self._eof:
            core.receive_data(b"")
        self._running = Deferred.fromCoroutine(session(self.conversation))
        self._running.addCallback(self._ended)

    def _ended(self, handover: Handover | None) -> None:
        self._running = None
        if handover is not None and handover.tls is None:  # the connection goes on as it is
            last = self.conversation
            self._take()
            self._begin(handover.core, handover.session, last.tls, last.core.trailing_data)
            return
        self.handover = handover
        self.closed = handover is None

    def feed(self, data: bytes) -> None:
        self._eof = self._eof or not data
        if not self.closed:
            self.conversation.feed(data)
        self._raise_failure()

    def go_on(self) -> None:
        """Let those behind the door answer, until they have nothing more to answer."""
        while self.house.pace.go_on():
            pass
        self._raise_failure()

    def begin_tls(self) -> None:
        handover, self.handover = self.handover, None
        assert handover is not None, "there is no handover"
        assert handover.tls == "TLS"
        assert not self.conversation.core.trailing_data
        self._take()
        self._begin(handover.core, handover.session, self.house.tls_facts)

    def output(self) -> bytes:
        """What has come out since it was last asked for."""
        self._take()
        taken = bytes(self._output)
        self._output.clear()
        return taken

    def lose(self) -> list[str]:
        """The connection is lost: the session must end and leave nothing. Gives what is wrong after that."""
        wrong = []
        running, failures = self._running, []
        if running is not None:
            running.addErrback(failures.append)
            if not self.conversation.fail(ConnectionClosed("lost")):
                running.cancel()
            if not running.called:
                wrong.append("the session goes on")
        wrong += [repr(failure) for failure in failures if not failure.check(CancelledError)]
        if self.house.spool.open_drafts:
            wrong.append("a draft was forgotten")
        if self.house.on_demand.open_turns:
            wrong.append("a turn was not ended once")
        return wrong

    def _take(self) -> None:
        self._output += self.conversation.out
        self.conversation.out.clear()

    def _raise_failure(self) -> None:
        if self._running is not None and isinstance(getattr(self._running, "result", None), Failure):
            running, self._running = self._running, None
            failure: Failure = running.result  # type: ignore[assignment]
            running.addErrback(lambda _seen: None)
            failure.raiseException()


def hold_in_memory(dialogue: Dialogue, cut: Cut, *, slow: bool = False, secure: bool = False) -> None:
    """Hold a dialogue; raises AssertionError where somebody says something else than is written."""
    house = House(dialogue, slow=slow)
    server = MemoryServer(house, secure=secure)
    messages = iter(house.spool.messages)
    for step in dialogue.steps:
        match step:
            case Said("C"):
                say(server, step, cut)
            case Said():
                expect_said(step, server.output())
            case Queued():
                expect_message(step, next(messages, None))
            case Mark(("closed",)):
                expect_silence(server.output())
                assert server.closed
            case Mark():
                expect_silence(server.output())
                happen(server, step)
    expect_silence(server.output())
    expect_no_message(next(messages, None))
    assert server.lose() == []


def lose_in_memory(dialogue: Dialogue, cut: Cut, steps: int, *, slow: bool = False) -> list[str]:
    """Hold the first steps of a dialogue, then lose the connection; gives what is wrong after that.

    In a slow house nobody has answered what was said last.
    """
    house = House(dialogue, slow=slow)
    server = MemoryServer(house)
    for number, step in enumerate(dialogue.steps[:steps], 1):
        match step:
            case Said("C"):
                say(server, step, cut, go_on=number < steps)
            case Mark(words) if words != ("closed",):
                happen(server, step)
    return server.lose()


def say(server: MemoryServer, step: Said, cut: Cut, *, go_on: bool = True) -> None:
    """Let the client speak, and those behind the door answer."""
    for packet in step.packets:
        for piece in cut(packet):
            server.feed(piece)
    if go_on:
        server.go_on()


def happen(server: MemoryServer, mark: Mark) -> None:
    match mark.words:
        case ("eof",):
            server.feed(b"")
            server.go_on()
        case ("tls",):
            server.begin_tls()
        case ("lost",):
            assert server.lose() == []
            server.connect()
        case ("turn", *words):
            expect_turn(server.house, words)
        case words:
            raise ValueError(f"== {' '.join(words)}")


def expect_said(step: Said, output: bytes) -> None:
    wanted = "\n".join(step.lines)
    assert step.pattern.fullmatch(output), f"wanted:\n{wanted}\n\ngot:\n{output.decode('utf-8', 'replace')}"


def expect_turn(house: House, words: list[str]) -> None:
    turn = house.on_demand.turns[-1]
    assert turn.words == words, turn.ends


def expect_silence(output: bytes) -> None:
    assert output == b"", f"said, and not in the dialogue: {output!r}"


def expect_message(step: Queued, message: Message | None) -> None:
    assert message is not None, f"there is no message {step}"
    assert str(message.envelope.reverse_path or "<>") == step.sender
    assert tuple(sorted(str(target.address) for target in message.targets)) == step.recipients
    assert tuple(sorted(_asked(message))) == step.asked
    pattern = step.pattern
    if pattern is not None:
        wanted = "\n".join(step.lines)
        assert pattern.fullmatch(message.content), f"wanted:\n{wanted}\n\ngot:\n{message.content!r}"


def _asked(message: Message) -> Iterator[str]:
    """What was asked for a message and its recipients, as it is written in dialogues."""
    options = message.envelope.options
    words = Mail(None, ret=options.ret, envid=options.envid, require_tls=options.require_tls).line().split()[2:]
    if options.tls_optional:
        words.append(b"TLS-Required:No")
    if words:
        yield b" ".join(words).decode()
    for target in message.targets:
        wishes = target.options
        if wishes is not NO_WISHES:
            line = Rcpt(target.address, wishes.notify, wishes.orcpt, smtputf8=True).line()
            yield f"{target.address} " + line.decode().rstrip().partition("> ")[2]


def expect_no_message(message: Message | None) -> None:
    assert message is None, f"a message that is not in the dialogue: {message}"
