"""What `ClientTLS.for_policy` demands, in real handshakes in memory."""

import pytest

from mailsuite.mail.tls_policy import TLSA, TLSFailureKind, TLSPolicy
from mailsuite.net.tls import ClientTLS, PolicyCreator, ServerTLS, TLSFailed, TLSSettingsError
from mailsuite.net.tls import client as client_module
from tests.net.chains import make, record, write
from tests.net.secured import asking, check_nothing_in_plaintext, pair, starting, telling
from tests.net.support import pump

HOST = "mx.example.org"


def shake(server_tls, creator):
    """What the client heard after a handshake, why it has failed, and the two sides."""
    kept = []
    server, client = pair(starting(server_tls), asking(creator, telling([b"secret"], kept)))
    pump(server, client)
    check_nothing_in_plaintext(server, client)
    return kept, client.over[0] if client.over else None


@pytest.fixture(scope="module")
def dane_chain():
    root = make("root", ca=True)
    return make(HOST, root, names=[HOST]), root


@pytest.fixture
def dane_server(tmp_path, dane_chain):
    return ServerTLS(*write(tmp_path, "dane", *dane_chain))


@pytest.mark.parametrize(("usage", "which"), [(3, 0), (2, 1)])
def test_dane_takes_the_certificate_that_a_record_vouches_for(dane_server, dane_chain, client_tls, usage, which):
    policy = TLSPolicy("dane", tlsa=(record(usage, 1, 1, dane_chain[which]),))
    creator = client_tls.for_policy(HOST, policy)
    kept, ending = shake(dane_server, creator)
    assert kept[1:] == [b"secret"]
    assert creator.problem is None
    assert ending is None
    assert kept[0].peer_name == HOST


@pytest.mark.parametrize(
    ("records", "names", "kind"),
    [
        ((TLSA(3, 1, 1, bytes(32)),), (), TLSFailureKind.VALIDATION),
        ((), (), TLSFailureKind.VALIDATION),
        ("leaf by its root", (), TLSFailureKind.VALIDATION),
        ("root", ("other.example",), TLSFailureKind.HOST_MISMATCH),
    ],
)
def test_dane_refuses_all_others(dane_server, dane_chain, client_tls, records, names, kind):
    of_root = {"leaf by its root": (record(3, 1, 1, dane_chain[1]),), "root": (record(2, 1, 1, dane_chain[1]),)}
    creator = client_tls.for_policy(HOST, TLSPolicy("dane", tlsa=of_root.get(records, records), names=names))
    kept, ending = shake(dane_server, creator)
    assert kept == []
    assert isinstance(ending, TLSFailed)
    assert creator.problem is not None
    assert creator.problem.kind is kind
    assert str(ending) == creator.problem.text


def test_server_that_dane_refuses_is_told_so_in_the_handshake(dane_server, client_tls):
    creator = client_tls.for_policy(HOST, TLSPolicy("dane", tlsa=(TLSA(3, 1, 1, bytes(32)),)))
    server, client = pair(starting(dane_server), asking(creator, telling([b"secret"], [])))
    pump(server, client)
    assert isinstance(server.over[0], TLSFailed)
    assert "alert" in str(server.over[0])


def test_dane_does_not_heed_the_authorities_that_are_trusted(server_tls, client_tls):
    kept, ending = shake(server_tls, client_tls.for_policy(HOST, TLSPolicy("dane", tlsa=(TLSA(2, 0, 1, bytes(32)),))))
    assert kept == []
    assert isinstance(ending, TLSFailed)


def test_dane_takes_an_expired_certificate_of_another_name(tmp_path, client_tls):
    old = make("old.example", names=["old.example"], expired=True)
    policy = TLSPolicy("dane", tlsa=(record(3, 1, 1, old),))
    kept, _ending = shake(ServerTLS(*write(tmp_path, "old", old)), client_tls.for_policy(HOST, policy))
    assert kept[1:] == [b"secret"]


def test_dane_without_the_chain_during_verification_judges_at_the_end(dane_server, dane_chain, client_tls, monkeypatch):
    """As with an OpenSSL that gives the chain away only after it has been verified."""
    monkeypatch.setattr(client_module, "_note_dane", lambda *_arguments: True)
    good = TLSPolicy("dane", tlsa=(record(3, 1, 1, dane_chain[0]),))
    assert shake(dane_server, client_tls.for_policy(HOST, good))[0][1:] == [b"secret"]
    creator = client_tls.for_policy(HOST, TLSPolicy("dane", tlsa=(TLSA(3, 1, 1, bytes(32)),)))
    kept, ending = shake(dane_server, creator)
    assert kept == []
    assert "no TLSA record matches" in str(ending)


def test_dane_asks_for_the_base_domain(dane_server, dane_chain, client_tls):
    policy = TLSPolicy("dane", tlsa=(record(3, 1, 1, dane_chain[0]),), names=("base.example", HOST))
    connection = client_tls.for_policy(HOST, policy).clientConnectionForTLS(None)
    assert connection.get_servername() == b"base.example"


