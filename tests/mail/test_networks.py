"""Addresses within networks."""

from ipaddress import ip_network

import pytest

from mailsuite.mail.networks import is_within

NETWORKS = tuple(map(ip_network, ("192.0.2.0/24", "2001:db8::/32", "fe80::/10")))


@pytest.mark.parametrize("host", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "fe80::1%eth0"])
def test_an_address_is_within_however_it_is_written(host) -> None:
    assert is_within(host, NETWORKS)


@pytest.mark.parametrize("host", ["", "198.51.100.1", "::ffff:198.51.100.1", "2001:db9::1"])
def test_others_are_without(host) -> None:
    assert not is_within(host, NETWORKS)
    assert not is_within(host, ())
