"""Holds the server's dialogues over TCP on the loopback, over STARTTLS, and over TLS from the first octet.

The same marks as in `runners`. Who asks comes from another address here than in memory, so where the content is
compared the addresses are taken for the same; under implicit TLS, where the trace line says so, only envelopes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsuite.net.factory import ConnectionFactory
from mailsuite.net.securing import TLSCreator
from tests.dialogues.dialogue import Dialogue, Mark, Queued, Said
from tests.dialogues.house import PEER, House, Message
from tests.dialogues.runners import Cut, expect_message, expect_no_message, expect_said, expect_silence, expect_turn

PATIENCE = 5.0  # seconds for one answer


@implementer(IHandshakeListener)
class Client(Protocol):
    """What came, and whoever waits for more."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False
        self.secured = False
        self._waiter: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._wake()

    def handshakeCompleted(self) -> None:
        self.secured = True
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self._wake()

    async def more(self, reactor: Any) -> bool:
        """Wait until something has happened; False if nothing does."""
        if self.lost:
            return False
        self._waiter = waiter = Deferred()
        late = reactor.callLater(PATIENCE, self._wake)
        before = len(self.received), self.secured
        await waiter
        if late.active():
            late.cancel()
        return self.lost or before != (len(self.received), self.secured)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)


async def hold_over_sockets(
    dialogue: Dialogue, reactor: Any, tls: TLSCreator, *, cut: Cut | None = None, implicit: bool = False
) -> None:
    """Hold a dialogue; raises AssertionError where somebody says something else than is written."""
    house = House(dialogue, tls_options=tls)
    factory = ConnectionFactory(lambda: house.door.open(secure=implicit), reactor, tls=tls if implicit else None)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    # Between two of these the line breaks.
    parts: list[list[Any]] = [[]]
    for step in dialogue.steps:
        if step == Mark(("lost",)):
            parts.append([])
        else:
            parts[-1].append(step)
    messages = iter(house.spool.messages)
    try:
        for steps in parts:
            client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Client())
            client.transport.setTcpNoDelay(True)
            try:
                if implicit:
                    await begin_tls(client, reactor)
                await _hold(steps, messages, house, client, reactor, cut, compare=not implicit)
                if steps is not parts[-1]:
                    # An abort might overtake what was said last.
                    client.transport.loseConnection()
                    await _until_lost(client, reactor)
            finally:
                client.transport.abortConnection()
                await _until_lost(client, reactor)
        expect_no_message(next(messages, None))
    finally:
        await port.stopListening()
        await factory.close(PATIENCE)
    assert house.spool.open_drafts == 0
    assert house.on_demand.open_turns == 0


async def _until_lost(client: Client, reactor: Any) -> None:
    while not client.lost:
        assert await client.more(reactor)


async def _hold(
    steps: list[Any],
    messages: Iterator[Message],
    house: House,
    client: Client,
    reactor: Any,
    cut: Cut | None,
    *,
    compare: bool,
) -> None:
    for step in steps:
        match step:
            case Said("C"):
                _say(client, step, cut)
            case Said():
                await _hear(client, step, reactor)
            case Queued():
                _compare(step, next(messages, None), compare=compare)
            case Mark(("turn", *words)):
                expect_turn(house, words)
            case Mark():
                await _happen(client, step, reactor)
    expect_silence(client.received)


def _say(client: Client, step: Said, cut: Cut | None) -> None:
    expect_silence(client.received)
    transport: Any = client.transport
    for packet in step.packets:
        for piece in [packet] if cut is None else cut(packet):
            transport.write(piece)


async def _hear(client: Client, step: Said, reactor: Any) -> None:
    while not step.pattern.fullmatch(client.received) and await client.more(reactor):
        pass
    expect_said(step, client.received)
    client.received = b""


async def _happen(client: Client, mark: Mark, reactor: Any) -> None:
    transport: Any = client.transport
    match mark.words:
        case ("eof",):
            transport.loseWriteConnection()
        case ("tls",):
            await begin_tls(client, reactor)
        case ("closed",):
            while not client.lost:
                assert await client.more(reactor), "the server does not close"
            expect_silence(client.received)
        case words:
            raise ValueError(f"== {' '.join(words)}")


async def begin_tls(client: Client, reactor: Any) -> None:
    expect_silence(client.received)
    transport: Any = client.transport
    # Nothing is verified: the certificate is of the tests' own, and there are tests of verification elsewhere.
    transport.startTLS(CertificateOptions())
    while not client.secured:
        assert await client.more(reactor), "no handshake"


def _compare(step: Queued, message: Any, *, compare: bool) -> None:
    if message is not None:
        seen = re.sub(rb"\[127\.0\.0\.1\]", f"[{PEER.host}]".encode(), message.content, count=1)
        message = replace(message, content=seen)
    expect_message(step if compare else replace(step, lines=()), message)
