"""The network: next hops, a name server, and time; houses of ours in it."""

import pytest

from tests.delivery.agents.network import Server
from tests.delivery.network.hops import Hops
from tests.delivery.network.house import House
from tests.delivery.network.names import Names
from tests.delivery.network.simulated import SimulatedTime


class Network:
    """`office` has the senders: reports go there. `living.test` is alive from the first to the last."""

    def __init__(self, real):
        self.reactor = SimulatedTime(real)
        self.live = self.reactor.live
        self.hops = Hops(self.reactor)
        self.names = Names(self.reactor)
        self.office = self.domain("office.test")
        self.living = self.domain("living.test")

    def domain(self, name, server=None):
        """A domain with one host; return its server."""
        server = server or Server()
        self.names.mx(name, (f"mx.{name}", self.hops.open(server)))
        return server

    def stop(self):
        self.hops.close_all()
        self.names.stop()
        self.live(1)


@pytest.fixture
def network(reactor):
    network = Network(reactor)
    yield network
    network.stop()


@pytest.fixture
def house(network):
    """Make a server by the tables of its configuration; it is stopped at the end."""
    made = []

    def make(**tables):
        made.append(House(network, **tables))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert one.errors == []
