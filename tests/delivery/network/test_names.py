"""A DNS that fails, lies, is slow, or says too much; the mail of others goes on meanwhile."""

import pytest
from twisted.names import dns

from tests.delivery.agents.network import Server
from tests.delivery.network.house import copies, reports
from tests.delivery.network.names import MANNERS

MINUTE, HOUR, DAY = 60, 3600, 86400

# Twisted's resolver tries ports by chance, and leaves the socket of one that is taken to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket .*family=2, type=2,:ResourceWarning")

LIES = ("other names", "wrong kind")
"""Answers in good form that say nothing about what was asked: a domain without a host, for all that we can know."""


@pytest.mark.parametrize("what", ["domain", "host"])
def test_whatever_the_names_do_mail_waits_for_them_and_that_of_others_does_not(network, house, what):
    names, servers = network.names, {}
    for manner in MANNERS:
        domain = f"{manner.replace(' ', '-')}.test"
        servers[domain] = network.domain(domain)
        names.broken[domain if what == "domain" else f"mx.{domain}"] = manner
    ours = house(retry={"delay_report": 0})
    numbers = {domain: ours.send(f"x@{domain}") for domain in servers}
    for _ in range(6):
        living = ours.send("x@living.test")
        network.live(1)
        assert copies(network.living)[living] == 1
        network.live(HOUR)
    told = {address.partition("@")[2] for report in reports(network.office) for address in report.actions}
    assert told <= {f"{lie.replace(' ', '-')}.test" for lie in LIES}
    waiting = {address.partition("@")[2] for address in ours.queued()}
    slow = {"slow.test"} & {domain for domain, server in servers.items() if copies(server)}
    assert waiting | told | slow == set(servers)
    names.broken.clear()
    network.live(5 * HOUR)
    assert ours.queued() == {}
    for domain, server in servers.items():
        assert copies(server) == ({} if domain in told else {numbers[domain]: 1})


def many(network, domain, count, address):
    """A domain with so many hosts, of which one has an address."""
    network.names.zone[domain] = [
        dns.RRHeader(domain, dns.MX, ttl=300, payload=dns.Record_MX(number, f"h{number}.{domain}"))
        for number in range(count)
    ]
    host = f"h5.{domain}"
    network.names.zone[host] = [dns.RRHeader(host, dns.A, ttl=300, payload=dns.Record_A(address))]


def test_of_very_many_hosts_a_few_are_tried(network, house):
    good = Server()
    many(network, "many.test", 450, network.hops.open(good))
    ours = house()
    numbers = ours.send("x@many.test"), ours.send("x@living.test")
    network.live(MINUTE)
    assert (copies(good), copies(network.living)) == ({numbers[0]: 1}, {numbers[1]: 1})
    assert len([name for name in network.names.asked if name.endswith(".many.test")]) <= 40
    assert ours.queued() == {}


def test_as_many_hosts_as_an_answer_can_hold_are_read(network, house):
    # Twisted itself reads no more than a thousand names that lead to others.
    good = Server()
    many(network, "flood.test", 2500, network.hops.open(good))
    ours = house()
    numbers = ours.send("x@flood.test"), ours.send("x@living.test")
    network.live(MINUTE)
    assert (copies(good), copies(network.living)) == ({numbers[0]: 1}, {numbers[1]: 1})
    assert ours.queued() == {}


def test_very_many_hosts_that_are_all_dead_are_tried_in_bounds(network, house):
    names = network.names
    many(network, "dead.test", 450, network.hops.address())
    for number in range(450):
        host = f"h{number}.dead.test"
        names.zone[host] = [dns.RRHeader(host, dns.A, ttl=300, payload=dns.Record_A(network.hops.address()))]
    ours = house(retry={"delay_report": 0, "schedule": ["1h"]})
    ours.send("x@dead.test")
    network.live(10 * MINUTE)
    assert ours.queued()["x@dead.test"][0] == 1
    assert len([name for name in names.asked if name.endswith(".dead.test")]) <= 40


def test_names_that_lead_in_circles_lead_nowhere(network, house):
    names = network.names
    for one, other in (("a.test", "b.test"), ("b.test", "a.test")):
        names.zone[one] = [dns.RRHeader(one, dns.CNAME, ttl=300, payload=dns.Record_CNAME(other))]
    names.mx("round.test", ("a.test", None))
    names.mx("self.test", ("self.test", None))
    ours = house()
    for domain in ("a.test", "round.test", "self.test"):
        ours.send(f"x@{domain}")
    network.live(2 * MINUTE)
    asked = len(names.asked)
    assert asked < 100
    told = {address: action for report in reports(network.office) for address, action in report.actions.items()}
    assert set(told.values()) <= {"failed"}
    assert set(told) | set(ours.queued()) == {f"x@{domain}" for domain in ("a.test", "round.test", "self.test")}


@pytest.mark.parametrize("host", ["mail.home.test", ""])
def test_a_domain_that_names_us_or_nobody_is_no_loop(network, house, host):
    network.names.mx("loop.test", (host, None))
    ours = house(listen=[{"endpoint": "tcp:2525:interface=127.0.0.1"}])
    ours.send("x@loop.test")
    network.live(2 * MINUTE)
    told = [report.actions for report in reports(network.office)]
    assert told == [{"x@loop.test": "failed"}]
    assert ours.queued() == {}


def test_a_resolver_that_is_gone_for_two_days_costs_nobody_his_mail(network, house):
    ours = house()
    first = ours.send("x@living.test")
    network.live(1)
    everybody = set(network.names.zone)
    network.names.broken = dict.fromkeys(everybody, "silence")
    network.live(HOUR)  # what was known is known no longer
    numbers = [ours.send("x@living.test") for _ in range(50)]
    network.live(2 * DAY)
    assert copies(network.living) == {first: 1}
    network.names.broken = {}
    network.live(5 * HOUR)
    assert copies(network.living) == dict.fromkeys([first, *numbers], 1)
    # All names were away, that of the senders too: what was to tell them of the delay had its own time, and is over.
    assert ours.queued() == {}
