"""Which policy a connection has: DANE, MTA-STS, configuration, in this order."""

from random import Random

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mailsuite.delivery.tls_policies import Dane, MtaSts, StsCache, TLSPolicies
from mailsuite.interfaces import Barred, ITLSPolicies
from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import TLSA, PolicySource, TLSFailureKind, TLSPolicy, TLSResult
from tests.delivery.tls_policies.fakes import POLICY, Dns, Web, failing, in_no_thread, insecure, now, page, secure

DOMAIN, HOST = "example.org", "mx.example.org"
GOOD = TLSA(3, 1, 1, bytes(32))
SIGNED = {(DOMAIN, "MX"): secure(HOST, canonical=DOMAIN), (HOST, "A"): secure("192.0.2.1", canonical=HOST)}
UNSIGNED = {(DOMAIN, "MX"): insecure(HOST), (HOST, "A"): insecure("192.0.2.1", canonical=HOST)}
DANE = SIGNED | {(f"_25._tcp.{HOST}", "TLSA"): secure(GOOD)}
UNUSABLE = SIGNED | {(f"_25._tcp.{HOST}", "TLSA"): secure(TLSA(1, 1, 1, bytes(32)))}
MODES = ["opportunistic", "required", "verified", "dane"]


class World:
    """The DNS, the web, and the policies made of them."""

    def __init__(self, directory, table, *, sts=None, dane=True):
        self.clock = Clock()
        self.noted = []
        self.dns = Dns(table)
        self.web = Web()
        self.validates = True
        if sts is not None:
            for domain in (DOMAIN, HOST):
                self.dns.table[f"_mta-sts.{domain}", "TXT"] = insecure(b"v=STSv1; id=1;")
                self.web.pages[f"mta-sts.{domain}"] = page(sts)
        cache = StsCache(directory / "mta-sts.db", in_no_thread)
        self.sts = MtaSts(self.dns, self.web, cache, self.clock, note=self.noted.append)
        self.policies = TLSPolicies(
            Dane(self.dns, self._validates) if dane else None,
            self.sts,
            self.clock,
            sink=self.noted.append,
            chance=Random(1).random,
        )

    async def _validates(self):
        return self.validates

    def policy(self, domain=DOMAIN, host=HOST, tls="opportunistic", port=25):
        return now(self.policies.policy(domain, NextHop(host, port, tls=tls)))

    def barred(self, *arguments, **options):
        with pytest.raises(Barred) as caught:
            self.policy(*arguments, **options)
        assert caught.value.temporary
        [result] = self.noted
        assert result.failure is caught.value.failure
        assert result.reason == str(caught.value)
        return result


@pytest.fixture
def world(tmp_path):
    def world(table, **options):
        return World(tmp_path, table, **options)

    return world


def test_it_is_what_the_relay_agent_asks(world):
    assert verifyObject(ITLSPolicies, world({}).policies)


@pytest.mark.parametrize("mode", MODES)
def test_dane_comes_first_whatever_the_mode(world, mode):
    policy = world(DANE, sts=POLICY).policy(tls=mode)
    assert (policy.mode, policy.source) == ("dane", PolicySource.DANE)
    assert policy.tlsa == (GOOD,)
    assert policy.names == (HOST, DOMAIN)
    assert policy.text == (f"3 1 1 {'00' * 32}",)
    assert policy.proves_the_host
    assert not policy.allows_plaintext


def test_dane_by_an_unsigned_mx_does_not_prove_that_the_host_serves_the_domain(world):
    policy = world(DANE | {(DOMAIN, "MX"): insecure(HOST)}).policy()
    assert policy.mode == "dane"
    assert not policy.proves_the_host


@pytest.mark.parametrize(("mode", "then"), [("opportunistic", "required"), ("required", "required")])
def test_records_that_cannot_be_used_demand_tls_and_no_certificate(world, mode, then):
    made = world(UNUSABLE)
    policy = made.policy(tls=mode)
    assert (policy.mode, policy.tlsa, policy.source) == (then, (), PolicySource.DANE)
    assert not policy.allows_plaintext
    [result] = made.noted
    assert result.failure is TLSFailureKind.TLSA_INVALID


