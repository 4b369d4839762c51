"""Bad weather of every kind at once, on real sockets, for days of simulated time."""

from itertools import pairwise

import pytest

from mailsuite.mail.selection import EVERYTHING, QueueAction
from tests.delivery.agents.network import MANNERS, STAGES, Fault, Server
from tests.delivery.network.house import copies, reports

MINUTE, HOUR, DAY = 60, 3600, 86400
# Twisted's resolver tries ports by chance, and leaves the socket of one that is taken to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket .*family=2, type=2,:ResourceWarning")

OFFERS = {"plain": (), "pipelining": ("PIPELINING",), "chunking": ("PIPELINING", "CHUNKING", "SIZE")}


@pytest.mark.parametrize("offer", OFFERS)
def test_all_hosts_go_wrong_for_half_a_day_and_no_mail_is_lost_or_sent_twice(network, house, offer):
    faulty = {}
    for stage in STAGES:
        for manner in MANNERS:
            name = f"{stage}-{manner.replace(' ', '-').replace(',', '')}.test"
            faulty[name] = network.domain(name, Server(Fault(stage, manner), offer=OFFERS[offer]))
    ours = house(retry={"delay_report": 0})
    for name in faulty:
        for _ in range(2):
            ours.send(f"x@{name}")
    living = [ours.send("x@living.test") for _ in range(20)]
    network.live(5)
    assert copies(network.living) == dict.fromkeys(living, 1)
    # Hour by hour there is mail for the one that is well.
    for _ in range(12):
        network.live(HOUR)
        number = ours.send("x@living.test")
        network.live(5)
        assert copies(network.living)[number] == 1
    for name, server in faulty.items():
        assert len(server.open) <= 1, name
        assert server.accepted == [] or name.startswith("quit"), name
        server.fault = None
    network.live(5 * HOUR)
    assert ours.queued() == {}
    assert {name: list(copies(server).values()) for name, server in faulty.items()} == {name: [1, 1] for name in faulty}
    assert reports(network.office) == []


@pytest.mark.parametrize("offer", OFFERS)
def test_a_host_that_takes_a_message_and_is_gone_at_once_gets_it_once(network, house, offer):
    # It has not read the QUIT that was said behind the content: what its system answers to that is a reset.
    server = network.domain("hasty.test", Server(Fault("end", "answer, reset"), offer=OFFERS[offer]))
    ours = house()
    numbers = [ours.send("x@hasty.test", size=size) for size in (0, 100, 50_000)]
    network.live(6 * HOUR)
    assert copies(server) == dict.fromkeys(numbers, 1)
    assert ours.queued() == {}


@pytest.mark.parametrize("offer", OFFERS)
def test_an_answer_in_the_midst_of_the_content_is_none(network, house, offer):
    server = network.domain("early.test", Server(Fault("content", "answer, reset"), offer=OFFERS[offer]))
    server.replies["content"] = b"250 2.0.0 that will do\r\n"
    ours = house(retry={"delay_report": 0})
    number = ours.send("x@early.test", size=8_000_000)
    network.live(MINUTE)
    assert "x@early.test" in ours.queued()
    server.fault = None
    network.live(HOUR)
    assert copies(server) == {number: 1}


def test_a_week_of_silence_ends_with_one_report_for_each_message(network, house):
    network.names.mx("nobody.test", ("mx.nobody.test", network.hops.address()))
    network.domain("mute.test", Server(Fault("greeting", "hang")))
    later = network.domain("later.test", Server(replies={"rcpt": b"450 4.2.0 not today\r\n"}))
    ours = house(retry={"schedule": ["10m", "1h", "6h"], "jitter": 0, "delay_report": "4h", "expire": "5d"})
    start = network.reactor.seconds()
    for name in ("nobody", "mute", "later"):
        ours.send(f"x@{name}.test")
    together = ours.send("a@nobody.test", "b@mute.test", "c@later.test")
    network.live(7 * DAY)
    assert ours.queued() == {}
    told = [report.actions for report in reports(network.office)]
    delayed = [actions for actions in told if set(actions.values()) == {"delayed"}]
    failed = [actions for actions in told if set(actions.values()) == {"failed"}]
    assert len(told) == len(delayed) + len(failed)
    for heard in (delayed, failed):
        assert sorted(address for actions in heard for address in actions) == [
            *("a@nobody.test", "b@mute.test", "c@later.test"),
            *("x@later.test", "x@mute.test", "x@nobody.test"),
        ]
    assert len(failed) <= 6
    assert 20 <= later.seen.count("rcpt") <= 2 * 25
    assert later.seen.count("data") == 0
    assert together == 3
    assert network.reactor.seconds() - start == 7 * DAY


