"""Listeners: what they serve, whom they refuse, how they stop, and what is said when they cannot listen."""

import socket
import stat

import pytest
from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from mailsuite.mail import replies
from mailsuite.net.factory import ConnectionFactory
from mailsuite.net.limits import ConnectionLimits
from mailsuite.net.listener import Listener, ListenError, parse_endpoint
from mailsuite.net.tls import ServerTLS
from tests.net.support import LineCore, Wire, echo

ADDRESS = IPv4Address("TCP", "192.0.2.1", 4321)


def factory_of(clock, session=echo, **options):
    return ConnectionFactory(lambda: (LineCore(), session), clock, **options)


def connect(factory, host="192.0.2.1"):
    wire = Wire(host)
    protocol = factory.buildProtocol(IPv4Address("TCP", host, 4321))
    if protocol is not None:
        protocol.makeConnection(wire)
    return protocol, wire


def lose(protocol):
    protocol.connectionLost(Failure(ConnectionDone()))


# ------------------------------------------------------------------------------------------- factory


def test_factory_serves_each_connection_with_a_pair_of_its_own():
    factory = factory_of(Clock())
    assert IProtocolFactory.providedBy(factory)
    (one, wire_one), (other, wire_other) = connect(factory), connect(factory)
    one.dataReceived(b"one\n")
    other.dataReceived(b"other\n")
    assert (wire_one.sent, wire_other.sent) == (b"one\n", b"other\n")
    assert factory.connections == {one, other}
    lose(one)
    lose(other)
    assert factory.connections == set()


def test_one_too_many_is_told_so_in_one_write():
    clock = Clock()
    limits = ConnectionLimits(per_address=1)
    factory = factory_of(clock, limits=limits)
    first, _ = connect(factory)
    refused, wire = connect(factory)
    assert wire.writes == [replies.TOO_MANY_CONNECTIONS.encoded]
    assert wire.disconnecting
    assert limits.count == 1
    lose(refused)
    lose(first)
    assert clock.getDelayedCalls() == []
    _, wire = connect(factory)
    assert wire.writes == []


def test_refused_one_that_does_not_go_is_aborted():
    clock = Clock()
    factory = factory_of(clock, limits=ConnectionLimits(total=0))
    _, wire = connect(factory)
    clock.advance(5)
    assert wire.disconnected


def test_one_too_many_where_tls_should_begin_hears_nothing(authority):
    tls = ServerTLS(*authority.issue("mx.example.org", file="refusing"))
    _, wire = connect(factory_of(Clock(), limits=ConnectionLimits(total=0), tls=tls))
    assert wire.writes == []
    assert wire.disconnecting


def test_limits_are_shared_between_factories():
    limits = ConnectionLimits(total=2)
    factories = [factory_of(Clock(), limits=limits) for _ in range(2)]
    for factory in factories:
        connect(factory)
    for factory in factories:
        _, wire = connect(factory)
        assert wire.writes == [replies.TOO_MANY_CONNECTIONS.encoded]


def test_pair_that_cannot_be_made_refuses_the_connection_only(logged):
    limits = ConnectionLimits()

    def broken():
        raise ZeroDivisionError("a defect")

    factory = ConnectionFactory(broken, Clock(), limits=limits)
    assert connect(factory)[0] is None
    assert limits.count == 0
    assert any("log_failure" in event for event in logged)


def test_closing_tells_everyone_and_waits_for_them():
    clock = Clock()
    factory = factory_of(clock)
    (idle, idle_wire), (also, _) = connect(factory), connect(factory)
    closing, done = Deferred.fromCoroutine(factory.close(10)), []
    closing.addCallback(done.append)
    assert idle_wire.writes == [replies.SHUTTING_DOWN.encoded]
    lose(idle)
    assert done == []
    lose(also)
    assert done == [None]
    assert [call for call in clock.getDelayedCalls() if call.active()] == []
    assert connect(factory)[0] is None


def test_closing_with_nobody_there_is_done_at_once():
    done = []
    Deferred.fromCoroutine(factory_of(Clock()).close(10)).addCallback(done.append)
    assert done == [None]


