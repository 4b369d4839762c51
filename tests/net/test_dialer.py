"""The dialer: connections that come about, over TCP, Unix sockets and TLS, and reasons why others do not."""

import socket
from random import Random

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.python.failure import Failure

from mailsuite.net.dialer import ConnectFailed, Dialer, SocketPath
from mailsuite.net.factory import ConnectionFactory
from mailsuite.net.listener import Listener
from mailsuite.net.resolver import DnsFailure, Resolver
from mailsuite.net.timeouts import Timeouts
from mailsuite.net.tls import ClientTLS, ServerTLS, TLSFailed
from mailsuite.session.handover import Handover
from mailsuite.wire.core import Role
from tests.net.support import LineCore, echo


class Hosts:
    """Names that are known without a name server."""

    def __init__(self, **addresses):
        self.addresses = addresses

    def lookupAddress(self, name, timeout=None):
        found = [one for one in self.addresses.get(name, []) if ":" not in one]
        return succeed(([dns.RRHeader(name, dns.A, payload=dns.Record_A(one)) for one in found], [], []))

    def lookupIPV6Address(self, name, timeout=None):
        found = [one for one in self.addresses.get(name, []) if ":" in one]
        return succeed(([dns.RRHeader(name, dns.AAAA, payload=dns.Record_AAAA(one)) for one in found], [], []))


def telling(lines, kept):
    async def session(conversation):
        for line in lines:
            conversation.send(line + b"\n")
            kept.append((await conversation.receive()).text)

    return session


def serving(reactor, session=echo, endpoint="tcp:0:interface=127.0.0.1", **options):
    factory = ConnectionFactory(lambda: (LineCore(), session), reactor, **options)
    listener = Listener(reactor, endpoint, factory)
    listener.startService()
    return listener


def client_core():
    return LineCore(Role.CLIENT)


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_dials_and_tells_how_the_session_ended(reactor, run):
    kept = []

    async def scenario():
        listener = serving(reactor)
        connection = await Dialer(reactor).dial(
            "127.0.0.1", listener.address.port, client_core(), telling([b"one", b"quit"], kept)
        )
        assert connection.conversation.peer.host == "127.0.0.1"
        assert connection.conversation.peer.port == listener.address.port
        assert await connection.finished() is None
        await listener.stopService()

    run(scenario())
    assert kept == [b"one", b"quit"]


def test_dials_a_name_by_its_addresses_until_one_answers(reactor, run):
    kept = []

    async def scenario():
        listener = serving(reactor)
        names = Resolver(Hosts(**{"mx.test": ["127.0.0.2", "127.0.0.1"]}), reactor, Random(1))
        connection = await Dialer(reactor, resolver=names).dial(
            "mx.test", listener.address.port, client_core(), telling([b"quit"], kept)
        )
        assert connection.conversation.peer.host == "127.0.0.1"
        await connection.finished()
        await listener.stopService()

    run(scenario())
    assert kept == [b"quit"]


def test_refusals_are_told_with_every_address_that_was_tried(reactor, run):
    port = unused_port()
    names = Resolver(Hosts(**{"mx.test": ["127.0.0.2", "127.0.0.1"]}), reactor, Random(1))
    with pytest.raises(ConnectFailed) as caught:
        run(Dialer(reactor, resolver=names).dial("mx.test", port, client_core(), echo))
    assert str(caught.value) == (
        f"127.0.0.2 port {port}: connection refused; 127.0.0.1 port {port}: connection refused"
    )


def test_name_without_an_address_is_a_failure_of_the_dns(reactor, run):
    names = Resolver(Hosts(), reactor, Random(1))
    with pytest.raises(DnsFailure, match="has no address"):
        run(Dialer(reactor, resolver=names).dial("mx.test", 25, client_core(), echo))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (error.TimeoutError(), "no answer in time"),
        (error.ConnectionRefusedError(), "connection refused"),
        (error.NoRouteError(), "no route"),
        (error.ConnectBindError(99, "no such address"), "the source address cannot be used"),
        (error.UserError(), "given up"),
        (error.ConnectError(osError=OSError(5, "odd")), "odd"),
        (ValueError("odder"), "odder"),
    ],
)
def test_reasons_are_told_in_words(error, reason):
    reactor, failures = MemoryReactorClock(), []
    dialer = Dialer(reactor, timeouts=Timeouts(connect=30))
    dialing = Deferred.fromCoroutine(dialer.dial("192.0.2.1", 25, client_core(), echo, source_address="10.0.0.1"))
    dialing.addErrback(failures.append)
    [(host, port, factory, timeout, bind)] = reactor.tcpClients
    assert (host, port, timeout, bind) == ("192.0.2.1", 25, 30, ("10.0.0.1", 0))
    factory.clientConnectionFailed(None, Failure(error))
    assert failures[0].check(ConnectFailed)
    assert str(failures[0].value).startswith("192.0.2.1 port 25: ")
    assert reason in str(failures[0].value)


