"""What the relay agent does where a message makes it raise: the scheduler and a network in memory around it."""

import random
from dataclasses import replace

import pytest

from mailsuite.delivery.agents.relay import RelayAgent, RelayAgentSettings
from mailsuite.delivery.bounces import ReportSettings
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.scheduler import Scheduler, SchedulerSettings
from mailsuite.mail.history import EventKind
from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.net.dialer import Dialer
from tests.delivery.agents.network import Network, Server
from tests.delivery.agents.test_faults import OFFERS
from tests.delivery.agents.test_relay import FakeNextHops, FakeTLS, in_thread
from tests.delivery.fakes import FakeRouter, FakeSpool, relay

HERE = relay("here.example")
ADDRESS = "192.0.2.1"


class BrokenContent:
    """Content that its reader can do nothing with."""

    size = 100

    def in_memory(self):
        raise RuntimeError("a defect in the content")


async def addresses(_host):
    return [ADDRESS]


class Site:
    """A spool, a scheduler and a relay agent, beside one server."""

    def __init__(self, server, hostname="relay.example.org"):
        self.network = Network({ADDRESS: server})
        self.spool = FakeSpool(self.network)
        hops = FakeNextHops(NextHop("mx.test", tls="none"))
        settings = RelayAgentSettings(hostname)
        dialer = Dialer(self.network)
        agent = RelayAgent(hops, dialer, FakeTLS(), in_thread, settings, addresses=addresses, clock=self.network)
        self.scheduler = Scheduler(
            self.spool,
            [agent],
            FakeRouter(),
            self.network,
            hostname="mx.here.example",
            chance=random.Random(7).random,
            settings=SchedulerSettings(RetrySchedule(delay_report=0.0), reports=ReportSettings(gather=0.0)),
        )
        self.scheduler.startService()
        self.network.run(1)

    def make(self, *, broken=False):
        delivery = self.spool.make(HERE)
        return replace(delivery, content=BrokenContent()) if broken else delivery

    def stop(self):
        stopped = self.scheduler.stopService()
        self.network.run(100)
        assert stopped.called


@pytest.fixture
def site():
    sites = []

    def build(server, **options):
        sites.append(Site(server, **options))
        return sites[-1]

    yield build
    for one in sites:
        one.stop()


@pytest.mark.parametrize("offer", OFFERS)
def test_a_message_that_makes_the_agent_raise_is_on_hold_with_its_traceback_and_the_queue_goes_on(site, offer) -> None:
    server = Server(offer=OFFERS[offer])
    here = site(server)
    spool = here.spool
    good, bad, other = here.make(), here.make(broken=True), here.make()
    spool.commit(good, bad, other)
    here.network.run(5)
    assert spool.on_hold == [bad]
    [fault] = [event for event in spool.events if event.kind is EventKind.FAULT]
    assert fault.queue_id == bad.message.queue_id
    assert "RuntimeError: a defect in the content" in fault.detail["traceback"]
    assert __file__ in fault.detail["traceback"]
    assert sorted(spool.results()) == [Result.HELD, Result.RELAYED, Result.RELAYED]
    assert len(server.accepted) == 2
    assert not server.open
    assert not spool.leased


def test_a_defect_before_any_message_was_taken_leaves_the_destination_alone_for_a_while(site) -> None:
    here = site(Server(), hostname="two\r\nlines")  # nothing that could be said in EHLO
    here.spool.commit(here.make(), here.make())
    here.network.run(5)
    assert here.spool.results() == [Result.DEFERRED] * 2
    assert here.spool.on_hold == []
    [status] = here.scheduler.status()
    assert (status.failures, status.last_error) == (1, "Local error in delivery")
