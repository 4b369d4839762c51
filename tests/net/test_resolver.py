"""Answers of the DNS, and what they mean for mail."""

import os
from random import Random

import pytest
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed  # noqa: A004
from twisted.internet.task import Clock
from twisted.names import dns, hosts
from twisted.names.error import (
    AuthoritativeDomainError,
    DNSFormatError,
    DNSNameError,
    DNSQueryRefusedError,
    DNSServerError,
    DomainError,
)
from twisted.names.resolve import ResolverChain

from mailsuite.net.resolver import MX, NULL_MX, DnsFailure, NameServers, NoUsableHost, Resolver, system_resolver
from tests.net.nameserver import NameServer


class Names:
    """A name server's answers, by name and kind: records, or an exception."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def _answer(self, kind, name):
        self.asked.append((kind, name))
        answer = self.answers.get(kind, [])
        if isinstance(answer, Deferred):
            return answer
        if isinstance(answer, Exception):
            return fail(answer)
        return succeed(([header(name, payload) for payload in answer], [], []))

    def lookupMailExchange(self, name, timeout=None):
        return self._answer("mx", name)

    def lookupAddress(self, name, timeout=None):
        return self._answer("a", name)

    def lookupIPV6Address(self, name, timeout=None):
        return self._answer("aaaa", name)


def header(name, payload):
    return dns.RRHeader(name, payload.TYPE, payload=payload, ttl=60)


def mx(preference, host):
    return dns.Record_MX(preference, host)


def resolver_of(names, **options):
    return Resolver(names, Clock(), Random(1), **options)


def result_of(coroutine):
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    [result] = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


def test_hosts_come_by_preference():
    names = Names(mx=[mx(20, "b.example"), mx(10, "A.Example"), mx(30, "c.example")])
    assert result_of(resolver_of(names).mx("Example.ORG.")) == [
        MX(10, "a.example"),
        MX(20, "b.example"),
        MX(30, "c.example"),
    ]
    assert names.asked == [("mx", "example.org")]


def test_hosts_of_one_preference_come_in_random_order():
    names = Names(mx=[mx(10, f"{letter}.example") for letter in "abcdef"])
    resolver = resolver_of(names)
    orders = {tuple(host for _, host in result_of(resolver.mx("example.org"))) for _ in range(20)}
    assert len(orders) > 10
    assert {frozenset(order) for order in orders} == {frozenset(f"{letter}.example" for letter in "abcdef")}


def test_host_that_is_named_twice_is_taken_once_at_its_best():
    names = Names(mx=[mx(20, "a.example"), mx(10, "A.example"), mx(15, "b.example")])
    assert result_of(resolver_of(names).mx("example.org")) == [MX(10, "a.example"), MX(15, "b.example")]


def test_ten_thousand_answers_do_not_hurt():
    names = Names(mx=[mx(10000 - number, f"h{number}.example") for number in range(10000)])
    found = result_of(resolver_of(names).mx("example.org"))
    assert [one.host for one in found] == [f"h{number}.example" for number in range(9999, 9979, -1)]


def test_domain_without_mx_is_its_own_host():
    assert result_of(resolver_of(Names()).mx("example.org")) == [MX(0, "example.org")]


def test_alias_without_mx_is_its_own_host():
    names = Names(mx=[dns.Record_CNAME("other.example")])
    assert result_of(resolver_of(names).mx("example.org")) == [MX(0, "example.org")]


def test_mx_behind_an_alias_counts():
    names = Names(mx=[dns.Record_CNAME("other.example"), mx(10, "mx.other.example")])
    assert result_of(resolver_of(names).mx("example.org")) == [MX(10, "mx.other.example")]


def test_null_mx_is_a_value():
    assert result_of(resolver_of(Names(mx=[mx(0, "")])).mx("example.org")) == [NULL_MX]
    assert result_of(resolver_of(Names(mx=[mx(0, ""), mx(5, "a.example")])).mx("example.org")) == [MX(5, "a.example")]


def test_domain_that_does_not_exist_is_a_permanent_failure():
    names = Names(mx=DNSNameError(), a=DNSNameError(), aaaa=DNSNameError())
    with pytest.raises(DnsFailure, match="no such domain") as caught:
        result_of(resolver_of(names).mx("example.org"))
    assert not caught.value.temporary


def test_name_that_only_the_file_of_hosts_knows_is_its_own_host():
    names = Names(mx=DNSNameError(), a=[dns.Record_A("127.0.0.1")], aaaa=DNSNameError())
    assert result_of(resolver_of(names).mx("localhost")) == [MX(0, "localhost")]


@pytest.mark.parametrize(
    "error",
    [DNSServerError(), DNSQueryRefusedError(), DNSFormatError(), TimeoutError(), OSError("no socket"), ValueError("x")],
)
def test_servers_that_fail_are_a_temporary_failure(error):
    for question in ("mx", "addresses"):
        names = Names(mx=error, a=error, aaaa=[])
        with pytest.raises(DnsFailure) as caught:
            result_of(getattr(resolver_of(names), question)("example.org"))
        assert caught.value.temporary
        assert "example.org" in str(caught.value)


def test_servers_that_do_not_answer_are_a_temporary_failure_in_time():
    clock, silence, results = Clock(), Deferred(), []
    resolver = Resolver(Names(mx=silence), clock, Random(1), limit=30)
    Deferred.fromCoroutine(resolver.mx("example.org")).addErrback(results.append)
    clock.advance(29)
    assert results == []
    clock.advance(1)
    assert results[0].check(DnsFailure)
    assert results[0].value.temporary


def test_question_can_be_cancelled():
    results = []
    resolver = resolver_of(Names(mx=Deferred()))
    asking = Deferred.fromCoroutine(resolver.mx("example.org"))
    asking.addErrback(results.append)
    asking.cancel()
    assert results[0].check(CancelledError)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "x" * 64 + ".example", ".".join(["label"] * 60), "white space", "bad\nname", "a.exa\0mple"],
)
def test_what_is_no_name_is_a_permanent_failure_and_never_asked(name):
    names = Names()
    for question in ("mx", "addresses"):
        with pytest.raises(DnsFailure) as caught:
            result_of(getattr(resolver_of(names), question)(name))
        assert not caught.value.temporary
    assert names.asked == []


def test_foreign_names_are_asked_in_a_labels():
    names = Names(mx=[mx(10, "mx.example")])
    result_of(resolver_of(names).mx("Bücher.example"))
    assert names.asked == [("mx", "xn--bcher-kva.example")]


def test_addresses_of_both_kinds():
    names = Names(a=[dns.Record_A("192.0.2.1"), dns.Record_A("192.0.2.2")], aaaa=[dns.Record_AAAA("2001:db8::1")])
    both = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert result_of(resolver_of(names).addresses("mx.example.org")) == both
    assert result_of(resolver_of(names, ipv6_first=True).addresses("mx.example.org")) == [both[2], *both[:2]]


def test_addresses_behind_an_alias_count_once():
    names = Names(a=[dns.Record_CNAME("x.example"), dns.Record_A("192.0.2.1"), dns.Record_A("192.0.2.1")])
    assert result_of(resolver_of(names).addresses("mx.example.org")) == ["192.0.2.1"]


def test_at_most_twenty_addresses():
    names = Names(a=[dns.Record_A(f"192.0.2.{number}") for number in range(200)])
    assert len(result_of(resolver_of(names).addresses("mx.example.org"))) == 20


@pytest.mark.parametrize("literal", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_addresses_stand_for_themselves(literal):
    names = Names()
    assert result_of(resolver_of(names).addresses(literal)) == [literal]
    assert names.asked == []


def test_one_kind_of_address_is_enough():
    names = Names(a=[dns.Record_A("192.0.2.1")], aaaa=DNSServerError())
    assert result_of(resolver_of(names).addresses("mx.example.org")) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("a", "aaaa", "temporary", "reason"),
    [
        ([], [], False, "has no address"),
        (DNSNameError(), DNSNameError(), False, "no such domain"),
        (AuthoritativeDomainError(), AuthoritativeDomainError(), False, "no such domain"),
        (DNSNameError(), DNSServerError(), True, "fail"),
        (DNSServerError(), [], True, "fail"),
        (DomainError(), [], False, "has no address"),
    ],
)
def test_host_without_an_address(a, aaaa, temporary, reason):
    with pytest.raises(DnsFailure, match=reason) as caught:
        result_of(resolver_of(Names(a=a, aaaa=aaaa)).addresses("mx.example.org"))
    assert caught.value.temporary is temporary


def test_file_of_hosts_is_asked_first(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost\n::1 localhost\n192.0.2.9 mx.test\n")
    chain = ResolverChain([hosts.Resolver(str(file)), hosts.Resolver("/dev/null")])
    resolver = resolver_of(chain)
    assert result_of(resolver.addresses("localhost")) == ["127.0.0.1", "::1"]
    assert result_of(resolver.addresses("mx.test")) == ["192.0.2.9"]
    with pytest.raises(DnsFailure):
        result_of(resolver.addresses("other.test"))


class Zone(dns.DNSDatagramProtocol):
    """A name server of one host, over UDP; `absent.test` does not exist."""

    def datagramReceived(self, data, addr):
        message = dns.Message()
        message.fromStr(data)
        reply = dns.Message(id=message.id, answer=1, rCode=dns.OK)
        reply.queries = message.queries
        [query] = message.queries
        if query.name.name == b"absent.test":
            reply.rCode = dns.ENAME
        elif query.type == dns.MX:
            reply.answers = [header(query.name.name, mx(10, "mx.mail.test"))]
        elif query.type == dns.A:
            reply.answers = [header(query.name.name, dns.Record_A("127.0.0.1"))]
        self.transport.write(reply.toStr(), addr)


def test_over_real_sockets(reactor, run):
    async def scenario():
        port = reactor.listenUDP(0, Zone(None, reactor=reactor), interface="127.0.0.1")
        inner = system_resolver(reactor, [("127.0.0.1", port.getHost().port)])
        resolver = Resolver(inner, reactor, Random(1))
        try:
            assert await resolver.mx("mail.test") == [MX(10, "mx.mail.test")]
            assert await resolver.addresses("mx.mail.test") == ["127.0.0.1"]
            assert "127.0.0.1" in await resolver.addresses("localhost")
            with pytest.raises(DnsFailure, match="no such domain"):
                await resolver.mx("absent.test")
        finally:
            await port.stopListening()

    run(scenario())


# ------------------------------------------------------------------------------------- name servers


def asked_in_turn(names, count):
    return {names.pickServer() for _ in range(count)}


def test_name_servers_are_those_of_the_file_and_no_timer_is_left(tmp_path):
    clock, file = Clock(), tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.2\n")
    names = NameServers(clock, file)
    assert asked_in_turn(names, 4) == {("192.0.2.1", 53), ("192.0.2.2", 53)}
    assert clock.getDelayedCalls() == []


def test_a_file_that_has_changed_is_read_when_somebody_asks(tmp_path):
    clock, file = Clock(), tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    names = NameServers(clock, file)
    file.write_text("nameserver 192.0.2.2\n")
    os.utime(file, (1, 1))
    clock.advance(59)
    assert asked_in_turn(names, 2) == {("192.0.2.1", 53)}
    clock.advance(2)
    assert asked_in_turn(names, 2) == {("192.0.2.2", 53)}
    file.unlink()
    clock.advance(61)
    assert asked_in_turn(names, 2) == {("192.0.2.2", 53)}


def test_without_a_file_the_name_server_is_on_this_machine(tmp_path):
    clock, file = Clock(), tmp_path / "resolv.conf"
    names = NameServers(clock, file)
    assert asked_in_turn(names, 2) == {("127.0.0.1", 53)}
    file.write_text("nameserver 192.0.2.1\n")
    clock.advance(61)
    assert asked_in_turn(names, 2) == {("192.0.2.1", 53)}


def test_servers_that_are_named_stand_for_the_file(tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    assert asked_in_turn(NameServers(Clock(), file, [("127.0.0.1", 5353)]), 2) == {("127.0.0.1", 5353)}


# ------------------------------------------------------------------------------- what an MX may name

NO_HOSTS = ["192.0.2.66", "localhost", "x.localhost", "/run/lmtp.sock", "a\r\nX: yes", "a b.example", "2001:db8::1"]


@pytest.mark.parametrize("host", NO_HOSTS)
def test_an_mx_that_names_no_host_is_left_out_and_the_domain_is_not_its_own(host):
    with pytest.raises(NoUsableHost) as caught:
        result_of(resolver_of(Names(mx=[mx(1, host)], a=[dns.Record_A("192.0.2.1")])).mx("example.org"))
    assert not caught.value.temporary
    assert str(caught.value).isprintable()
    beside = Names(mx=[mx(1, host), mx(2, "mx.example")])
    assert result_of(resolver_of(beside).mx("example.org")) == [MX(2, "mx.example")]


def test_an_address_is_no_domain():
    with pytest.raises(DnsFailure, match="an address") as caught:
        result_of(resolver_of(Names()).mx("192.0.2.1"))
    assert not caught.value.temporary


@pytest.mark.parametrize("seed", range(20))
def test_we_are_among_the_hosts_however_many_there_are(seed):
    names = Names(mx=[mx(10, "US.example"), *(mx(10, f"h{number}.example") for number in range(39))])
    found = result_of(Resolver(names, Clock(), Random(seed), own_names=["Us.Example"]).mx("example.org"))
    assert len(found) == 20
    assert MX(10, "us.example") in found


@pytest.mark.parametrize("count", [20, 600, 2000, 2900])
def test_a_long_answer_is_read_over_a_real_socket(reactor, run, count):
    server = NameServer(reactor)
    server.truncating = True
    server.zone["long.example", "MX"] = [f"long.example 60 MX {number} m{number}.v.example." for number in range(count)]

    async def scenario():
        resolver = Resolver(system_resolver(reactor, [server.start()]), reactor, Random(1))
        try:
            for _ in range(2):
                found = await resolver.mx("long.example")
                assert found == [MX(number, f"m{number}.v.example") for number in range(20)]
            assert server.by_tcp == 1
            assert "127.0.0.1" in await resolver.addresses("localhost")
        finally:
            server.stop()

    run(scenario(), 60)
