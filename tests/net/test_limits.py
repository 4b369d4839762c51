"""Who is counted with whom, and how many are served."""

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from mailsuite.mail.session import Peer
from mailsuite.net.addresses import counting_key, parse_address, peer_of
from mailsuite.net.limits import ConnectionLimits


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (IPv4Address("TCP", "192.0.2.1", 25), Peer("192.0.2.1", 25)),
        (IPv6Address("TCP", "2001:db8::1", 25), Peer("2001:db8::1", 25)),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 25), Peer("192.0.2.1", 25)),
        (IPv6Address("TCP", "fe80::1%eth0", 25), Peer("fe80::1%eth0", 25)),
        (UNIXAddress("/run/socket"), Peer("")),
        (UNIXAddress(None), Peer("")),
        (None, Peer("")),
    ],
)
def test_peers(address, peer):
    assert peer_of(address) == peer


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_ipv6_is_counted_by_64_bits(host, key):
    assert counting_key(host) == key


def test_names_are_no_addresses():
    assert parse_address("mx.example.org") is None
    assert str(parse_address("::ffff:192.0.2.1")) == "192.0.2.1"


def test_limit_in_all_and_for_each_address():
    limits = ConnectionLimits(total=4, per_address=2)
    assert [limits.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert limits.admit("2001:db8::1")
    assert limits.admit("2001:db8::ffff")
    assert not limits.admit("2001:db8::2")
    assert limits.count == 4
    assert not limits.admit("192.0.2.2")
    assert limits.refused == 3
    limits.release("192.0.2.1")
    assert limits.admit("192.0.2.2")


def test_unix_sockets_count_in_all_only():
    limits = ConnectionLimits(total=3, per_address=1)
    assert [limits.admit("") for _ in range(4)] == [True, True, True, False]
    limits.release("")
    assert limits.admit("")


def test_what_is_released_leaves_nothing_behind():
    limits = ConnectionLimits(None, None)
    for number in range(100):
        assert limits.admit(f"192.0.2.{number}")
    for number in range(100):
        limits.release(f"192.0.2.{number}")
    assert limits.count == 0
    assert limits.per_address is None
    limits.per_address = 1
    assert limits.admit("192.0.2.1")
