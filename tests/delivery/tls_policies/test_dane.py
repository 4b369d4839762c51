"""Which TLSA records hold for a host (RFC 7672 section 2.2)."""

import pytest

from mailsuite.delivery.tls_policies.dane import Dane, NotItsHost
from mailsuite.mail.tls_policy import TLSA
from mailsuite.net.dnssec import LookupFailed
from tests.delivery.tls_policies.fakes import Dns, failing, insecure, now, secure

GOOD = TLSA(3, 1, 1, bytes(32))
UNUSABLE = TLSA(1, 1, 1, bytes(32))
DOMAIN, HOST = "example.org", "mx.example.org"
MX = secure(HOST, "mx2.example.org", canonical=DOMAIN)
ADDRESS = secure("192.0.2.1", canonical=HOST)


async def _yes():
    return True


async def _no():
    return False


def look(table, domain=DOMAIN, host=HOST, port=25):
    dns = Dns(table)
    found = now(Dane(dns, _yes).records(domain, host, port))
    return found, dns


def tlsa(base, *records, port=25, answer=secure):
    return {(f"_{port}._tcp.{base}", "TLSA"): answer(*(records or (GOOD,)), canonical=base)}


def test_signed_mx_with_signed_records():
    found, _dns = look({(DOMAIN, "MX"): MX, (HOST, "A"): ADDRESS} | tlsa(HOST, GOOD, UNUSABLE))
    assert found.records == (GOOD, UNUSABLE)
    assert found.usable == (GOOD,)
    assert found.names == (HOST, DOMAIN)
    assert found.mx_is_secure


def test_address_is_asked_for_before_the_records():
    _found, dns = look({(DOMAIN, "MX"): MX, (HOST, "A"): ADDRESS} | tlsa(HOST))
    assert dns.asked == [(DOMAIN, "MX"), (HOST, "A"), (f"_25._tcp.{HOST}", "TLSA")]


def test_host_in_an_unsigned_zone_is_not_asked_for_records():
    found, dns = look({(DOMAIN, "MX"): MX, (HOST, "A"): insecure("192.0.2.1", canonical=HOST)} | tlsa(HOST))
    assert found.records == ()
    assert found.mx_is_secure
    assert not any(kind in ("TLSA", "CNAME") for _name, kind in dns.asked)


def test_records_that_are_not_signed_do_not_count():
    found, _dns = look({(DOMAIN, "MX"): MX, (HOST, "A"): ADDRESS} | tlsa(HOST, answer=insecure))
    assert found.records == ()


def test_host_without_records_has_none():
    found, _dns = look({(DOMAIN, "MX"): MX, (HOST, "A"): ADDRESS})
    assert (found.records, found.mx_is_secure) == ((), True)


def test_unsigned_mx_leaves_the_hosts_own_name_only():
    found, _dns = look({(DOMAIN, "MX"): insecure(HOST), (HOST, "A"): ADDRESS} | tlsa(HOST))
    assert found.usable == (GOOD,)
    assert found.names == (HOST,)
    assert not found.mx_is_secure


def test_host_that_a_signed_mx_does_not_name_is_not_its_host():
    with pytest.raises(NotItsHost, match="do not name evil"):
        look({(DOMAIN, "MX"): MX}, host="evil.example")


def test_unsigned_mx_may_name_anything():
    found, _dns = look({(DOMAIN, "MX"): insecure("other.example")})
    assert not found.mx_is_secure


def test_domain_without_mx_is_its_own_host():
    table = {(DOMAIN, "A"): secure("192.0.2.1", canonical=DOMAIN)} | tlsa(DOMAIN)
    found, _dns = look(table, host=DOMAIN)
    assert found.names == (DOMAIN,)
    assert found.mx_is_secure
    with pytest.raises(NotItsHost):
        look({}, host=HOST)


def test_alias_of_the_domain_is_a_further_name():
    """The example of RFC 7672 section 3.2.2."""
    table = {
        ("exchange.example.org", "MX"): secure("mx10.example.com", canonical="example.com"),
        ("mx10.example.com", "A"): secure("192.0.2.10", canonical="mx10.example.com"),
    } | tlsa("mx10.example.com")
    found, _dns = look(table, "exchange.example.org", "mx10.example.com")
    assert found.names == ("mx10.example.com", "exchange.example.org", "example.com")


def test_alias_of_the_host_is_tried_first_and_the_host_then():
    address = {(DOMAIN, "MX"): MX, (HOST, "A"): secure("192.0.2.15", canonical="backup.example.com")}
    found, dns = look(address | tlsa("backup.example.com") | tlsa(HOST, UNUSABLE))
    assert found.names[0] == "backup.example.com"
    found, dns = look(address | tlsa(HOST))
    assert found.names[0] == HOST
    assert dns.asked[-2:] == [("_25._tcp.backup.example.com", "TLSA"), (f"_25._tcp.{HOST}", "TLSA")]


@pytest.mark.parametrize("signed", [True, False])
def test_alias_that_leads_to_an_unsigned_zone_may_have_records_of_its_own(signed):
    table = {
        (DOMAIN, "MX"): MX,
        (HOST, "A"): insecure("192.0.2.1", canonical="provider.example"),
        (HOST, "CNAME"): (secure if signed else insecure)("provider.example", canonical=HOST),
    } | tlsa(HOST)
    found, dns = look(table)
    assert bool(found.usable) is signed
    assert ("_25._tcp.provider.example", "TLSA") not in dns.asked


def test_host_may_have_an_ipv6_address_only():
    table = {(DOMAIN, "MX"): MX, (HOST, "AAAA"): secure("2001:db8::1", canonical=HOST)} | tlsa(HOST)
    assert look(table)[0].usable == (GOOD,)
    assert look(table | {(HOST, "A"): failing()})[0].usable == (GOOD,)


@pytest.mark.parametrize(
    "name",
    [(DOMAIN, "MX"), (HOST, "A"), (f"_25._tcp.{HOST}", "TLSA")],
)
def test_any_lookup_that_fails_fails_the_whole(name):
    table = {(DOMAIN, "MX"): MX, (HOST, "A"): ADDRESS} | tlsa(HOST)
    with pytest.raises(LookupFailed):
        look(table | {name: failing(), (HOST, "AAAA"): secure()})


def test_failing_cname_fails_too():
    table = {(DOMAIN, "MX"): MX, (HOST, "A"): insecure("192.0.2.1", canonical="p.example"), (HOST, "CNAME"): failing()}
    with pytest.raises(LookupFailed):
        look(table)


def test_host_of_the_configuration_needs_no_mx_and_has_its_port():
    address = {(HOST, "A"): secure("192.0.2.1", canonical="real.example")}
    found, dns = look(address | tlsa("real.example", port=587), "", HOST, 587)
    assert found.names == ("real.example", HOST)
    assert found.mx_is_secure
    assert (HOST, "MX") not in dns.asked


def test_no_end_of_records_is_bounded():
    many = [TLSA(3, 1, 1, bytes([number % 256] * 32)) for number in range(1000)]
    found, _dns = look({(DOMAIN, "MX"): MX, (HOST, "A"): ADDRESS} | tlsa(HOST, *many))
    assert len(found.records) == 50


def test_nothing_is_asked_where_dnssec_cannot_be_relied_upon():
    dns = Dns()
    assert now(Dane(dns, _no).records(DOMAIN, HOST, 25)) is None
    assert dns.asked == []
