"""Next hops that go wrong at each stage: the agent, the dialer, the driver and the cores are real, time is not."""

from dataclasses import replace

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsuite.delivery.agents.relay import RelayAgent, RelayAgentSettings
from mailsuite.mail.queue import Result
from mailsuite.mail.route import HOLD, RELAY, Destination, NextHop
from mailsuite.net.dialer import Dialer
from mailsuite.net.timeouts import Timeouts
from tests.delivery.agents.network import MANNERS, STAGES, Fault, Network, Server
from tests.delivery.agents.test_relay import FakeNextHops, FakeTLS, Run, in_thread
from tests.session.scripted import make_delivery

HOUR = 3600
FIRST, SECOND = "192.0.2.1", "192.0.2.2"
HOPS = (NextHop("a.test", tls="none"), NextHop("b.test", tls="none"))
ADDRESSES = {"a.test": [FIRST], "b.test": [SECOND]}
OFFERS = {"plain": (), "pipelining": ("PIPELINING",), "chunking": ("PIPELINING", "CHUNKING", "SIZE")}


async def addresses(host):
    return ADDRESSES[host]


class Relaying:
    """An agent in a network, and a run of it."""

    def __init__(self, network, *hops, deliveries=1, next_hops=None, addresses=addresses, **settings):
        self.network = network
        self.agent = RelayAgent(
            next_hops or FakeNextHops(*(hops or HOPS)),
            Dialer(network, timeouts=Timeouts()),
            FakeTLS(),
            in_thread,
            RelayAgentSettings("relay.example.org", **settings),
            addresses=addresses,
            clock=network,
        )
        self.run = Run(*(make_delivery(f"q{number}") for number in range(deliveries)))
        self.errors = []
        self.done = self.deliver(self.run)

    def deliver(self, run):
        done = Deferred.fromCoroutine(self.agent.deliver(run))
        return done.addErrback(self.errors.append)

    def end(self, seconds=2 * HOUR):
        """Let it come to its end: nobody waits for ever."""
        self.network.run(seconds)
        assert self.errors == []
        assert self.done.called
        self.run.check_accounts()
        assert self.agent.connections == 0
        return self.run


def copies(*servers):
    return sum(len(server.accepted) for server in servers)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("offer", OFFERS)
def test_nothing_is_lost_and_nothing_sent_twice_whatever_a_host_does(offer, stage, manner):
    bad, good = Server(Fault(stage, manner), offer=OFFERS[offer]), Server()
    network = Network({FIRST: bad, SECOND: good})
    relaying = Relaying(network, deliveries=3)
    run = relaying.end()
    arrived = [queue_id for queue_id in run.settled if run.results(queue_id) == ["relayed"]]
    assert copies(bad, good) == len(arrived)
    assert not bad.open
    assert all(run.results(queue_id) in (["relayed"], ["delayed"]) for queue_id in run.settled)
    if stage in ("greeting", "hello"):
        assert len(good.accepted) == 3  # nothing was taken before: the other host gets it
        assert run.failed is None
    if stage == "quit":
        assert arrived == ["q0", "q1", "q2"]


@pytest.mark.parametrize("manner", ["endless line", "endless reply"])
@pytest.mark.parametrize("stage", STAGES)
def test_what_never_ends_is_cut_off_before_it_fills_the_memory(stage, manner):
    bad = Server(Fault(stage, manner))
    Relaying(Network({FIRST: bad, SECOND: Server()})).end()
    assert max(line.said for line in bad.connections) < 300_000


@pytest.mark.parametrize(
    ("stage", "limit"),
    [("greeting", 300), ("hello", 300), ("mail", 300), ("rcpt", 300), ("data", 120), ("end", 600), ("quit", 10)],
)
def test_each_stage_has_the_time_that_it_is_due(stage, limit):
    # RFC 5321 section 4.5.3.2
    server = Server(Fault(stage, "hang"))
    network = Network({FIRST: server})
    relaying = Relaying(network, HOPS[0])
    network.run(limit - 1)
    assert len(server.open) == 1
    network.run(2 + 30)  # and the time to close
    assert server.open == []
    relaying.end()


@pytest.mark.parametrize("stage", ["greeting", "hello", "mail", "rcpt", "data", "end"])
def test_a_single_octet_now_and_then_is_no_answer(stage):
    server = Server(Fault(stage, "trickle"))
    network = Network({FIRST: server})
    relaying = Relaying(network, HOPS[0])
    network.run(700)
    assert server.open == []
    run = relaying.end()
    assert run.failed is not None or run.results("q0") == ["delayed"]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("ahead", [b"220 hello\r\n250 ok\r\n250 ok\r\n354 go\r\n250 sent\r\n221 bye\r\n"])
