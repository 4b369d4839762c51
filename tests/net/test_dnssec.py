"""DNS answers and whether they are secure: over real sockets, from a name server of the test's own."""

import dns.edns
import dns.flags
import dns.rcode
import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from mailsuite.mail.tls_policy import TLSA
from mailsuite.net import dnssec
from mailsuite.net.dnssec import LookupFailed, SystemServers, ValidatingResolver, Validation, is_loopback
from tests.net.nameserver import NameServer


@pytest.fixture
def server(reactor):
    server = NameServer(reactor)
    server.place = server.start()
    yield server
    server.stop()


@pytest.fixture
def resolver(reactor, server):
    return ValidatingResolver(reactor, lambda: [server.place])


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(dnssec, "_TRIES", (0.05, 0.05))
    monkeypatch.setattr(dnssec, "_TCP_TIME", 0.2)


def test_records_of_each_kind_are_values(server, resolver, run):
    server.zone = {
        ("a.example", "MX"): ["a.example 60 MX 10 MX.Example."],
        ("a.example", "A"): ["a.example 60 A 192.0.2.1"],
        ("a.example", "AAAA"): ["a.example 60 AAAA 2001:db8::1"],
        ("_25._tcp.a.example", "TLSA"): [f"_25._tcp.a.example 60 TLSA 3 1 1 {'ab' * 32}"],
        ("t.example", "TXT"): ['t.example 60 TXT "v=STSv1; " "id=1"'],
        ("c.example", "CNAME"): ["c.example 60 CNAME a.example."],
        ("none.example", "MX"): ["none.example 60 MX 0 ."],
    }

    async def ask(name, kind):
        return (await resolver.ask(name, kind)).records

    assert run(ask("a.example", "MX")) == ("mx.example",)
    assert run(ask("A.Example.", "A")) == ("192.0.2.1",)
    assert run(ask("a.example", "AAAA")) == ("2001:db8::1",)
    assert run(ask("_25._tcp.a.example", "TLSA")) == (TLSA(3, 1, 1, b"\xab" * 32),)
    assert run(ask("t.example", "TXT")) == (b"v=STSv1; id=1",)
    assert run(ask("c.example", "CNAME")) == ("a.example",)
    assert run(ask("none.example", "MX")) == ("",)


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("zone", [[], ["a.example 60 A 192.0.2.1"], dns.rcode.NXDOMAIN])
def test_answer_says_whether_it_is_secure_also_where_there_is_none(server, resolver, run, secure, zone):
    server.secure, server.zone = secure, {("a.example", "A"): zone}
    answer = run(resolver.ask("a.example", "A"))
    assert answer.secure is secure
    assert len(answer.records) == (1 if isinstance(zone, list) and zone else 0)


def test_question_asks_for_dnssec(server, resolver, run):
    run(resolver.ask("a.example", "A"))
    flags, edns = server.flags
    assert flags & dns.flags.AD
    assert flags & dns.flags.RD
    assert not flags & dns.flags.CD
    assert edns & dns.flags.DO


def test_aliases_are_followed_in_one_answer_and_in_several(server, resolver, run):
    server.zone = {
        ("one.example", "A"): ["one.example 60 CNAME two.example.", "two.example 60 A 192.0.2.2"],
        ("far.example", "A"): ["far.example 60 CNAME one.example."],
    }
    answer = run(resolver.ask("one.example", "A"))
    assert (answer.records, answer.canonical) == (("192.0.2.2",), "two.example")
    answer = run(resolver.ask("far.example", "A"))
    assert (answer.records, answer.canonical) == (("192.0.2.2",), "two.example")


def test_aliases_in_a_ring_are_an_error(server, resolver, run):
    server.zone = {
        ("a.example", "A"): ["a.example 60 CNAME b.example."],
        ("b.example", "A"): ["b.example 60 CNAME a.example."],
    }
    with pytest.raises(LookupFailed, match="aliases"):
        run(resolver.ask("a.example", "A"))


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED])
def test_errors_are_not_taken_for_there_is_none(server, resolver, run, rcode):
    server.zone = {("a.example", "TLSA"): rcode}
    with pytest.raises(LookupFailed, match=dns.rcode.to_text(rcode)) as caught:
        run(resolver.ask("a.example", "TLSA"))
    assert not caught.value.bogus


def test_resolver_that_blames_signatures_is_heard(server, resolver, run):
    server.zone = {("a.example", "A"): dns.rcode.SERVFAIL}
    server.edns = [dns.edns.EDEOption(6, "signature\nexpired")]
    with pytest.raises(LookupFailed, match="extended error 6: signatureexpired") as caught:
        run(resolver.ask("a.example", "A"))
    assert caught.value.bogus


def test_answer_that_does_not_fit_comes_by_tcp(server, resolver, run):
    server.truncating = True
    server.zone = {("a.example", "MX"): [f"a.example 60 MX 10 mx{number}.example." for number in range(200)]}
    assert len(run(resolver.ask("a.example", "MX")).records) == 200
    assert server.by_tcp == 1


