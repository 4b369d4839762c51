"""TLS on a connection: STARTTLS as a handover, implicit TLS, and what must never pass in plaintext."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.mail import replies
from mailsuite.net.timeouts import Timeouts
from mailsuite.net.tls import ServerTLS, TLSFailed
from mailsuite.session.handover import Handover
from mailsuite.wire.core import ConnectionClosed, RemoteProtocolError, Role
from tests.net.secured import asking, check_nothing_in_plaintext, pair, starting, telling
from tests.net.support import LineCore, Side, echo, pump


def test_starttls_is_a_handover_on_both_sides(server_tls, client_tls):
    kept = []
    facts = []

    async def secured(conversation):
        facts.append(conversation.tls)
        return await echo(conversation)

    server, client = pair(
        starting(server_tls, secured),
        asking(client_tls.for_host("mx.example.org", "verified"), telling([b"secret", b"hidden", b"quit"], kept)),
    )
    pump(server, client)
    assert kept[1:] == [b"secret", b"hidden", b"quit"]
    assert facts[0].version == "TLSv1.3"
    assert facts[0].bits >= 128
    assert facts[0].cipher
    assert facts[0].peer_name is None
    assert kept[0].peer_name == "mx.example.org"
    assert client.wire.sent.startswith(b"starttls\n\x16\x03")
    assert server.wire.sent.startswith(b"turn\n\x16\x03")
    check_nothing_in_plaintext(server, client)
    assert (server.over, client.over) == ([None], [None])
    assert server.clock.getDelayedCalls() == []


def test_implicit_tls_begins_with_the_first_octet(server_tls, client_tls):
    kept = []

    async def greeting(conversation):
        conversation.send(b"secret\n")
        return await echo(conversation)

    async def client_session(conversation):
        kept.append((await conversation.receive()).text)
        conversation.send(b"hidden\n")
        kept.append((await conversation.receive()).text)

    server, client = pair(
        greeting,
        client_session,
        server_options={"tls": server_tls},
        client_options={"tls": client_tls.for_host("mx.example.org", "implicit")},
    )
    pump(server, client)
    assert kept == [b"secret", b"hidden"]
    assert client.wire.sent.startswith(b"\x16\x03")
    check_nothing_in_plaintext(server, client)


def test_new_session_begins_only_when_the_handshake_is_done(server_tls):
    begun = []

    async def secured(conversation):
        begun.append(True)
        return await echo(conversation)

    server = Side(starting(server_tls, secured))
    server.receive(b"starttls\n")
    assert server.wire.sent == b"turn\n"
    assert begun == []


def test_server_that_became_a_client_is_the_client_of_tls_as_well(server_tls, client_tls):
    """As ATRN turns a plaintext connection around, whoever speaks as a client asks for TLS (RFC 3207 section 4)."""
    kept = []

    async def turned(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        tls = client_tls.for_host("mx.example.org", "verified")
        return Handover(LineCore(Role.CLIENT), asking(tls, telling([b"secret", b"quit"], kept)))

    async def turning(conversation):
        conversation.send(b"atrn\n")
        await conversation.receive()
        return Handover(LineCore(), starting(server_tls))

    provider, customer = pair(turned, turning)
    pump(provider, customer)
    assert kept[1:] == [b"secret", b"quit"]
    check_nothing_in_plaintext(provider, customer)


def test_plaintext_behind_starttls_drops_a_servers_connection(server_tls, logged):
    begun = []

    async def secured(conversation):
        begun.append(True)

    side = Side(starting(server_tls, secured))
    side.receive(b"starttls\nmail from:<>\n")
    assert begun == []
    assert side.wire.sent == b""
    assert side.is_closing
    assert any("plaintext behind STARTTLS" in event.get("log_format", "") for event in logged)
    side.lose()
    assert isinstance(side.over[0], RemoteProtocolError)


def test_plaintext_injected_before_the_handshake_drops_a_clients_connection(client_tls):
    side = Side(asking(client_tls.for_host("mx.example.org", "required"), echo), LineCore(Role.CLIENT))
    side.receive(b"turn\n250 injected\n")
    assert side.wire.sent == b"starttls\n"
    assert side.is_closing


def test_session_within_tls_writes_nothing_in_plaintext_when_the_transport_is_lost(server_tls, client_tls):
    kept = []

    async def secured(conversation):
        while True:
            try:
                event = await conversation.receive()
            except ConnectionClosed:
                conversation.send(b"secret\n")
                return
            conversation.send(b"hidden " + event.text + b"\n")

    async def never_quitting(conversation):
        conversation.send(b"one\n")
        kept.append((await conversation.receive()).text)
        await Deferred()

    server, client = pair(
        starting(server_tls, secured), asking(client_tls.for_host("mx.example.org", "required"), never_quitting)
    )
    pump(server, client)
    assert kept == [b"hidden one"]
    client.connection.write(b"last words\n")
    last = client.wire.writes[-1]
    # The last record arrives only in part: what the TLS layer makes of it when the connection breaks stays inside.
    server.receive(last[:-3])
    server.lose()
    check_nothing_in_plaintext(server, client)
    client.lose()


def test_plaintext_instead_of_a_handshake_ends_the_connection(server_tls):
    side = Side(starting(server_tls))
    side.receive(b"starttls\n")
    side.receive(b"EHLO this is no handshake\r\n")
    assert side.is_closing
    side.lose()
    assert isinstance(side.over[0], TLSFailed)


def test_handshake_has_a_limit_of_time(server_tls):
    side = Side(starting(server_tls), timeouts=Timeouts(handshake=60))
    side.receive(b"starttls\n")
    side.clock.advance(59)
    assert not side.wire.disconnected
    side.receive(b"\x16\x03\x01")
    side.clock.advance(1)
    assert side.wire.disconnected
    side.lose()
    assert isinstance(side.over[0], TLSFailed)
    assert "too long" in str(side.over[0])


def test_implicit_handshake_has_a_limit_of_time(server_tls):
    side = Side(tls=server_tls, timeouts=Timeouts(handshake=60))
    side.clock.advance(60)
    assert side.wire.disconnected


def test_connection_lost_within_the_handshake_is_a_failed_handshake(server_tls):
    side = Side(starting(server_tls))
    side.receive(b"starttls\n")
    side.lose()
    assert isinstance(side.over[0], TLSFailed)
    assert side.clock.getDelayedCalls() == []


def test_shutdown_within_the_handshake_closes(server_tls):
    side = Side(tls=server_tls)
    side.connection.shutdown(replies.SHUTTING_DOWN)
    assert side.wire.disconnected
    assert replies.SHUTTING_DOWN.encoded not in side.wire.sent


def test_settings_that_cannot_make_a_connection_end_it(logged):
    class Broken(ServerTLS):
        def __init__(self):
            pass

        def serverConnectionForTLS(self, tlsProtocol):
            raise ZeroDivisionError("a defect")

    side = Side(starting(Broken()))
    side.receive(b"starttls\n")
    assert side.is_closing
    side.lose()
    assert isinstance(side.over[0], TLSFailed)
    assert any("log_failure" in event for event in logged)


def test_tls_within_tls_is_our_own_fault(server_tls, client_tls, logged):
    server, client = pair(
        starting(server_tls, starting(server_tls)),
        asking(client_tls.for_host("mx.example.org", "required"), telling([b"again"], [])),
    )
    pump(server, client)
    assert any("log_failure" in event for event in logged)
    assert server.wire.disconnected


def test_peers_leave_of_tls_ends_the_session(server_tls, client_tls):
    kept = []

    async def secured(conversation):
        try:
            return await echo(conversation)
        except ConnectionClosed:
            kept.append("told")
            raise

    server, client = pair(
        starting(server_tls, secured),
        asking(client_tls.for_host("mx.example.org", "required"), telling([b"secret"], [])),
    )
    pump(server, client)
    assert kept == ["told"]


def test_closing_under_tls_reads_on_for_the_peers_leave(server_tls, client_tls):
    gate = Deferred()

    async def secured(conversation):
        await conversation.receive()
        await gate

    async def flooding(conversation):
        conversation.send(b"go\n" + b"x" * 100_000)
        await conversation.receive()

    server, client = pair(
        starting(server_tls, secured), asking(client_tls.for_host("mx.example.org", "required"), flooding)
    )
    pump(server, client)
    assert server.wire.producerState == "paused"
    gate.callback(None)
    assert server.wire.producerState == "producing"
    pump(server, client)
    assert server.over == [None]


def test_end_of_the_transport_under_tls_ends_the_connection(server_tls, client_tls):
    async def waiting(conversation):
        await conversation.receive()

    server, client = pair(starting(server_tls), asking(client_tls.for_host("mx.example.org", "required"), waiting))
    pump(server, client)
    server.connection.readConnectionLost()
    assert server.is_closing
    server.lose()
    client.lose()
    assert isinstance(server.over[0], ConnectionClosed)


def test_drain_waits_for_room_below_tls(server_tls, client_tls):
    done = []

    async def secured(conversation):
        await conversation.receive()
        conversation.send(b"secret" * 1000)
        await conversation.drain()
        done.append(True)

    async def client_session(conversation):
        conversation.send(b"go\n")
        await conversation.receive()

    server, client = pair(
        starting(server_tls, secured), asking(client_tls.for_host("mx.example.org", "required"), client_session)
    )
    server.wire.has_room = False
    pump(server, client)
    assert done == []
    server.wire.make_room()
    assert done == [True]
    check_nothing_in_plaintext(server)


@pytest.mark.parametrize(
    ("line_by_line", "pieces"),
    [(False, [b"one\ntwo\r\nthree\n"]), (True, [b"one\n", b"two\r\n", b"three\n"])],
)
def test_lines_are_records_of_their_own_for_a_peer_that_reads_one_line_of_each(
    server_tls, client_tls, line_by_line, pieces
):
    async def talks(conversation):
        conversation.line_by_line = line_by_line
        conversation.send(b"one\ntwo\r\nthree\n")
        await conversation.receive()

    async def listens(conversation):
        while await conversation.receive():
            pass

    server, client = pair(
        talks,
        listens,
        server_options={"tls": server_tls},
        client_options={"tls": client_tls.for_host("mx.example.org", "implicit")},
    )
    heard = []
    client.connection.plaintext_received = heard.append  # called once for each record
    pump(server, client)
    assert heard == pieces
