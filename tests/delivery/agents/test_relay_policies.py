"""What TLS the connections of the relay agent have, by policies; mail that demands it, and mail that does without."""

from dataclasses import replace

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsuite.delivery.agents.relay import ConfiguredPolicies
from mailsuite.delivery.agents.relay.policies import label
from mailsuite.interfaces import Barred, ITLSPolicies
from mailsuite.mail.options import MessageOptions
from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import PolicySource, TLSFailureKind, TLSPolicy
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.tls import TLSFailed
from tests.delivery.agents.test_relay import (
    ADDRESS,
    BYE,
    HANDSHAKE_FAILS,
    MAIL,
    SECURED,
    STARTTLS,
    UP,
    UP_WITH_TLS,
    FakeDialer,
    Run,
    agent_for,
    relay,
)
from tests.session.scripted import finish, make_delivery

A = NextHop("a.example", domain="example.net")
B = NextHop("b.example", domain="example.net")
OPEN = TLSPolicy()
DANE = TLSPolicy("dane", PolicySource.DANE)
STS = TLSPolicy("verified", PolicySource.MTA_STS)
TESTED = TLSPolicy("verified", PolicySource.MTA_STS, testing=True)
BARRED = Barred("the policy of example.net does not name a.example", TLSFailureKind.VALIDATION)
SAFE = "C: EHLO relay.example.org\nS: 250-mx.example.net\nS: 250 REQUIRETLS\n"
SAFE_MAIL = MAIL.replace("<ann@example.org>", "<ann@example.org> REQUIRETLS")


@implementer(ITLSPolicies)
class Policies:
    """A policy for each host, or why it is barred; notes what is told."""

    def __init__(self, **hosts):
        self.hosts = {name.replace("_", "."): policy for name, policy in hosts.items()}
        self.asked = []
        self.results = []

    async def policy(self, domain, hop):
        self.asked.append((domain, hop.host))
        policy = self.hosts[hop.host]
        if isinstance(policy, Exception):
            raise policy
        return policy

    def note(self, result):
        self.results.append(result)

    @property
    def failures(self):
        return [result.failure for result in self.results]


def demanding(delivery, **options):
    envelope = replace(delivery.message.envelope, options=MessageOptions(**options))
    return replace(delivery, message=replace(delivery.message, envelope=envelope))


def drain(dialer, policies, *hops, deliveries):
    run = Run(*deliveries)
    finish(agent_for(dialer, *hops, policies=policies).deliver(run))
    return run


def test_without_others_the_configuration_is_the_policy():
    policies = ConfiguredPolicies()
    assert verifyObject(ITLSPolicies, policies)
    for mode in ("none", "opportunistic", "verified"):
        hop = NextHop("a.example", tls=mode)
        assert finish(policies.policy("", hop)) == TLSPolicy(mode)
        assert finish(policies.policy("example.net", hop)) == TLSPolicy(mode, mx_proved=False)
    assert policies.note(None) is None


def test_the_policy_is_asked_for_the_domain_and_noted_as_kept():
    policies = Policies(a_example=DANE)
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, SECURED + MAIL + BYE]])
    run = relay(dialer, A, policies=policies)
    assert policies.asked == [("example.net", "a.example")]
    [result] = policies.results
    assert (result.domain, result.policy, result.host) == ("example.net", DANE, "a.example")
    assert (result.address, result.local, result.failure) == (ADDRESS, "192.0.2.1", None)
    assert run.settled["q0"][0].via.policy == "dane"
    assert run.settled["q0"][0].via.tls.version == "TLSv1.3"


def test_nothing_is_noted_of_hosts_from_the_configuration():
    policies = Policies(a_example=OPEN)
    relay(
        FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, SECURED + MAIL + BYE]]), NextHop("a.example"), policies=policies
    )
    assert policies.asked == [("", "a.example")]
    assert policies.results == []


def test_plaintext_under_an_open_policy_is_told_once():
    policies = Policies(a_example=OPEN)
    relay(FakeDialer(a_example=[UP + MAIL + BYE]), A, policies=policies)
    assert policies.failures == [TLSFailureKind.STARTTLS_NOT_SUPPORTED]
    policies = Policies(a_example=OPEN)
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, HANDSHAKE_FAILS], UP_WITH_TLS + MAIL + BYE])
    assert relay(dialer, A, policies=policies).results("q0") == ["relayed"]
    assert policies.failures == [TLSFailureKind.VALIDATION]


