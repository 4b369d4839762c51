"""Connections of the relay agent that stay for a moment where mail comes fast."""

import pytest

from mailsuite.delivery.lingering import LINGER
from mailsuite.mail.queue import Result
from tests.delivery.agents.network import Server
from tests.delivery.agents.test_defects import Site

PIPELINING = ("PIPELINING",)


@pytest.fixture
def server():
    return Server(offer=PIPELINING)


@pytest.fixture
def site(server):
    site = Site(server)
    yield site
    site.stop()


def send(site, count, seconds=0.1):
    site.spool.commit(*(site.make() for _ in range(count)))
    site.network.run(seconds)


def test_a_busy_destination_keeps_its_connection_for_what_comes_next(site, server) -> None:
    send(site, 30)
    before = len(server.connections)
    [*_, line] = server.open
    for _ in range(5):
        send(site, 1)
    assert len(server.accepted) == 35
    assert len(server.connections) == before
    assert line in server.open
    site.network.run(2 * LINGER)
    assert server.open == []
    assert site.spool.results() == [Result.RELAYED] * 35


def test_a_quiet_destination_is_left_in_one_breath_with_its_message(site, server) -> None:
    send(site, 1)
    assert server.seen == ["greeting", "hello", "mail", "rcpt", "data", "end", "quit"]
    assert server.open == []


def test_a_connection_that_its_server_ends_while_it_stays_costs_nobody_an_attempt(site, server) -> None:
    send(site, 30)
    for line in server.open:
        line.end()
    send(site, 1)
    assert len(server.accepted) == 31
    assert site.spool.results() == [Result.RELAYED] * 31


def test_a_connection_that_its_server_gives_notice_to_while_it_stays_is_replaced(site, server) -> None:
    send(site, 30)
    for line in server.open:
        line.say(b"421 4.4.2 idle for too long\r\n")
        line.stuck = True
    send(site, 1)
    assert len(server.accepted) == 31
    assert site.spool.results() == [Result.RELAYED] * 31


def test_a_stop_ends_what_stays_at_once(server) -> None:
    site = Site(server)
    send(site, 30)
    assert server.open
    stopped = site.scheduler.stopService()
    site.network.run(0.1)
    assert stopped.called
    assert server.open == []
