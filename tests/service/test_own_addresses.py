"""Where this server answers, by its settings and by the machine."""

import socket
from pathlib import Path

import pytest

from mailsuite.config import Settings, SettingsError
from mailsuite.delivery.own_addresses import OwnAddresses, is_of_this_machine
from mailsuite.net.addresses import parse_address
from mailsuite.service.routes import own_addresses


def own(*endpoints, **relay):
    tables = {"hostname": "us.test", "listen": [{"endpoint": one} for one in endpoints], "relay": relay}
    return own_addresses(Settings.parse(tables, "the test", Path("/nonexistent")))


def test_a_listener_on_one_address_is_ours_there() -> None:
    known = own("tcp:25:interface=192.0.2.1", "tcp6:587:interface=2001\\:db8\\:\\:1")
    assert known.answer("192.0.2.1", 25)
    assert known.answer("::ffff:192.0.2.1", 25)
    assert known.answer("2001:DB8:0::1", 587)
    assert known.answer("127.0.0.1", 25)
    assert not known.answer("192.0.2.2", 25)
    assert not known.answer("192.0.2.1", 2525)
    assert not known.answer("127.0.0.1", 2525)


def test_a_listener_on_all_interfaces_is_ours_at_the_addresses_of_the_machine() -> None:
    known = own("tcp:25")
    here = OwnAddresses(known.ports, known.addresses, known.all_interfaces, lambda address: str(address) == "192.0.2.7")
    assert here.answer("192.0.2.7", 25)
    assert not here.answer("192.0.2.8", 25)


def test_an_endpoint_that_says_no_port_may_be_that_of_smtp() -> None:
    assert own("systemd:domain=INET:index=0").ports == {25}
    assert own("unix:/run/smtp.sock").ports == set()


def test_a_gateway_has_addresses_of_its_own() -> None:
    known = own("tcp:2525:interface=127.0.0.1", own_addresses=["203.0.113.5"])
    assert known.answer("203.0.113.5", 25)
    assert not known.answer("203.0.113.6", 25)
    with pytest.raises(SettingsError):
        own(own_addresses=["mx.example.net"])


def test_the_machine_knows_its_addresses() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        assert is_of_this_machine(parse_address(probe.getsockname()[0]))
    assert not is_of_this_machine(parse_address("192.0.2.200"))
    assert not is_of_this_machine(parse_address("255.255.255.255"))