def test_closing_aborts_who_does_not_end_in_time():
    clock, kept, done = Clock(), [], []

    async def working(conversation):
        try:
            await Deferred()
        finally:
            kept.append("leases back")

    factory = factory_of(clock, working)
    protocol, wire = connect(factory)
    Deferred.fromCoroutine(factory.close(10)).addCallback(done.append)
    clock.advance(9)
    assert not wire.disconnecting
    clock.advance(1)
    assert wire.disconnected
    lose(protocol)
    assert kept == ["leases back"]
    assert done == [None]


def test_closing_gives_up_on_a_session_that_never_ends(logged):
    clock, done = Clock(), []

    async def stubborn(conversation):
        while True:
            try:
                await Deferred()
            except Exception:  # noqa: BLE001, S112 - that is what is wrong with it
                continue

    factory = factory_of(clock, stubborn)
    protocol, _ = connect(factory)
    Deferred.fromCoroutine(factory.close(10)).addCallback(done.append)
    clock.advance(10)
    lose(protocol)
    clock.advance(10)
    assert done == [None]
    assert any("do not end" in event["log_format"] for event in logged)


# ------------------------------------------------------------------------------------------ listener


def test_listener_is_a_service_that_binds_before_privileges_are_dropped():
    reactor = MemoryReactorClock()
    listener = Listener(reactor, "tcp:2525:interface=127.0.0.1", factory_of(reactor))
    assert IService.providedBy(listener)
    services = MultiService()
    listener.setServiceParent(services)
    services.privilegedStartService()
    assert [(port, interface) for port, _, _, interface in reactor.tcpServers] == [(2525, "127.0.0.1")]
    services.startService()
    assert len(reactor.tcpServers) == 1
    assert listener.address.port == 2525
    services.stopService()
    assert listener.address is None


def test_listener_that_is_only_started_binds_as_well():
    reactor = MemoryReactorClock()
    listener = Listener(reactor, "tcp:2525", factory_of(reactor))
    listener.startService()
    assert len(reactor.tcpServers) == 1


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("", "does not describe a listener"),
        ("25", "does not describe a listener"),
        ("tcp", "does not describe a listener"),
        ("tcp:smtp-port-that-is-none", "does not describe a listener"),
        ("tcp:25:interfaze=127.0.0.1", "does not describe a listener"),
        ("carrier-pigeon:25", "does not describe a listener"),
        ("ssl:465:privateKey=key.pem", "implicit TLS"),
        ("haproxy:tcp:25", "PROXY"),
    ],
)
def test_bad_endpoints_are_told_in_one_sentence(endpoint, said):
    with pytest.raises(ListenError, match=said) as caught:
        parse_endpoint(MemoryReactorClock(), endpoint)
    assert repr(endpoint) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_port_in_use_is_told_in_one_sentence(reactor):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        with pytest.raises(ListenError, match="another program has it") as caught:
            Listener(reactor, endpoint, factory_of(reactor)).privilegedStartService()
    assert str(caught.value).startswith(f"cannot listen on {endpoint!r}: address already in use: ")


def test_address_of_another_machine_is_told(reactor):
    with pytest.raises(ListenError, match="no such address"):
        Listener(reactor, "tcp:0:interface=192.0.2.1", factory_of(reactor)).startService()


def test_port_that_only_root_may_have_is_told():
    class Refusing(MemoryReactorClock):
        def listenTCP(self, port, factory, backlog=50, interface=""):
            raise CannotListenError(interface, port, PermissionError(13, "Permission denied"))

    reactor = Refusing()
    with pytest.raises(ListenError, match="permission denied: ports below 1024 are for root") as caught:
        Listener(reactor, "tcp:25", factory_of(reactor)).privilegedStartService()
    assert "'tcp:25'" in str(caught.value)


def test_socket_in_a_directory_that_is_not_there_is_told(reactor, tmp_path):
    with pytest.raises(ListenError, match="make the directory"):
        Listener(reactor, f"unix:{tmp_path}/none/socket", factory_of(reactor)).startService()


