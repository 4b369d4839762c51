"""Bad weather of every kind at once, on real sockets, for days of simulated time."""

import pytest

from tests.delivery.agents.network import MANNERS, STAGES, Fault, Server
from tests.delivery.network.house import copies, reports

MINUTE, HOUR, DAY = 60, 3600, 86400
OFFERS = {"plain": (), "pipelining": ("PIPELINING",), "chunking": ("PIPELINING", "CHUNKING", "SIZE")}


@pytest.mark.parametrize("offer", OFFERS)
def test_all_hosts_go_wrong_for_a_day_and_the_mail_of_none_is_lost_or_sent_twice(network, house, offer):
    faulty = {}
    for stage in STAGES:
        for manner in MANNERS:
            name = f"{stage}-{manner.replace(' ', '-')}.test"
            faulty[name] = network.domain(name, Server(Fault(stage, manner), offer=OFFERS[offer]))
    ours = house(retry={"delay_report": 0})
    for name in faulty:
        for _ in range(2):
            ours.send(f"x@{name}")
    living = [ours.send("x@living.test") for _ in range(20)]
    network.live(5)
    assert copies(network.living) == dict.fromkeys(living, 1)
    # Hour by hour there is mail for the one that is well.
    for _ in range(24):
        network.live(HOUR)
        number = ours.send("x@living.test")
        network.live(5)
        assert copies(network.living)[number] == 1
    for name, server in faulty.items():
        assert len(server.open) <= 1, name
        if not name.startswith("quit"):
            assert server.accepted == []
        server.fault = None
    network.live(5 * HOUR)
    assert ours.queued() == {}
    assert all(list(copies(server).values()) == [1, 1] for server in faulty.values())
    assert reports(network.office) == []