@pytest.mark.parametrize("policy", [DANE, STS])
@pytest.mark.parametrize("script", [[[UP_WITH_TLS + STARTTLS, HANDSHAKE_FAILS]], [UP + BYE]])
def test_a_policy_that_is_not_met_sends_mail_to_the_next_host(policy, script):
    policies = Policies(a_example=policy, b_example=policy)
    dialer = FakeDialer(a_example=script, b_example=[[UP_WITH_TLS + STARTTLS, SECURED + MAIL + BYE]])
    assert relay(dialer, A, B, policies=policies).results("q0") == ["relayed"]
    assert [failure is None for failure in policies.failures] == [False, True]


@pytest.mark.parametrize("policy", [DANE, STS, BARRED])
def test_a_policy_that_no_host_meets_keeps_the_mail(policy):
    policies = Policies(a_example=policy)
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, HANDSHAKE_FAILS]])
    run = relay(dialer, A, policies=policies)
    assert (run.failed.result, str(run.failed.status)) == (Result.DEFERRED, "4.7.5")
    assert dialer.hosts == ([] if policy is BARRED else ["a.example"])


def test_a_host_that_is_barred_for_good_fails():
    policies = Policies(a_example=Barred("no", TLSFailureKind.VALIDATION, temporary=False))
    run = relay(FakeDialer(), A, policies=policies)
    assert (run.failed.result, str(run.failed.status)) == (Result.FAILED, "5.7.5")


def test_a_policy_that_is_only_tested_keeps_nothing():
    policies = Policies(a_example=TESTED)
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, HANDSHAKE_FAILS], UP_WITH_TLS + MAIL + BYE])
    run = relay(dialer, A, policies=policies)
    assert run.results("q0") == ["relayed"]
    assert policies.failures == [TLSFailureKind.VALIDATION]
    policies = Policies(a_example=TESTED)
    assert relay(FakeDialer(a_example=[UP + MAIL + BYE]), A, policies=policies).results("q0") == ["relayed"]
    assert policies.failures == [TLSFailureKind.STARTTLS_NOT_SUPPORTED]


def test_implicit_tls_that_fails_is_a_failure_of_tls():
    failure = ConnectFailed(
        "192.0.2.25 port 465: the certificate has expired", TLSFailed("the certificate has expired")
    )
    run = relay(FakeDialer(a_example=[failure]), NextHop("a.example", 465, tls="implicit"))
    assert (run.failed.result, str(run.failed.status)) == (Result.DEFERRED, "4.7.5")


def test_a_certificate_of_the_route_is_shown(tmp_path):
    hop = NextHop("a.example", 465, tls="implicit", certificate=tmp_path / "cert", key=tmp_path / "key")
    dialer = FakeDialer(a_example=[UP + MAIL + BYE])
    relay(dialer, hop)
    assert dialer.dialled[0][2] == ("a.example", "implicit", tmp_path / "cert", tmp_path / "key")


# ---------------------------------------------------------------------------------- REQUIRETLS, RFC 8689


@pytest.mark.parametrize("policy", [DANE, STS, TLSPolicy("verified")])
def test_what_demands_tls_goes_to_a_proven_host_that_offers_the_same(policy):
    # A certificate that must be verified will do, where the MX record that has named the host is signed.
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, SAFE + SAFE_MAIL + BYE]])
    run = drain(dialer, Policies(a_example=policy), A, deliveries=[demanding(make_delivery("q0"), require_tls=True)])
    assert run.results("q0") == ["relayed"]


@pytest.mark.parametrize(
    ("policy", "up", "status"),
    [
        (DANE, SECURED, "5.7.30"),
        (STS, SECURED, "5.7.30"),
        (OPEN, SAFE, "5.7.10"),
        (TLSPolicy("verified", mx_proved=False), SAFE, "5.7.10"),  # the MX record itself is vouched for by nobody
        (TESTED, SAFE, "5.7.10"),
    ],
)
def test_what_demands_tls_is_returned_where_no_host_is_safe_and_keeps_no_other_mail(policy, up, status):
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, up + MAIL + BYE]])
    deliveries = [demanding(make_delivery("q0"), require_tls=True), make_delivery("q1")]
    run = drain(dialer, Policies(a_example=policy), A, deliveries=deliveries)
    assert run.results("q1") == ["relayed"]
    [outcome] = run.settled["q0"]
    assert (outcome.result, str(outcome.status)) == (Result.FAILED, status)
    assert run.failed is None
    run.check_accounts()