def test_answer_without_measure_is_refused(server, resolver, run, monkeypatch):
    monkeypatch.setattr(dnssec, "_TRIES", (2.0,))
    server.truncating = True
    server.zone = {("a.example", "MX"): [f"a.example 60 MX 10 mx{number}.long-name.example." for number in range(900)]}
    with pytest.raises(LookupFailed, match="too long"):
        run(resolver.ask("a.example", "MX"))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("octets", [None, b"", b"\0", b"\xff" * 500, bytes(12)])
def test_silence_and_garbage_are_no_answer(server, resolver, run, octets):
    server.zone = {("a.example", "A"): octets}
    with pytest.raises(LookupFailed, match="no answer in time"):
        run(resolver.ask("a.example", "A"))
    assert len(server.asked) == 2


@pytest.mark.usefixtures("impatient")
def test_garbage_by_tcp_is_no_answer(server, resolver, run):
    server.truncating = True
    honest = server.reply
    server.reply = lambda wire, *, stream: b"garbage" if stream else honest(wire, stream=stream)
    with pytest.raises(LookupFailed, match="makes no sense"):
        run(resolver.ask("a.example", "A"))


def test_second_server_is_asked_where_the_first_is_away(reactor, server, run):
    server.zone = {("a.example", "A"): ["a.example 60 A 192.0.2.1"]}
    resolver = ValidatingResolver(reactor, lambda: [("127.0.0.1", 1), server.place])
    assert run(resolver.ask("a.example", "A")).records == ("192.0.2.1",)


def test_without_servers_there_is_no_answer(reactor, run):
    with pytest.raises(LookupFailed, match="no name server"):
        run(ValidatingResolver(reactor, list).ask("a.example", "A"))


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "a." * 200])
def test_what_is_no_name_is_not_asked_for(server, resolver, run, name):
    with pytest.raises(LookupFailed, match="not a domain name"):
        run(resolver.ask(name, "A"))
    assert server.asked == []


def test_answers_are_kept_as_long_as_they_say(server, resolver, run):
    server.zone = {
        ("long.example", "A"): ["long.example 60 A 192.0.2.1"],
        ("short.example", "A"): ["short.example 0 A 192.0.2.1"],
    }
    for _ in range(2):
        for name in ("long.example", "short.example", "none.example"):
            run(resolver.ask(name, "A"))
    assert sorted(name for name, _kind in server.asked) == [
        "long.example",
        "none.example",
        "short.example",
        "short.example",
    ]


def test_same_question_at_once_is_asked_once(server, resolver, run):
    server.zone = {("a.example", "A"): ["a.example 0 A 192.0.2.1"]}
    asking = [Deferred.fromCoroutine(resolver.ask("a.example", "A")) for _ in range(5)]
    asking[0].addErrback(lambda failure: failure.trap(CancelledError))
    asking[0].cancel()
    answers = run(gatherResults(asking[1:]))
    assert [answer.records for answer in answers] == [("192.0.2.1",)] * 4
    assert len(server.asked) == 1


def test_stopping_cancels_who_waits(server, resolver, run):
    server.zone = {("a.example", "A"): None}
    asking = Deferred.fromCoroutine(resolver.ask("a.example", "A"))
    run(resolver.stop())
    with pytest.raises(CancelledError):
        run(asking)


# ---------------------------------------------------------------------------------------- validation


def test_validation_is_found_out_and_not_doubted_for_want_of_an_answer(reactor, server, resolver, run, monkeypatch):
    monkeypatch.setattr(dnssec, "_PROOF_TIME", 0.0)
    server.zone = {("@", "SOA"): [], (".", "SOA"): []}
    validation = Validation(resolver, reactor)
    assert run(validation.holds()) is True
    resolver._kept.clear()  # noqa: SLF001 - as if time had passed
    server.zone = {("@", "SOA"): dns.rcode.SERVFAIL, (".", "SOA"): dns.rcode.SERVFAIL}
    assert run(validation.holds()) is True
    resolver._kept.clear()  # noqa: SLF001
    server.zone, server.secure = {}, False
    assert run(validation.holds()) is False


def test_validation_elsewhere_is_not_believed(reactor, run):
    resolver = ValidatingResolver(reactor, lambda: [("127.0.0.1", 53), ("192.0.2.53", 53)])
    assert run(Validation(resolver, reactor).holds()) is False


@pytest.mark.parametrize(
    ("address", "yes"), [("127.0.0.53", True), ("::1", True), ("192.0.2.1", False), ("localhost", False)]
)
def test_loopback_is_told_by_address(address, yes):
    assert is_loopback(address) is yes


def test_system_servers_are_those_of_the_file(reactor, tmp_path):
    file = tmp_path / "resolv.conf"
    assert SystemServers(reactor, file)() == [("127.0.0.1", 53)]
    file.write_text("nameserver 192.0.2.53\nnameserver ::1\noptions trust-ad\n")
    assert SystemServers(reactor, file)() == [("192.0.2.53", 53), ("::1", 53)]