def test_dialling_can_be_given_up(reactor, run):
    async def scenario():
        dialing = Deferred.fromCoroutine(Dialer(reactor).dial("127.0.0.1", unused_port(), client_core(), echo))
        dialing.cancel()
        with pytest.raises(CancelledError):
            await dialing

    run(scenario())


def test_source_address_is_used_and_chooses_the_kind_of_address(reactor, run):
    peers = []

    async def session(conversation):
        peers.append(conversation.peer.host)
        return await echo(conversation)

    async def scenario():
        listener = serving(reactor, session)
        names = Resolver(Hosts(**{"mx.test": ["::1", "127.0.0.1"]}), reactor, Random(1), ipv6_first=True)
        dialer = Dialer(reactor, resolver=names)
        connection = await dialer.dial(
            "mx.test", listener.address.port, client_core(), telling([b"quit"], []), source_address="127.0.0.3"
        )
        await connection.finished()
        names = Resolver(Hosts(**{"mx.test": ["::1"]}), reactor, Random(1))
        with pytest.raises(ConnectFailed, match=r"mx\.test has no address that 127\.0\.0\.3 could reach"):
            await Dialer(reactor, resolver=names).dial("mx.test", 25, client_core(), echo, source_address="127.0.0.3")
        await listener.stopService()

    run(scenario())
    assert peers == ["127.0.0.3"]


def test_dials_a_unix_socket(reactor, run, tmp_path):
    kept = []

    async def scenario():
        path = tmp_path / "lmtp"
        listener = serving(reactor, endpoint=f"unix:{path}")
        connection = await Dialer(reactor).dial(SocketPath(path), 0, client_core(), telling([b"one", b"quit"], kept))
        assert connection.conversation.peer.is_local_socket
        await connection.finished()
        await listener.stopService()
        with pytest.raises(ConnectFailed, match=f"{path}: .*"):
            await Dialer(reactor).dial(SocketPath(path), 0, client_core(), echo)

    run(scenario())
    assert kept == [b"one", b"quit"]


@pytest.fixture
def server_tls(authority):
    return ServerTLS(*authority.issue("localhost", "127.0.0.1", file="dialled"))


def test_implicit_tls(reactor, run, authority, server_tls):
    kept, facts = [], []

    async def session(conversation):
        facts.append(conversation.tls)
        await telling([b"one", b"quit"], kept)(conversation)

    async def scenario():
        listener = serving(reactor, tls=server_tls)
        connection = await Dialer(reactor).dial(
            "127.0.0.1",
            listener.address.port,
            client_core(),
            session,
            tls=ClientTLS(authority.file).for_host("localhost", "implicit"),
        )
        assert await connection.finished() is None
        await listener.stopService()

    run(scenario())
    assert kept == [b"one", b"quit"]
    assert facts[0].version == "TLSv1.3"


def test_implicit_tls_that_fails_tells_why(reactor, run, stranger, server_tls):
    async def scenario():
        listener = serving(reactor, tls=server_tls)
        with pytest.raises(ConnectFailed, match="issuer is not known"):
            await Dialer(reactor).dial(
                "127.0.0.1",
                listener.address.port,
                client_core(),
                echo,
                tls=ClientTLS(stranger.file).for_host("localhost", "implicit"),
            )
        await listener.stopService()

    run(scenario())


def test_starttls_over_real_sockets_and_how_its_failure_is_told(reactor, run, authority, stranger, server_tls):
    kept = []

    async def serve(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        return Handover(LineCore(), echo, server_tls)

    def asking(client_tls):
        async def session(conversation):
            conversation.send(b"starttls\n")
            await conversation.receive()
            return Handover(client_core(), telling([b"one", b"quit"], kept), client_tls)

        return session

    async def scenario():
        listener = serving(reactor, serve)
        endings = []
        for trusted in (authority, stranger):
            tls = ClientTLS(trusted.file).for_host("localhost", "verified")
            connection = await Dialer(reactor).dial("127.0.0.1", listener.address.port, client_core(), asking(tls))
            endings.append(await connection.finished())
        await listener.stopService()
        return endings

    good, bad = run(scenario())
    assert good is None
    assert isinstance(bad, TLSFailed)
    assert "issuer is not known" in str(bad)
    assert kept == [b"one", b"quit"]


def test_large_content_flows_both_ways_under_tls(reactor, run, authority, server_tls):
    kept = []
    line = b"x" * 100_000

    async def session(conversation):
        for _ in range(20):
            conversation.send(line + b"\n")
            await conversation.drain()
            kept.append((await conversation.receive()).text == line)

    async def scenario():
        listener = serving(reactor, tls=server_tls)
        connection = await Dialer(reactor).dial(
            "127.0.0.1",
            listener.address.port,
            client_core(),
            session,
            tls=ClientTLS(authority.file).for_host("localhost", "implicit"),
        )
        assert await connection.finished() is None
        await listener.stopService()

    run(scenario(), timeout=20)
    assert kept == [True] * 20