def test_where_records_cannot_be_used_mta_sts_may_demand_more(world):
    policy = world(UNUSABLE, sts=POLICY).policy()
    assert (policy.mode, policy.source) == ("verified", PolicySource.MTA_STS)


def test_testing_does_not_take_away_what_unusable_records_demand(world):
    policy = world(UNUSABLE, sts=POLICY.replace(b"enforce", b"testing")).policy()
    assert (policy.mode, policy.testing) == ("required", True)
    assert not policy.allows_plaintext


@pytest.mark.parametrize("sts", [None, POLICY])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [(DOMAIN, "MX"), (f"_25._tcp.{HOST}", "TLSA")])
def test_bogus_answers_bar_the_host(world, mode, name, sts):
    made = world(DANE | {name: failing()}, sts=sts)
    result = made.barred(tls=mode)
    assert result.failure is TLSFailureKind.DNSSEC_INVALID
    assert (result.domain, result.host, result.policy.source) == (DOMAIN, HOST, PolicySource.DANE)


def test_host_that_the_signed_mx_does_not_name_is_barred(world):
    assert world(DANE).barred(host="evil.example").failure is TLSFailureKind.DNSSEC_INVALID


@pytest.mark.parametrize(
    ("table", "host"),
    [
        (SIGNED, HOST),
        (UNSIGNED, HOST),
        (UNUSABLE, HOST),
        (DANE | {(DOMAIN, "MX"): insecure(HOST)}, HOST),
        (DANE, "192.0.2.1"),
        (DANE, "[2001:db8::1]"),
    ],
)
def test_dane_that_is_demanded_and_not_there_bars_the_host(world, table, host):
    made = world(table, sts=POLICY)
    with pytest.raises(Barred) as caught:
        made.policy(DOMAIN if host == HOST else "", host=host, tls="dane")
    assert caught.value.failure is TLSFailureKind.DANE_REQUIRED
    assert TLSFailureKind.DANE_REQUIRED in [result.failure for result in made.noted]


@pytest.mark.parametrize("dane", [True, False])
def test_dane_that_is_demanded_where_dnssec_cannot_be_relied_upon_bars_the_host(world, dane):
    made = world(DANE, dane=dane)
    made.validates = False
    assert "see `dane` of [relay]" in made.barred(tls="dane").reason


def test_without_dnssec_dane_is_not_heeded(world):
    made = world(DANE)
    made.validates = False
    policy = made.policy()
    assert (policy.mode, policy.source) == ("opportunistic", PolicySource.CONFIGURED)


@pytest.mark.parametrize("mode", ["opportunistic", "required", "verified"])
@pytest.mark.parametrize("table", [SIGNED, UNSIGNED])
def test_mta_sts_comes_next(world, mode, table):
    policy = world(table, sts=POLICY).policy(tls=mode)
    assert (policy.mode, policy.source) == ("verified", PolicySource.MTA_STS)
    assert policy.mx_patterns == ("mx.example.org", "*.backup.example")
    assert policy.text[1] == "mode: enforce"
    assert policy.proves_the_host


def test_host_that_the_policy_does_not_name_is_barred(world):
    made = world({(DOMAIN, "MX"): insecure("evil.example")}, sts=POLICY)
    result = made.barred(host="evil.example")
    assert result.failure is TLSFailureKind.VALIDATION
    assert "does not name evil.example" in result.reason


@pytest.mark.parametrize(("mode", "testing"), [("opportunistic", True), ("required", True), ("verified", False)])
@pytest.mark.parametrize("host", [HOST, "other.example"])
def test_testing_is_told_and_nothing_follows(world, mode, testing, host):
    made = world({}, sts=POLICY.replace(b"enforce", b"testing"), dane=False)
    policy = made.policy(host=host, tls=mode)
    assert (policy.mode, policy.testing, policy.source) == (mode, testing, PolicySource.MTA_STS)
    assert [result.failure for result in made.noted] == ([] if host == HOST else [TLSFailureKind.VALIDATION])


def test_policy_of_mode_none_demands_nothing(world):
    policy = world(UNSIGNED, sts=b"version: STSv1\nmode: none\nmax_age: 1\n").policy()
    assert policy == TLSPolicy("opportunistic", mx_proved=False)


