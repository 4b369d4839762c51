"""Which hosts a relay destination means."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.next_hops import NextHops, Unroutable
from mailsuite.delivery.own_addresses import OwnAddresses
from mailsuite.delivery.routes import Route, Routes
from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.net.addresses import parse_address
from mailsuite.net.resolver import MX, NULL_MX, DnsFailure, NoUsableHost
from tests.delivery.fakes import relay

SMARTHOST = NextHop("smtp.provider.example", 587, tls="verified", username="us", password="secret")
GROUP = NextHop("group.example", 2525, use_mx=True, tls="required")
LAST = NextHop("192.0.2.9")
DEFAULT = NextHop("", 2525, use_mx=True, tls="required")
NAMES = ["mx.here.example", "here.example", "[192.0.2.1]"]
OWN = OwnAddresses(frozenset({2525}), frozenset({parse_address("2001:db8::25")}))


class FakeResolver:
    def __init__(self, **answers):
        self.answers = answers

    async def mx(self, domain):
        answer = self.answers[domain.partition(".")[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer


def find(destination, *routes, **answers):
    hops = NextHops(
        Routes(routes, default=DEFAULT),
        FakeResolver(**answers),
        ["mx.here.example", "here.example", "[192.0.2.1]"],
        OWN,
    )
    results = []
    Deferred.fromCoroutine(hops.find(destination)).addBoth(results.append)
    [result] = results
    if isinstance(result, (list, tuple)):
        return list(result)
    raise result.value


def unroutable(destination, **answers):
    with pytest.raises(Unroutable) as caught:
        find(destination, **answers)
    return caught.value.outcome


def test_mx_hosts_come_best_first_and_those_of_one_preference_as_the_resolver_has_them() -> None:
    hosts = [MX(20, "c.example"), MX(10, "b.example"), MX(10, "a.example"), MX(5, "z.example")]
    hops = find(relay("there.example"), there=hosts)
    assert [hop.host for hop in hops] == ["z.example", "b.example", "a.example", "c.example"]
    assert {(hop.port, hop.tls, hop.use_mx) for hop in hops} == {(2525, "required", False)}


def test_an_explicit_next_hop_is_taken_as_it_is() -> None:
    assert find(relay("us@[smtp.provider.example]:587"), Route("*", (SMARTHOST,))) == [SMARTHOST]


def test_an_explicit_next_hop_may_be_a_domain_whose_mx_is_asked() -> None:
    hops = find(relay("mx:group.example"), Route("*", (GROUP,)), group=[MX(1, "a.example"), MX(2, "b.example")])
    assert [(hop.host, hop.port, hop.use_mx, hop.domain) for hop in hops] == [
        ("a.example", 2525, False, "group.example"),
        ("b.example", 2525, False, "group.example"),
    ]


def test_several_next_hops_come_in_their_order_the_hosts_of_an_mx_where_it_stands() -> None:
    route = Route("*", (SMARTHOST, GROUP, LAST))
    destination = relay("us@[smtp.provider.example]:587,mx:group.example,[192.0.2.9]:25")
    hops = find(destination, route, group=[MX(1, "a.example")])
    assert [hop.host for hop in hops] == ["smtp.provider.example", "a.example", "192.0.2.9"]
    broken = find(destination, route, group=DnsFailure("group.example", "no such domain", temporary=False))
    assert broken == [SMARTHOST, LAST]


@pytest.mark.parametrize("answer", [[NULL_MX], DnsFailure("group.example", "no such domain", temporary=False)])
def test_mail_waits_where_our_own_configuration_leads_nowhere(answer) -> None:
    with pytest.raises(Unroutable) as caught:
        find(relay("mx:group.example"), Route("*", (GROUP,)), group=answer)
    assert caught.value.outcome.result is Result.DEFERRED
    assert caught.value.outcome.status.class_ == 4


def test_the_hosts_of_a_domain_are_spoken_to_as_its_route_says() -> None:
    like = NextHop("", 26, use_mx=True, tls="verified", source_address="192.0.2.26")
    routes = [Route(".slow.example", like=like), Route("*", (SMARTHOST,), sender="@shop.example")]
    [hop] = find(relay("a.slow.example"), *routes, a=[MX(1, "mx.slow.example")])
    assert (hop.host, hop.port, hop.tls, hop.source_address) == ("mx.slow.example", 26, "verified", "192.0.2.26")
    [other] = find(relay("there.example"), *routes, there=[MX(1, "mx.there.example")])
    assert (other.port, other.tls) == (2525, "required")


def test_our_own_literal_is_a_loop() -> None:
    with pytest.raises(Unroutable, match="is this host") as caught:
        find(relay("[192.0.2.1]"))
    assert str(caught.value.outcome.status) == "5.4.6"


@pytest.mark.parametrize(("literal", "host"), [("[192.0.2.7]", "192.0.2.7"), ("[ipv6:2001:db8::7]", "2001:db8::7")])
def test_a_literal_is_dialled_by_its_address(literal, host) -> None:
    [hop] = find(relay(literal))
    assert (hop.host, hop.use_mx) == (host, False)


def test_a_next_hop_that_left_the_routes_is_waited_for() -> None:
    outcome = unroutable(relay("us@[smtp.provider.example]:587"))
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.3.5")


@pytest.mark.parametrize(
    ("answer", "result", "status"),
    [
        ([NULL_MX], Result.FAILED, "5.1.10"),
        (DnsFailure("there.example", "no such domain", temporary=False), Result.FAILED, "5.1.2"),
        (DnsFailure("there.example", "no answer", temporary=True), Result.DEFERRED, "4.4.3"),
        (NoUsableHost("there.example", "only addresses", temporary=False), Result.FAILED, "5.4.4"),
        ([MX(10, "MX.here.example")], Result.FAILED, "5.4.6"),
        ([MX(10, "a.example"), MX(10, "mx.here.example")], Result.FAILED, "5.4.6"),
        ([MX(0, "here.example")], Result.FAILED, "5.4.6"),
    ],
)
def test_a_domain_without_a_host_for_us_is_unroutable(answer, result, status) -> None:
    outcome = unroutable(relay("there.example"), there=answer)
    assert (outcome.result, str(outcome.status)) == (result, status)
    assert "there.example" in outcome.text


def test_hosts_that_are_no_nearer_than_we_are_dropped() -> None:
    hosts = [MX(5, "a.example"), MX(10, "mx.here.example"), MX(10, "b.example"), MX(20, "c.example")]
    assert [hop.host for hop in find(relay("there.example"), there=hosts)] == ["a.example"]


@pytest.mark.parametrize(
    "literal",
    [
        "[IPv6:::ffff:192.0.2.1]",
        "[127.0.0.1]",
        "[0.0.0.0]",
        "[IPv6:::1]",
        "[IPv6:::]",
        "[IPv6:::ffff:127.0.0.1]",
        "[IPv6:2001:DB8:0::25]",
    ],
)
def test_our_own_literal_is_a_loop_however_it_is_written(literal) -> None:
    assert str(unroutable(relay(literal)).status) == "5.4.6"
