"""The addresses of a host race (RFC 8305): in simulated time, over a network in memory."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsuite.net.dialer import ConnectFailed, Dialer, SocketPath, in_turns, reachable
from mailsuite.net.timeouts import Timeouts
from tests.delivery.agents.network import Fault, Network, Server
from tests.net.support import LineCore, Role, echo

SIX, SIX_TOO, FOUR, FOUR_TOO = "2001:db8::25", "2001:db8::26", "192.0.2.25", "192.0.2.26"


def mute():
    return Server(Fault("greeting", "hang"))


class Dialling:
    """One call of the dialer's, and what has come of it."""

    def __init__(self, network, *addresses, **options):
        self.connections, self.failures, self.failed = [], [], []
        self.sessions = 0
        dialer = Dialer(network, timeouts=Timeouts(connect=30))
        self.done = Deferred.fromCoroutine(
            dialer.dial(
                "mx.test",
                25,
                LineCore(Role.CLIENT),
                self.session,
                addresses=addresses,
                failed=lambda address, why: self.failed.append((address, why)),
                **options,
            )
        )
        self.done.addCallbacks(self.connections.append, self.failures.append)

    async def session(self, conversation):
        self.sessions += 1
        return await echo(conversation)

    @property
    def host(self):
        return self.connections[0].conversation.peer.host


def test_kinds_of_addresses_take_turns():
    assert in_turns([SIX, SIX_TOO, FOUR, FOUR_TOO]) == [SIX, FOUR, SIX_TOO, FOUR_TOO]
    assert in_turns([FOUR, FOUR_TOO, SIX]) == [FOUR, SIX, FOUR_TOO]
    assert in_turns([FOUR]) == [FOUR]


def test_a_source_address_reaches_its_own_kind():
    assert reachable([SIX, FOUR], None) == [SIX, FOUR]
    assert reachable([SIX, FOUR], "192.0.2.1") == [FOUR]
    assert reachable([SIX, FOUR, SocketPath("/run/lmtp")], "2001:db8::1") == [SIX, "/run/lmtp"]


def test_one_address_needs_no_timer():
    network = Network({FOUR: mute()})
    Dialling(network, FOUR)
    assert len(network.getDelayedCalls()) == 1  # the connecting itself


def test_a_silent_address_costs_a_quarter_of_a_second():
    network = Network({FOUR: mute()})
    dialling = Dialling(network, SIX, SIX_TOO, FOUR)
    network.run(0.5)
    assert network.dialled == [(SIX, 0.0), (FOUR, 0.25)]
    assert dialling.host == FOUR
    assert dialling.failed == []  # it was not given its time, so nothing is said against it
    assert dialling.sessions == 1


def test_a_refusal_starts_the_next_attempt_at_once():
    network = Network({SIX: Server(refuses=True), FOUR: mute()})
    dialling = Dialling(network, SIX, FOUR)
    network.run(0.1)
    assert dialling.host == FOUR
    assert dialling.failed == [(SIX, "connection refused")]


def test_the_slower_of_two_still_wins_where_the_other_fails():
    network = Network({SIX: mute(), FOUR: Server(refuses=True)})
    network.latency[SIX] = 2.0
    dialling = Dialling(network, SIX, FOUR)
    network.run(3)
    assert dialling.host == SIX


def test_only_one_of_them_gets_a_session():
    network = Network({SIX: mute(), FOUR: mute(), SIX_TOO: mute()})
    network.latency.update({SIX: 0.6, FOUR: 0.351, SIX_TOO: 0.1})
    dialling = Dialling(network, SIX, FOUR, SIX_TOO)
    network.run(5)
    assert [host for host, _ in network.dialled] == [SIX, FOUR, SIX_TOO]
    assert dialling.sessions == len(dialling.connections) == 1
    assert sum(len(server.connections) for server in network.servers.values()) == 1


def test_where_all_are_silent_it_takes_little_longer_than_one():
    network = Network()
    dialling = Dialling(network, SIX, FOUR, FOUR_TOO)
    network.run(31)
    [failure] = dialling.failures
    assert failure.check(ConnectFailed)
    assert str(failure.value).count("no answer in time") == 3
    assert [address for address, _ in dialling.failed] == [SIX, FOUR, FOUR_TOO]
    assert network.getDelayedCalls() == []


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3, 29.0])
def test_dialling_that_is_given_up_leaves_nothing(after):
    network = Network()
    dialling = Dialling(network, SIX, FOUR)
    network.run(after)
    dialling.done.cancel()
    assert dialling.failures[0].check(CancelledError)
    network.run(60)
    assert network.getDelayedCalls() == []
    assert dialling.failed == []
    assert len(network.dialled) == (1 if after < 0.25 else 2)
