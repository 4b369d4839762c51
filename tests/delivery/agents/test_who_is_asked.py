"""Which hosts are asked, and what it means that others were not: attempts that are used up, and ourselves."""

import pytest

from mailsuite.delivery.own_addresses import OwnAddresses
from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.net.addresses import parse_address
from mailsuite.net.resolver import DnsFailure
from tests.delivery.agents.network import Fault, Network, Server
from tests.delivery.agents.test_faults import Relaying

DOMAIN = "there.test"
OWN = OwnAddresses(frozenset({25}), frozenset({parse_address("192.0.2.100")}))
US = "192.0.2.100"


def mx(number, preference, port=25):
    return NextHop(f"h{number}.test", port, tls="none", domain=DOMAIN, preference=preference)


def refusing():
    return Server(Fault("greeting", b"554 no\r\n"))


class Hosts:
    """Each host has the addresses of its number; what was asked is kept."""

    def __init__(self, **others):
        self.others = others
        self.asked = []

    async def __call__(self, host):
        self.asked.append(host)
        name = host.partition(".")[0]
        found = self.others.get(name, [f"192.0.2.{name.removeprefix('h')}"])
        if isinstance(found, Exception):
            raise found
        return found


# ------------------------------------------------------------------------------------------- attempts


def test_mail_waits_where_a_host_is_left_that_nobody_asked() -> None:
    network = Network({f"192.0.2.{number}": refusing() for number in range(1, 6)} | {"192.0.2.6": Server()})
    hosts = Hosts()
    run = Relaying(network, *(mx(number, number) for number in range(1, 7)), addresses=hosts).end()
    assert (run.failed.result, run.failed.status.class_) == (Result.DEFERRED, 4)
    assert "h6.test is still to be asked" in run.failed.text
    assert "h6.test" not in hosts.asked


def test_mail_waits_where_an_address_is_left_that_nobody_asked() -> None:
    addresses = [f"192.0.2.{number}" for number in range(1, 7)]
    network = Network({address: refusing() for address in addresses})
    run = Relaying(network, mx(1, 1), addresses=Hosts(h1=addresses)).end()
    assert run.failed.result is Result.DEFERRED


def test_mail_fails_where_every_host_was_asked() -> None:
    network = Network({f"192.0.2.{number}": refusing() for number in range(1, 6)})
    run = Relaying(network, *(mx(number, number) for number in range(1, 6)), addresses=Hosts()).end()
    assert (run.failed.result, run.failed.status.class_) == (Result.FAILED, 5)


# ------------------------------------------------------------------------------------------ ourselves


def relayed(network, *hops, hosts=None):
    return Relaying(network, *hops, addresses=hosts or Hosts(), own=OWN).end()


@pytest.mark.parametrize("address", [US, "127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:192.0.2.100"])
def test_a_host_that_is_ourselves_under_another_name_is_never_dialled(address) -> None:
    network = Network({address: Server()})
    run = relayed(network, mx(1, 0), hosts=Hosts(h1=[address]))
    assert (run.failed.result, str(run.failed.status)) == (Result.FAILED, "5.4.6")
    assert network.dialled == []


def test_hosts_that_are_no_nearer_than_ourselves_are_not_dialled() -> None:
    network = Network({"192.0.2.1": Server(Fault("greeting", b"421 later\r\n")), "192.0.2.3": Server()})
    run = relayed(network, mx(1, 5), mx(2, 10), mx(3, 20), hosts=Hosts(h2=[US]))
    assert [address for address, _ in network.dialled] == ["192.0.2.1"]
    assert run.failed.result is Result.DEFERRED


def test_hosts_of_our_own_preference_are_not_dialled_whichever_comes_first() -> None:
    network = Network({"192.0.2.1": Server(), "192.0.2.3": Server()})
    run = relayed(network, mx(1, 5), mx(2, 5), mx(3, 5), hosts=Hosts(h2=[US]))
    assert network.dialled == []
    assert str(run.failed.status) == "5.4.6"


def test_one_of_equal_hosts_that_has_no_address_hinders_nobody() -> None:
    network = Network({"192.0.2.2": Server()})
    hosts = Hosts(h1=DnsFailure("h1.test", "no answer", temporary=True))
    assert relayed(network, mx(1, 5), mx(2, 5), hosts=hosts).results("q0") == ["relayed"]


@pytest.mark.parametrize(
    "hop",
    [mx(1, 0, port=2525), NextHop("h1.test", tls="none"), NextHop("h1.test", 2525, tls="none")],
    ids=["another port", "configured", "configured, another port"],
)
def test_this_machine_may_be_a_next_hop_of_the_configuration_or_on_another_port(hop) -> None:
    network = Network({"127.0.0.1": Server()})
    assert relayed(network, hop, hosts=Hosts(h1=["127.0.0.1"])).results("q0") == ["relayed"]


# -------------------------------------------------------------------------------------- no host at all


@pytest.mark.parametrize("host", ["192.0.2.66", "/run/lmtp.sock"])
def test_what_an_mx_names_must_be_a_name(host) -> None:
    async def addresses(asked):
        raise DnsFailure(asked, "not a domain name", temporary=False)

    network = Network({host: Server()})
    hop = NextHop(host, tls="none", domain=DOMAIN)
    run = Relaying(network, hop, addresses=addresses).end()
    assert (run.failed.result, network.dialled) == (Result.FAILED, [])
