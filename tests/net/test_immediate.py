# ruff: noqa: SLF001 - what Twisted does not show is what it is about
"""Sending at once: over real sockets where it is done, and every doubt that leaves it to the transport."""

import socket
from contextlib import suppress

import pytest
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from mailsuite.net.connection import Connection
from mailsuite.net.immediate import send_now
from mailsuite.net.timeouts import Timeouts
from mailsuite.net.tls import ClientTLS, ServerTLS
from mailsuite.session.handover import Handover
from mailsuite.wire.core import Role
from tests.net.support import LineCore, Wire, echo


class Keeping(Protocol):
    """Keeps what comes."""

    def __init__(self):
        self.kept = b""
        self.lost = Deferred()

    def dataReceived(self, data):
        self.kept += data

    def connectionLost(self, reason):
        self.lost.callback(None)


class Connected:
    """Two ends of a TCP connection in one reactor."""

    def __init__(self, reactor):
        self.reactor = reactor

    async def __aenter__(self):
        server = Keeping()
        factory = Factory.forProtocol(lambda: server)
        factory.noisy = False
        self.port = await TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1").listen(factory)
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port.getHost().port)
        self.client = await connectProtocol(endpoint, Keeping())
        while not server.connected:
            await deferLater(self.reactor, 0.01)
        self.server = server
        return self

    async def __aexit__(self, *_exception):
        self.client.transport.abortConnection()
        await self.client.lost
        await self.server.lost
        await self.port.stopListening()

    async def arrived(self, keeping, count):
        while len(keeping.kept) < count:
            await deferLater(self.reactor, 0.005)
        return keeping.kept


def test_small_write_has_left_before_the_reactor_turns(reactor, run):
    async def scenario():
        async with Connected(reactor) as both:
            transport = both.server.transport
            assert type(transport) is tcp.Server
            send_now(transport, b"250 OK\r\n")
            assert not transport.dataBuffer
            assert not transport._tempDataBuffer
            assert transport not in reactor.getWriters()
            peer = both.client.transport.socket
            assert peer.recv(100, socket.MSG_PEEK) == b"250 OK\r\n"

    run(scenario())


def test_what_the_socket_does_not_take_is_left_to_the_reactor_in_order(reactor, run):
    async def scenario():
        async with Connected(reactor) as both:
            big = bytes(range(256)) * 64 * 1024  # 16 MiB: more than the socket's buffers
            send_now(both.client.transport, big)
            assert both.client.transport._tempDataBuffer
            send_now(both.client.transport, b"behind")
            assert await both.arrived(both.server, len(big) + 6) == big + b"behind"

    run(scenario(), timeout=20)


def test_nothing_overtakes_what_is_queued(reactor, run):
    async def scenario():
        async with Connected(reactor) as both:
            both.client.transport.write(b"first ")
            send_now(both.client.transport, b"second")
            assert both.client.transport._tempDataBuffer == [b"first ", b"second"]
            assert await both.arrived(both.server, 12) == b"first second"

    run(scenario())


def test_producer_is_paused_as_by_write(reactor, run):
    paused = []

    class Producer:
        def pauseProducing(self):
            paused.append("pause")

        def resumeProducing(self):
            paused.append("resume")

        def stopProducing(self):
            paused.append("stop")

    async def scenario():
        async with Connected(reactor) as both:
            both.client.transport.registerProducer(Producer(), True)
            send_now(both.client.transport, b"x" * (16 * 1024 * 1024))
            assert paused == ["pause"]
            await both.arrived(both.server, 16 * 1024 * 1024)
            assert paused == ["pause", "resume"]

    run(scenario(), timeout=20)