def test_what_demands_tls_goes_on_to_the_next_host_alone():
    dialer = FakeDialer(
        a_example=[[UP_WITH_TLS + STARTTLS, SECURED + MAIL + BYE]],
        b_example=[[UP_WITH_TLS + STARTTLS, SAFE + SAFE_MAIL + BYE]],
    )
    deliveries = [demanding(make_delivery("q0"), require_tls=True), make_delivery("q1")]
    run = drain(dialer, Policies(a_example=DANE, b_example=DANE), A, B, deliveries=deliveries)
    assert (run.results("q0"), run.results("q1")) == (["relayed"], ["relayed"])
    assert dialer.hosts == ["a.example", "b.example"]


def test_what_demands_tls_waits_for_a_host_that_could_not_be_asked():
    dialer = FakeDialer(
        a_example=[ConnectFailed("no answer in time")], b_example=[[UP_WITH_TLS + STARTTLS, SECURED + BYE]]
    )
    deliveries = [demanding(make_delivery("q0"), require_tls=True)]
    run = drain(dialer, Policies(a_example=DANE, b_example=DANE), A, B, deliveries=deliveries)
    [outcome] = run.settled["q0"]
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.7.30")


def test_a_report_is_not_lost_by_what_it_demands():
    # RFC 8689 section 5
    dialer = FakeDialer(a_example=[UP + MAIL.replace("<ann@example.org>", "<>") + BYE])
    deliveries = [demanding(make_delivery("q0", sender=""), require_tls=True)]
    assert drain(dialer, Policies(a_example=OPEN), A, deliveries=deliveries).results("q0") == ["relayed"]


def test_what_was_put_aside_is_given_back_where_the_line_breaks():
    dialer = FakeDialer(
        a_example=[UP + "C: MAIL FROM:<ann@example.org>\nX: close\n"], b_example=[ConnectFailed("no answer in time")]
    )
    deliveries = [demanding(make_delivery("q0"), require_tls=True), make_delivery("q1")]
    run = drain(dialer, Policies(a_example=OPEN, b_example=OPEN), A, B, deliveries=deliveries)
    assert "q0" in run.released
    assert run.failed.result is Result.DEFERRED


@pytest.mark.parametrize("policy", [DANE, BARRED])
def test_what_does_without_tls_is_not_kept_by_a_policy(policy):
    # RFC 8689 section 4.2.2
    scripts = [UP + MAIL + BYE] if policy is BARRED else [UP + BYE, UP + MAIL + BYE]
    dialer = FakeDialer(a_example=scripts)
    deliveries = [make_delivery("q0"), demanding(make_delivery("q1"), tls_optional=True)]
    run = drain(dialer, Policies(a_example=policy), A, deliveries=deliveries)
    assert run.results("q1") == ["relayed"]
    assert run.failed.result is Result.DEFERRED
    assert run.released == ["q0"]


def test_what_does_without_tls_still_keeps_to_the_configuration():
    hop = replace(A, tls="required")
    dialer = FakeDialer(a_example=[UP + BYE])
    deliveries = [demanding(make_delivery("q0"), tls_optional=True)]
    run = drain(dialer, Policies(a_example=TLSPolicy("required")), hop, deliveries=deliveries)
    assert run.settled == {}
    assert run.failed.result is Result.DEFERRED


def test_what_does_without_tls_asks_no_certificate_to_match_records_that_nobody_has_looked_for():
    hop = replace(A, tls="dane")
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, SECURED + MAIL + BYE]])
    deliveries = [demanding(make_delivery("q0"), tls_optional=True)]
    run = drain(dialer, Policies(a_example=BARRED), hop, deliveries=deliveries)
    assert run.results("q0") == ["relayed"]
    assert dialer.dialled[0][2] is None
    assert run.settled["q0"][0].via.policy == "opportunistic"


def test_dane_whose_mx_is_not_signed_is_not_told_as_secure() -> None:
    assert label(TLSPolicy("dane", PolicySource.DANE)) == "dane"
    assert label(TLSPolicy("dane", PolicySource.DANE, mx_proved=False)) == "dane (MX not signed)"
