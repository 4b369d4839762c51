"""What the settings make of the policies, with a name server on the loopback."""

import pytest

from mailsuite.config import Settings
from mailsuite.interfaces import Barred
from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import TLSA, TLSFailureKind, TLSPolicy
from mailsuite.net.tls import TLSSettingsError
from mailsuite.service.tls_policies import make_client_tls, make_tls_policies, make_validating_resolver
from tests.net.authority import Authority
from tests.net.nameserver import NameServer

HOST, DOMAIN = "mx.example.org", "example.org"
HOP = NextHop(HOST)


@pytest.fixture
def server(reactor):
    server = NameServer(reactor)
    server.place = server.start()
    server.zone = {
        (DOMAIN, "MX"): [f"{DOMAIN} 60 MX 10 {HOST}."],
        (HOST, "A"): [f"{HOST} 60 A 192.0.2.1"],
        (f"_25._tcp.{HOST}", "TLSA"): [f"_25._tcp.{HOST} 60 TLSA 3 1 1 {'ab' * 32}"],
    }
    yield server
    server.stop()


@pytest.fixture
def policies(reactor, run, server, tmp_path):
    made = []

    def policies(noted=None, **relay):
        address, port = server.place
        relay.setdefault("resolver", f"{address}:{port}")
        settings = settings_of(tmp_path, relay)
        resolver = make_validating_resolver(settings, reactor)
        made.append(resolver)

        async def addresses(_host):
            return ["127.0.0.1"]

        async def in_thread(function, *arguments):
            return function(*arguments)

        sink = [].append if noted is None else noted.append
        return make_tls_policies(settings, reactor, resolver, addresses, in_thread, sink, lambda: 0.5)

    yield policies
    for resolver in made:
        run(resolver.stop())


def settings_of(directory, relay):
    return Settings.parse({"hostname": "mail.example", "data_directory": "data", "relay": relay}, "m.toml", directory)


@pytest.mark.parametrize("dane", ["on", "auto"])
def test_dane_goes_by_a_resolver_on_this_machine_that_validates(policies, run, dane):
    policy = run(policies(dane=dane).policy(DOMAIN, HOP))
    assert policy.mode == "dane"
    assert policy.tlsa == (TLSA(3, 1, 1, b"\xab" * 32),)


def test_dane_does_not_go_by_a_resolver_that_does_not_validate(policies, server, run):
    server.secure = False
    assert run(policies(dane="auto").policy(DOMAIN, HOP)).mode == "opportunistic"
    assert [kind for _name, kind in server.asked] == ["SOA", "TXT"]


def test_policies_that_are_off_are_not_asked_for(policies, server, run):
    policy = run(policies(dane="off", mta_sts=False).policy(DOMAIN, HOP))
    assert policy == TLSPolicy("opportunistic", mx_proved=False)
    assert server.asked == []


def test_mta_sts_policy_that_cannot_be_fetched_is_told(policies, server, run):
    server.zone[f"_mta-sts.{DOMAIN}", "TXT"] = [f'_mta-sts.{DOMAIN} 60 TXT "v=STSv1; id=1;"']
    noted = []
    policy = run(policies(noted, dane="off").policy(DOMAIN, HOP))
    assert policy.mode == "opportunistic"
    assert [result.failure for result in noted] == [TLSFailureKind.POLICY_FETCH]


def test_dane_that_is_demanded_says_where_it_is_off(policies, run):
    with pytest.raises(Barred, match="dane` of"):
        run(policies(dane="off").policy(DOMAIN, NextHop(HOST, tls="dane")))


def test_files_of_the_settings_are_looked_at(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("mail.example", client=True)
    good = {"ca_file": str(authority.file), "certificate": str(certificate), "key": str(key)}
    assert make_client_tls(settings_of(tmp_path, good)).for_host(HOST, "verified")
    for name in good:
        with pytest.raises(TLSSettingsError, match="cannot be read"):
            make_client_tls(settings_of(tmp_path, good | {name: "nothing.pem"}))