def test_verified_takes_any_of_the_names(authority, client_tls):
    tls = ServerTLS(*authority.issue("second.example", file="second"))
    policy = TLSPolicy("verified", names=(HOST, "second.example"))
    assert shake(tls, client_tls.for_policy(HOST, policy))[0][1:] == [b"secret"]


@pytest.mark.parametrize("mode", ["opportunistic", "required"])
@pytest.mark.parametrize(
    ("issue", "kind"),
    [
        ({"name": HOST, "expired": True}, TLSFailureKind.EXPIRED),
        ({"name": "other.example"}, TLSFailureKind.HOST_MISMATCH),
        ({"name": HOST}, None),
    ],
)
def test_testing_takes_note_and_nothing_follows(authority, client_tls, mode, issue, kind):
    tls = ServerTLS(*authority.issue(**issue, file="testing"))
    creator = client_tls.for_policy(HOST, TLSPolicy(mode, testing=True))
    kept, _ending = shake(tls, creator)
    assert kept[1:] == [b"secret"]
    assert (creator.problem and creator.problem.kind) == kind
    assert (kept[0].peer_name is not None) is (kind is None)


def test_testing_takes_note_of_a_stranger(stranger, client_tls):
    creator = client_tls.for_policy(HOST, TLSPolicy("opportunistic", testing=True))
    kept, _ending = shake(ServerTLS(*stranger.issue(HOST)), creator)
    assert kept[1:] == [b"secret"]
    assert creator.problem.kind is TLSFailureKind.NOT_TRUSTED


@pytest.mark.parametrize(
    ("issue", "kind"),
    [
        ({"name": HOST, "expired": True}, TLSFailureKind.EXPIRED),
        ({"name": "other.example"}, TLSFailureKind.HOST_MISMATCH),
    ],
)
def test_verified_says_what_was_wrong(authority, client_tls, issue, kind):
    tls = ServerTLS(*authority.issue(**issue, file="wrong"))
    creator = client_tls.for_policy(HOST, TLSPolicy("verified"))
    kept, ending = shake(tls, creator)
    assert kept == []
    assert isinstance(ending, TLSFailed)
    assert creator.problem.kind is kind


def test_a_hop_may_have_a_certificate_of_its_own(authority, client_tls):
    certificate, key = authority.issue("relay.example.net", client=True)
    asks = ServerTLS(*authority.issue(HOST, file="asks"), client_ca=authority.file)
    seen = []

    async def secured(conversation):
        seen.append(conversation.tls.peer_name)

    for shown in ({}, {"certificate": certificate, "key": key}):
        creator = client_tls.for_policy(HOST, TLSPolicy("required"), **shown)
        server, client = pair(starting(asks, secured), asking(creator, telling([b"secret"], [])))
        pump(server, client)
    assert seen == [None, "relay.example.net"]


def test_certificate_that_cannot_be_used_says_why(tmp_path, client_tls):
    with pytest.raises(TLSSettingsError, match="cannot be read"):
        client_tls.for_policy(HOST, TLSPolicy("required"), certificate=tmp_path / "none.pem")


def test_changed_certificate_is_taken_over_and_a_broken_one_is_not(authority, tmp_path):
    now = [0.0]
    certificate, key = authority.issue("first.example", client=True, file="changing")
    tls = ClientTLS(authority.file, certificate=certificate, key=key, seconds=lambda: now[0])
    asks = ServerTLS(*authority.issue(HOST, file="asks"), client_ca=authority.file)
    seen = []

    async def secured(conversation):
        seen.append(conversation.tls.peer_name)

    def visit():
        now[0] += 61
        creator = tls.for_policy(HOST, TLSPolicy("verified"))
        pump(*pair(starting(asks, secured), asking(creator, telling([b"secret"], []))))

    visit()
    authority.issue("second.example", client=True, file="changing")
    visit()
    certificate.write_text("nothing")
    visit()
    assert seen == ["first.example", "second.example", "second.example"]


@pytest.mark.parametrize("mode", ["none", "whatever"])
def test_modes_without_tls_have_no_creator(client_tls, mode):
    with pytest.raises(ValueError, match="not a mode"):
        client_tls.for_policy(HOST, TLSPolicy(mode))


def test_dane_has_no_creator_without_a_policy(client_tls):
    with pytest.raises(ValueError, match="records"):
        client_tls.for_host(HOST, "dane")
    assert isinstance(client_tls.for_host(HOST, "required"), PolicyCreator)


@pytest.mark.parametrize(
    ("policy", "proves"),
    [
        (TLSPolicy("dane"), True),
        (TLSPolicy("verified"), True),
        (TLSPolicy("verified", mx_proved=False), False),
        (TLSPolicy("required"), False),
        (TLSPolicy("verified", testing=True), False),
    ],
)
def test_host_is_proved_by_certificate_and_by_mx(policy, proves):
    assert policy.proves_the_host is proves
