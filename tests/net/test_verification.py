"""Whose certificates are taken, and whom they name."""

from contextlib import suppress

import pytest
from OpenSSL import SSL

from mailsuite.net.tls import ClientTLS, ServerTLS, TLSFailed
from tests.net.secured import asking, check_nothing_in_plaintext, pair, starting, telling
from tests.net.support import echo, pump


@pytest.mark.parametrize(
    ("name", "mode", "complaint"),
    [
        ("other.example.org", "verified", "not for other.example.org"),
        ("192.0.2.26", "verified", "not for 192.0.2.26"),
        ("other.example.org", "implicit", "not for other.example.org"),
    ],
)
def test_client_that_verifies_refuses_another_hosts_certificate(server_tls, client_tls, name, mode, complaint):
    kept = []
    server, client = pair(starting(server_tls), asking(client_tls.for_host(name, mode), telling([b"secret"], kept)))
    pump(server, client)
    assert kept == []
    assert isinstance(client.over[0], TLSFailed)
    assert complaint in str(client.over[0])
    assert isinstance(server.over[0], TLSFailed)
    check_nothing_in_plaintext(server, client)


@pytest.mark.parametrize("name", ["mx.example.org", "MX.Example.ORG.", "192.0.2.25"])
def test_client_that_verifies_takes_the_hosts_own_certificate(server_tls, client_tls, name):
    kept = []
    server, client = pair(
        starting(server_tls), asking(client_tls.for_host(name, "verified"), telling([b"secret"], kept))
    )
    pump(server, client)
    assert kept[1:] == [b"secret"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"expired": True, "file": "expired"}, "expired"), ({"client": True, "file": "client"}, "not for a server")],
)
def test_client_that_verifies_refuses_a_certificate_that_is_not_good(authority, client_tls, options, complaint):
    tls = ServerTLS(*authority.issue("mx.example.org", **options))
    server, client = pair(
        starting(tls), asking(client_tls.for_host("mx.example.org", "verified"), telling([b"secret"], []))
    )
    pump(server, client)
    assert complaint in str(client.over[0])


def test_client_that_verifies_refuses_a_strangers_certificate(stranger, client_tls):
    tls = ServerTLS(*stranger.issue("mx.example.org"))
    server, client = pair(
        starting(tls), asking(client_tls.for_host("mx.example.org", "verified"), telling([b"secret"], []))
    )
    pump(server, client)
    assert isinstance(client.over[0], TLSFailed)
    assert "issuer is not known" in str(client.over[0])


@pytest.mark.parametrize("mode", ["opportunistic", "required"])
def test_client_that_does_not_verify_takes_any_certificate(stranger, client_tls, mode):
    kept = []
    tls = ServerTLS(*stranger.issue("whoever.example", expired=True, file="whoever"))
    server, client = pair(
        starting(tls), asking(client_tls.for_host("mx.example.org", mode), telling([b"secret"], kept))
    )
    pump(server, client)
    assert kept[1:] == [b"secret"]
    assert kept[0].peer_name is None


def test_client_says_which_host_it_wants(server_tls, client_tls):
    asked = []

    class Asked(ServerTLS):
        def __init__(self):
            pass

        def serverConnectionForTLS(self, tlsProtocol):
            self.connection = server_tls.serverConnectionForTLS(tlsProtocol)
            return self.connection

    for name in ("mx.example.org", "bücher.example", "192.0.2.25"):
        tls = Asked()
        server, client = pair(
            starting(tls), asking(client_tls.for_host(name, "opportunistic"), telling([b"secret"], []))
        )
        pump(server, client)
        asked.append(tls.connection.get_servername())
    assert asked == [b"mx.example.org", b"xn--bcher-kva.example", None]


def test_facts_name_a_client_that_the_authority_vouches_for(authority, stranger):
    tls = ServerTLS(*authority.issue("mx.example.org", file="asking"), client_ca=authority.file)
    good = authority.issue("relay.example.net", client=True)
    mailbox = authority.issue("relay.example.net", "ann@example.org", client=True, file="mailbox")
    common = authority.issue("x", common="Relay 7", client=True, file="common")
    strange = stranger.issue("relay.example.net", client=True, file="strange")
    expired = authority.issue("relay.example.net", client=True, expired=True, file="old-client")
    server_kind = authority.issue("relay.example.net", file="server-kind")
    names = []

    async def secured(conversation):
        names.append(conversation.tls.peer_name)
        return await echo(conversation)

    for files in (good, mailbox, common, strange, expired, server_kind, None):
        kept = []
        shown = {} if files is None else {"certificate": files[0], "key": files[1]}
        showing = ClientTLS(authority.file, **shown).for_host("mx.example.org", "verified")
        server, client = pair(starting(tls, secured), asking(showing, telling([b"secret"], kept)))
        pump(server, client)
        assert kept[1:] == [b"secret"]
    assert names == ["relay.example.net", "ann@example.org", "Relay 7", None, None, None, None]


@pytest.mark.parametrize("asks", [True, False])
def test_only_a_server_that_asks_for_no_certificate_resumes_sessions(authority, asks):
    """A resumed session shows no certificate: what was not verified in this handshake must not count."""
    files = authority.issue("mx.example.org", file="resuming")
    tls = ServerTLS(*files, client_ca=authority.file if asks else None)
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    clients = []
    for _ in range(2):
        server, client = tls.serverConnectionForTLS(None), SSL.Connection(context, None)
        if clients:
            client.set_session(clients[0].get_session())
        shake_hands(server, client)
        clients.append(client)
    resumed = clients[0].master_key() == clients[1].master_key()
    assert resumed is not asks


def shake_hands(server, client):
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(5):
        for one, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))


@pytest.mark.parametrize("version", [SSL.TLS1_1_VERSION, SSL.TLS1_VERSION])
def test_old_versions_of_tls_are_refused(server_tls, version):
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    with pytest.raises(SSL.Error):
        shake_hands(server_tls.serverConnectionForTLS(None), SSL.Connection(context, None))
