"""What endpoint strings say of a listener."""

from ipaddress import ip_address

import pytest

from mailsuite.config import Listen, Settings
from mailsuite.service.endpoints import is_on_loopback, place_of
from mailsuite.service.routes import own_literals


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("tcp:25", ("tcp", "25", "0.0.0.0")),
        ("tcp6:25", ("tcp6", "25", "::")),
        ("tcp:port=25:interface=192.0.2.1", ("tcp", "25", "192.0.2.1")),
        ("tcp:25:backlog=5:interface=192.0.2.1", ("tcp", "25", "192.0.2.1")),
        (r"tcp6:25:interface=2001\:db8\:\:1", ("tcp6", "25", "2001:db8::1")),
        (r"unix:/run/a\:b:mode=660", ("unix", "/run/a:b", "")),
        ("unix:address=/run/a", ("unix", "/run/a", "")),
        ("systemd:domain=INET:index=1", ("systemd", "domain=INET,index=1", "")),
        ("", ("", "", "")),
    ],
)
def test_the_place_of_an_endpoint(endpoint, place) -> None:
    assert place_of(endpoint) == place


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("tcp:25:interface=192.0.2.1", ip_address("192.0.2.1")),
        (r"tcp6:25:interface=fe80\:\:1%eth0", ip_address("fe80::1")),
        ("tcp:25:interface=localhost", None),
        ("unix:/run/a", None),
    ],
)
def test_the_address_of_an_interface(endpoint, address) -> None:
    assert place_of(endpoint).address == address


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp:25", "tcp:25"),
        ("tcp:25", "tcp:port=25"),
        ("tcp:25", "tcp:25:interface=127.0.0.1"),
        (r"tcp6:25:interface=\:\:1", "tcp6:25"),
        ("tcp:25:interface=127.0.0.1", "tcp6:25"),
        ("unix:/run/a", "unix:/run/a:mode=660"),
        ("systemd:domain=INET:index=1", "systemd:index=1:domain=INET"),
    ],
)
def test_endpoints_that_cannot_be_had_at_once(one, other) -> None:
    for first, second in ((one, other), (other, one)):
        assert place_of(first).collides(place_of(second), dual_stack=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp:25", "tcp:587"),
        ("tcp:0", "tcp:0"),
        ("tcp:0", "tcp6:0"),
        ("tcp:25:interface=127.0.0.1", "tcp:25:interface=127.0.0.2"),
        ("tcp:25", r"tcp6:25:interface=\:\:1"),
        ("unix:/run/a", "unix:/run/b"),
        ("systemd:domain=INET:index=1", "systemd:domain=INET:index=2"),
        ("somebodys:25", "somebodys:25:but=another"),
    ],
)
def test_endpoints_that_can_be_had_at_once(one, other) -> None:
    for first, second in ((one, other), (other, one)):
        assert not place_of(first).collides(place_of(second), dual_stack=True)


def test_ipv6_has_ports_of_its_own_where_the_machine_says_so() -> None:
    assert not place_of("tcp:25").collides(place_of("tcp6:25"), dual_stack=False)


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp:25:interface=127.0.0.2", True),
        (r"tcp6:25:interface=\:\:1", True),
        ("unix:/run/a", True),
        ("tcp:25", False),
        ("tcp:25:interface=192.0.2.1", False),
        ("systemd:domain=INET:index=1", False),
    ],
)
def test_whether_strangers_can_reach_an_endpoint(endpoint, local) -> None:
    assert is_on_loopback(endpoint) is local


def test_our_address_literals_are_those_of_fixed_interfaces() -> None:
    endpoints = ["tcp:25", "tcp:25:interface=192.0.2.1", r"tcp6:25:interface=2001\:db8\:\:1", "unix:/run/a"]
    settings = Settings(listen=tuple(Listen(endpoint=endpoint) for endpoint in endpoints))
    assert list(own_literals(settings)) == ["[192.0.2.1]", "[IPv6:2001:db8::1]"]