def test_replies_that_come_before_their_commands_relay_nothing(offer, ahead):
    server = Server(Fault("greeting", ahead), offer=OFFERS[offer])
    run = Relaying(Network({FIRST: server}), HOPS[0]).end()
    assert all(run.results(queue_id) != ["relayed"] for queue_id in run.settled) or len(server.accepted) == 1
    assert "q0" not in run.settled or run.results("q0") == ["delayed"] or len(server.accepted) == 1


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "end"])
@pytest.mark.parametrize(
    "said", [b"421 4.3.2 closing\r\n", b"999 what\r\n", b"100 \r\n", b"25\r\n", b"\r\n", b"250-ok\r\n354 x\r\n"]
)
def test_odd_replies_lose_nothing(stage, said):
    server = Server(Fault(stage, said))
    run = Relaying(Network({FIRST: server}), HOPS[0]).end()
    results = [run.results(queue_id) for queue_id in run.settled]
    assert ["relayed"] not in results
    assert ["failed"] not in results


def test_outcomes_tell_the_connection():
    bad, good = Server(Fault("hello", "close")), Server()
    run = Relaying(Network({FIRST: bad, SECOND: good})).end()
    [outcome] = run.settled["q0"]
    assert (outcome.via.host, outcome.via.address, outcome.via.port, outcome.via.policy) == (
        "b.test",
        SECOND,
        25,
        "none",
    )
    run = Relaying(Network({FIRST: bad}), HOPS[0]).end()
    assert (run.failed.via.host, run.failed.via.address) == ("a.test", FIRST)


def test_a_dead_host_is_not_asked_once_for_each_destination():
    network = Network({FIRST: Server(refuses=True)})
    relaying = Relaying(network, HOPS[0])
    network.run(1)
    runs = [Run(make_delivery()) for _ in range(100)]
    for run in runs:
        relaying.deliver(run)
    network.run(1)
    assert len(network.dialled) == 1
    assert {run.failed.result for run in runs} == {Result.DEFERRED}
    assert runs[0].failed.text == "a.test is left alone for a while: connection refused"
    network.servers[FIRST] = Server()
    network.run(30)
    again = Run(make_delivery())
    relaying.deliver(again)
    network.run(1)
    assert again.results("q1") == ["relayed"]


def test_many_runs_to_a_silent_host_dial_it_a_few_times():
    network = Network()
    relaying = Relaying(network, HOPS[0])
    runs = [Run(make_delivery()) for _ in range(500)]
    for run in runs:
        relaying.deliver(run)
    network.run(100)
    assert len(network.dialled) == 5
    assert all(run.failed.result is Result.DEFERRED for run in runs)
    relaying.end()


def test_thousands_of_dead_hosts_keep_no_living_one_waiting():
    network = Network({SECOND: Server()})
    relaying = Relaying(network, next_hops=OneLiving(), addresses=OneLiving.addresses)
    network.run(1)
    runs = [Run(make_delivery(), destination=Destination(RELAY, f"dead{number}.test")) for number in range(2_000)]
    for run in runs:
        relaying.deliver(run)
    network.run(1)
    assert relaying.agent.connections == 100  # of two hundred
    for _ in range(50):
        alive = Run(make_delivery())
        relaying.deliver(alive)
        network.run(0.1)
        assert alive.results("q1") == ["relayed"]
    network.run(HOUR)
    assert {run.failed.result for run in runs} == {Result.DEFERRED}
    assert relaying.agent.connections == 0


class OneLiving:
    """Hosts that nobody has, each of an address of its own, and one that is there."""

    async def find(self, destination):
        if destination.name == "example.net":
            return (HOPS[1],)
        return (NextHop(f"mx.{destination.name}", tls="none"),)

    @staticmethod
    async def addresses(host):
        if host == "b.test":
            return [SECOND]
        number = int(host.removeprefix("mx.dead").removesuffix(".test"))
        return [f"198.51.{number // 256}.{number % 256}"]


def test_held_mail_that_is_asked_for_dials_also_what_rests():
    network = Network({FIRST: Server(refuses=True)})
    relaying = Relaying(network, HOPS[0])
    network.run(1)
    network.servers[FIRST] = Server()
    held = Run(make_delivery(), destination=Destination(HOLD, "example.net"))
    relaying.deliver(held)
    network.run(1)
    assert held.results("q1") == ["relayed"]


def test_an_operator_has_what_rests_tried_now():
    network = Network({FIRST: Server(refuses=True)})
    relaying = Relaying(network, HOPS[0])
    network.run(1)
    network.servers[FIRST] = Server()
    relaying.agent.wake()
    run = Run(make_delivery())
    relaying.deliver(run)
    network.run(1)
    assert run.results("q1") == ["relayed"]


def test_a_route_has_its_own_source_address():
    network = Network({FIRST: Server()})
    for hop, address in ((HOPS[0], "192.0.2.7"), (replace(HOPS[0], source_address="192.0.2.8"), "192.0.2.8")):
        Relaying(network, hop, source_address="192.0.2.7").end(10)
        assert network.servers[FIRST].connections[-1].getHost().host == address


def test_what_is_under_way_when_it_is_cancelled_is_given_back():
    server = Server(Fault("rcpt", "hang"))
    network = Network({FIRST: server})
    relaying = Relaying(network, HOPS[0])
    network.run(1)
    relaying.done.cancel()
    network.run(1)
    assert server.open == []
    assert relaying.errors[0].check(CancelledError)
    assert relaying.agent.connections == 0
    relaying.run.check_accounts()