def test_hosts_that_are_off_for_days_get_all_of_it_when_they_are_back(network, house):
    servers = {f"off{number}.test": Server() for number in range(8)}
    places = {name: network.hops.open(server) for name, server in servers.items()}
    for name, place in places.items():
        network.names.mx(name, (f"mx.{name}", place))
        network.hops.close(place)
    ours = house(retry={"delay_report": 0})
    expected = {name: [] for name in servers}
    for _ in range(18):
        for name in servers:
            expected[name].append(ours.send(f"x@{name}"))
        network.live(3 * HOUR)
    assert sum(len(server.connections) for server in servers.values()) == 0
    for name, place in places.items():
        network.hops.open(servers[name], place)
    network.live(5 * HOUR)
    assert ours.queued() == {}
    for name, server in servers.items():
        assert copies(server) == dict.fromkeys(expected[name], 1)


def test_a_second_host_takes_what_the_first_one_does_not(network, house):
    bad, good = {}, {}
    for stage in ("greeting", "hello"):
        for manner in MANNERS:
            name = f"{stage}-{manner.replace(' ', '-')}.test"
            bad[name], good[name] = Server(Fault(stage, manner)), Server()
            hosts = [(f"{kind}.{name}", network.hops.open(one[name])) for kind, one in (("a", bad), ("b", good))]
            network.names.mx(name, *hosts)
    ours = house()
    for name in bad:
        ours.send(f"x@{name}")
    network.live(20 * MINUTE)  # the time that each of two hosts may take
    assert ours.queued() == {}
    assert {name: len(copies(server)) for name, server in good.items()} == dict.fromkeys(good, 1)
    assert all(server.accepted == [] for server in bad.values())


# ---------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("stage", ["greeting", "rcpt", "data", "content", "quit"])
@pytest.mark.parametrize("jump", [10 * MINUTE, 3 * DAY])
def test_a_clock_that_jumps_ahead_within_a_dialogue_costs_a_retry_at_most(network, house, stage, jump):
    server = network.domain("slow.test", Server(Fault(stage, "hang")))
    ours = house(retry={"delay_report": 0})
    number = ours.send("x@slow.test")
    network.live(1)
    server.fault = None
    network.reactor.rightNow += jump
    network.live(HOUR)
    assert ours.queued() == {}
    assert copies(server) == {number: 1}


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("jump", [HOUR, 40 * DAY])
def test_a_clock_that_is_set_back_keeps_no_new_mail_waiting(network, house, jump, moved):
    # What has failed rests: the host, the destination. What was looked up is known, for as long as it was said then.
    server = Server()
    place = network.hops.open(server)
    network.names.mx("moving.test", ("mx.moving.test", place))
    network.hops.close(place)
    ours = house(retry={"delay_report": 0})
    ours.send("x@moving.test")
    ours.send("x@living.test")
    network.live(1)
    network.reactor.rightNow -= jump
    if moved:
        network.domain("moving.test", server)  # its records were good for five minutes
    else:
        network.hops.open(server, place)
    network.live(10 * MINUTE)
    numbers = [ours.send("x@moving.test"), ours.send("x@living.test")]
    network.live(10 * MINUTE)
    assert copies(network.living)[numbers[1]] == 1
    assert copies(server)[numbers[0]] == 1


def test_operators_act_while_nothing_answers(network, house):
    silent = network.domain("silent.test", Server(Fault("rcpt", "hang")))
    ours = house(retry={"delay_report": 0})
    numbers = [ours.send("x@silent.test") for _ in range(3)]
    network.live(6 * MINUTE)  # the first attempt is over
    done = []
    ours.spool.manage(QueueAction.HOLD, EVERYTHING, by="test").addCallback(done.append)
    silent.fault = None
    network.live(DAY)
    assert silent.accepted == []
    ours.spool.manage(QueueAction.RELEASE, EVERYTHING, by="test").addCallback(done.append)
    network.live(HOUR)
    assert [one.recipients for one in done] == [3, 3]
    assert copies(silent) == dict.fromkeys(numbers, 1)


def test_what_comes_late_never_overtakes_the_limit_for_all(network, house):
    servers = [network.domain(f"many{number}.test") for number in range(30)]
    ours = house(relay={"total_rate": "1/s", "tls": "none"})
    start = network.reactor.seconds()
    numbers = [ours.send(f"x@many{number}.test") for number in range(30)]
    times = []
    while ours.queued() and network.reactor.seconds() - start < 120:
        network.live(1)
        times.append(sum(len(server.accepted) for server in servers))
    assert copies(*servers) == dict.fromkeys(numbers, 1)
    assert all(after - before <= 2 for before, after in pairwise(times[10:]))
    assert 15 <= len(times) <= 60