def test_lost_connection_is_left_for_the_reactor_to_find(reactor, run):
    async def scenario():
        async with Connected(reactor) as both:
            both.server.transport.abortConnection()
            await both.server.lost
            with suppress(OSError):
                both.client.transport.socket.recv(1)  # takes the reset off the socket
            send_now(both.client.transport, b"into the void")
            send_now(both.client.transport, b"into the void")
            await both.client.lost
            assert not both.client.transport.connected
            send_now(both.client.transport, b"into the void")
            assert both.server.kept == b""

    run(scenario())


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("TLS", True),
        ("connected", 0),
        ("disconnecting", 1),
        ("disconnected", 1),
        ("dataBuffer", b"rest"),
        ("_tempDataLen", 4),
        ("_writeDisconnecting", True),
        ("_writeDisconnected", True),
        ("_aborting", True),
    ],
)
def test_every_doubt_leaves_it_to_the_transport(attribute, value):
    transport = bare(tcp.Server)
    send_now(transport, b"one")
    assert transport.calls == ["send"]
    setattr(transport, attribute, value)
    send_now(transport, b"two")
    assert transport.calls == ["send", "write"]


def test_missing_attribute_is_a_doubt():
    transport = bare(tcp.Server)
    del transport._tempDataLen  # set by its constructor only: as if Twisted had renamed it
    send_now(transport, b"one")
    assert transport.calls == ["write"]


@pytest.mark.parametrize("kind", [unix.Server, tcp.Connection])
def test_other_transports_are_left_alone(kind):
    transport = bare(kind)
    send_now(transport, b"one")
    assert transport.calls == ["write"]


def test_any_transport_is_written_to():
    wire = Wire()
    send_now(wire, b"one")
    assert wire.writes == [b"one"]


def bare(kind):
    """A transport that is open and idle, without a socket."""
    transport = kind.__new__(kind)
    transport.calls = []
    transport.TLS = False
    transport.connected = 1
    transport._tempDataLen = 0
    transport.write = lambda _data: transport.calls.append("write")
    transport.writeSomeData = lambda data: transport.calls.append("send") or len(data)
    return transport


class Tapped(Connection):
    """A connection that keeps all octets off the wire, before TLS makes something of them."""

    tapped = b""

    def dataReceived(self, data):
        self.tapped += data
        super().dataReceived(data)


def test_after_starttls_no_plaintext_octet_leaves(reactor, run, authority):
    """What a wiretap sees of a STARTTLS session over real sockets: one line in plaintext, then TLS records only."""
    server_tls = ServerTLS(*authority.issue("localhost"))
    client_tls = ClientTLS(authority.file).for_host("localhost", "verified")
    said = [b"secret one", b"secret two " * 50000, b"quit"]
    heard = []

    async def serving(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        return Handover(LineCore(), secured, server_tls)

    async def secured(conversation):
        conversation.send(b"secret greeting\n")
        return await echo(conversation)

    async def asking(conversation):
        conversation.send(b"starttls\n")
        await conversation.receive()
        return Handover(LineCore(Role.CLIENT), talking, client_tls)

    async def talking(conversation):
        heard.append((await conversation.receive()).text)
        for line in said:
            conversation.send(line + b"\n")
            await conversation.drain()
            heard.append((await conversation.receive()).text)

    server = Tapped(LineCore(), serving, clock=reactor, timeouts=Timeouts())
    client = Tapped(LineCore(Role.CLIENT), asking, clock=reactor, timeouts=Timeouts())

    async def scenario():
        factory = Factory.forProtocol(lambda: server)
        factory.noisy = False
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), client)
        ends = [await client.finished(), await server.finished()]
        await port.stopListening()
        return ends

    assert run(scenario(), timeout=20) == [None, None]
    assert heard == [b"secret greeting", *said]
    for tapped, plaintext in ((client.tapped, b"turn\n"), (server.tapped, b"starttls\n")):
        assert tapped.startswith(plaintext)
        assert b"secret" not in tapped
        assert b"quit" not in tapped
        check_records(tapped[len(plaintext) :])


def check_records(octets):
    """Every octet belongs to a TLS record (RFC 8446 section 5.1)."""
    at = 0
    while at < len(octets):
        assert octets[at] in {20, 21, 22, 23}
        assert octets[at + 1] == 3
        at += 5 + int.from_bytes(octets[at + 3 : at + 5])
    assert at == len(octets)