class Keeping(Protocol):
    def __init__(self):
        self.kept = b""
        self.lost = Deferred()

    def dataReceived(self, data):
        self.kept += data

    def connectionLost(self, reason=None):
        self.lost.callback(self.kept)


async def converse(endpoint, said):
    client = await connectProtocol(endpoint, Keeping())
    client.transport.write(said)
    return await client.lost


def test_serves_over_tcp_and_stops(reactor, run):
    async def scenario():
        listener = Listener(reactor, "tcp:0:interface=127.0.0.1", factory_of(reactor))
        listener.privilegedStartService()
        listener.startService()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listener.address.port)
        assert await converse(endpoint, b"one\ntwo\nquit\n") == b"one\ntwo\nquit\n"
        idle = await connectProtocol(endpoint, Keeping())
        idle.transport.write(b"one\n")
        while not idle.kept:
            await converse(endpoint, b"quit\n")
        await listener.stopService()
        assert await idle.lost == b"one\n" + replies.SHUTTING_DOWN.encoded
        assert listener.factory.connections == set()

    run(scenario())


def test_who_connects_before_the_service_has_started_waits_for_it(reactor, run):
    async def scenario():
        listener = Listener(reactor, "tcp:0:interface=127.0.0.1", factory_of(reactor))
        listener.privilegedStartService()
        port = listener.address.port
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            await deferLater(reactor, 0.05)
            assert listener.factory.connections == set()
            listener.startService()
            client.sendall(b"hello\n")
            await deferLater(reactor, 0.05)
            assert client.recv(100) == b"hello\n"
        await listener.stopService()

    run(scenario())


def test_serves_again_after_it_was_stopped(reactor, run):
    async def scenario():
        listener = Listener(reactor, "tcp:0:interface=127.0.0.1", factory_of(reactor))
        for _ in range(2):
            listener.privilegedStartService()
            listener.startService()
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listener.address.port)
            assert await converse(endpoint, b"quit\n") == b"quit\n"
            await listener.stopService()

    run(scenario())


def test_client_that_shuts_its_side_down_gets_all_replies(reactor, run):
    async def scenario():
        listener = Listener(reactor, "tcp:0:interface=127.0.0.1", factory_of(reactor))
        listener.startService()
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", listener.address.port), Keeping())
        client.transport.write(b"one\n" * 1000)
        client.transport.loseWriteConnection()
        assert await client.lost == b"one\n" * 1000
        await listener.stopService()

    run(scenario())


def test_serves_over_a_unix_socket_with_its_mode(reactor, run, tmp_path):
    peers = []

    async def session(conversation):
        peers.append(conversation.peer)
        return await echo(conversation)

    async def scenario():
        path = tmp_path / "socket"
        listener = Listener(reactor, f"unix:{path}:mode=660", factory_of(reactor, session))
        listener.startService()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(ListenError, match="another program has it"):
            Listener(reactor, f"unix:{path}", factory_of(reactor)).startService()
        assert await converse(UNIXClientEndpoint(reactor, str(path)), b"one\nquit\n") == b"one\nquit\n"
        await listener.stopService()

    run(scenario())
    assert peers[0].is_local_socket


def test_more_input_than_fits_is_served_under_pressure(reactor, run):
    """A client that writes megabytes without reading, then reads: nothing is lost, nothing grows."""

    async def scenario():
        listener = Listener(reactor, "tcp:0:interface=127.0.0.1", factory_of(reactor))
        listener.startService()
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", listener.address.port), Keeping())
        client.transport.pauseProducing()
        line = b"x" * 1023 + b"\n"
        client.transport.write(line * 16 * 1024)
        most = 0
        for _ in range(100):
            done = Deferred()
            reactor.callLater(0.01, done.callback, None)
            await done
            for connection in listener.factory.connections:
                most = max(most, connection.conversation.core.buffered)
        assert most < 256 * 1024
        client.transport.resumeProducing()
        client.transport.write(b"quit\n")
        assert await client.lost == line * 16 * 1024 + b"quit\n"
        await listener.stopService()

    run(scenario(), timeout=30)
