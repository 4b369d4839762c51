"""Which hosts a relay destination means."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.next_hops import NextHops, Unroutable
from mailsuite.delivery.routes import Route, Routes
from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.net.resolver import MX, NULL_MX, DnsFailure
from tests.delivery.fakes import relay

SMARTHOST = NextHop("smtp.provider.example", 587, tls="verified", username="us", password="secret")
GROUP = NextHop("group.example", 2525, use_mx=True, tls="required")
DEFAULT = NextHop("", 2525, use_mx=True, tls="required")


class FakeResolver:
    def __init__(self, **answers):
        self.answers = answers

    async def mx(self, domain):
        answer = self.answers[domain.partition(".")[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer


def find(destination, *routes, **answers):
    hops = NextHops(Routes(routes, default=DEFAULT), FakeResolver(**answers), ["mx.here.example", "here.example"])
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
    assert find(relay("us@[smtp.provider.example]:587"), Route("*", SMARTHOST)) == [SMARTHOST]


def test_an_explicit_next_hop_may_be_a_domain_whose_mx_is_asked() -> None:
    hops = find(relay("[group.example]:2525"), Route("*", GROUP), group=[MX(1, "a.example"), MX(2, "b.example")])
    assert [(hop.host, hop.port, hop.use_mx) for hop in hops] == [
        ("a.example", 2525, False),
        ("b.example", 2525, False),
    ]


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