@pytest.mark.parametrize("mode", ["opportunistic", "required", "verified"])
def test_otherwise_the_configuration_holds(world, mode):
    assert world(UNSIGNED).policy(tls=mode) == TLSPolicy(mode, mx_proved=False)
    assert world(SIGNED).policy(tls=mode) == TLSPolicy(mode, mx_proved=True)


@pytest.mark.parametrize(("domain", "mode"), [("", "none"), (DOMAIN, "none"), ("", "implicit"), ("", "verified")])
def test_last_words_of_the_operator_are_not_discussed(world, domain, mode):
    made = world(DANE, sts=POLICY)
    assert made.policy(domain, tls=mode).mode == mode
    assert made.dns.asked == []


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "localhost", "/run/lmtp", "mx.localhost"])
def test_places_without_a_name_are_not_asked_about(world, host):
    made = world(DANE, sts=POLICY)
    assert made.policy("", host=host).mode == "opportunistic"
    assert made.dns.asked == []


def test_smart_host_has_its_own_policies(world):
    assert world(DANE, sts=POLICY).policy("").mode == "dane"
    made = world(UNSIGNED, sts=POLICY)
    policy = made.policy("")
    assert (policy.mode, policy.proves_the_host) == ("verified", True)
    assert made.web.fetched == [f"mta-sts.{HOST}"]
    assert (DOMAIN, "MX") not in made.dns.asked


def test_names_may_come_as_people_write_them(world):
    assert world(DANE).policy(host="MX.Example.ORG.").mode == "dane"


def test_results_go_on_to_the_sink(world):
    made = world({})
    made.policies.note(result := TLSResult(DOMAIN, TLSPolicy(), HOST))
    assert made.noted == [result]


def test_policies_are_fetched_anew_from_time_to_time(world):
    made = world(UNSIGNED, sts=POLICY)
    now(made.policies.start())
    made.policy()
    for _ in range(26):
        made.clock.advance(3600)
    assert len(made.web.fetched) == 2
    now(made.policies.stop())
    assert made.clock.getDelayedCalls() == []


@pytest.mark.parametrize("tls", ["opportunistic", "required", "verified", "dane"])
@pytest.mark.parametrize("host", ["192.0.2.66", "2001:db8::66", "localhost", "x.localhost", "/run/lmtp.sock"])
def test_what_has_no_name_is_barred_where_the_mx_of_a_domain_names_it(world, host, tls):
    barred = world(SIGNED, sts=POLICY).barred(host=host, tls=tls)
    assert host in str(barred.reason)


@pytest.mark.parametrize("host", ["192.0.2.66", "localhost", "/run/lmtp.sock"])
def test_what_has_no_name_goes_by_the_configuration_where_that_names_it(world, host):
    assert world(SIGNED, sts=POLICY).policy("", host=host) == TLSPolicy("opportunistic")


FORGED = "mx.attacker.example"
HIS_OWN = {
    (DOMAIN, "MX"): insecure(FORGED, canonical=DOMAIN),
    (FORGED, "A"): secure("192.0.2.66", canonical=FORGED),
    (f"_25._tcp.{FORGED}", "TLSA"): secure(GOOD),
}


def test_tlsa_records_of_a_host_that_a_forged_mx_names_do_not_beat_an_enforced_policy(world):
    assert "does not name" in world(HIS_OWN, sts=POLICY).barred(host=FORGED).reason


def test_dane_over_an_mx_that_is_not_signed_stays_where_an_enforced_policy_names_the_host(world):
    policy = world(DANE | UNSIGNED | {(HOST, "A"): secure("192.0.2.1", canonical=HOST)}, sts=POLICY).policy()
    assert (policy.mode, policy.source, policy.tlsa, policy.mx_proved) == ("dane", PolicySource.DANE, (GOOD,), True)


def test_a_policy_that_is_only_tested_takes_nothing_from_dane(world):
    made = world(HIS_OWN, sts=POLICY.replace(b"enforce", b"testing"))
    policy = made.policy(host=FORGED)
    assert (policy.mode, policy.testing, policy.mx_proved) == ("dane", False, False)
    assert [result.failure for result in made.noted] == [TLSFailureKind.VALIDATION]
