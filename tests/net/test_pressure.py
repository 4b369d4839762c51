"""Many events in a row, and more of everything than fits: no recursion, no starvation, no growth."""

import inspect

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsuite.net.conversation import EVENTS_IN_A_ROW, INPUT_BOUND
from mailsuite.wire.core import ConnectionClosed
from tests.net.support import Line, Side, echo, keeping, turn


def test_thousand_pipelined_commands_do_not_recurse():
    depths = []

    async def session(conversation):
        while True:
            event = await conversation.receive()
            depths.append(len(inspect.stack(0)))
            conversation.send(event.text + b"\n")

    side = Side(session)
    lines = b"".join(b"%d\n" % number for number in range(1000))
    side.receive(lines)
    side.clock.pump([0] * 100)
    assert side.wire.sent == lines
    assert max(depths) - min(depths) < 10


def test_session_that_never_waits_lets_the_reactor_have_its_turn():
    side = Side()
    side.receive(b"x\n" * 1000)
    first = len(side.wire.sent) // 2
    assert EVENTS_IN_A_ROW <= first < EVENTS_IN_A_ROW + 8
    turn(side.clock)
    assert first < len(side.wire.sent) // 2 <= 2 * (EVENTS_IN_A_ROW + 8)
    side.clock.pump([0] * 20)
    assert side.wire.sent == b"x\n" * 1000


def test_slow_steps_make_the_turn_come_earlier():
    clock = Clock()

    async def session(conversation):
        while True:
            event = await conversation.receive()
            clock.advance(0.005)
            conversation.send(event.text + b"\n")

    side = Side(session, clock=clock)
    side.receive(b"x\n" * 64)
    assert 8 <= len(side.wire.sent) // 2 < 24


def test_flood_that_the_core_answers_alone_lets_the_reactor_have_its_turn():
    side = Side()
    side.receive(b"?\n" * 1000)
    assert len(side.wire.sent) < 1000 * len(b"what?\n") // 4
    side.clock.pump([0] * 20)
    assert side.wire.sent == b"what?\n" * 1000


def test_octets_that_come_while_the_reactor_has_its_turn_keep_their_place():
    side = Side()
    side.receive(b"a\n" * 200)
    side.receive(b"b\n" * 5)
    side.clock.pump([0] * 10)
    assert side.wire.sent == b"a\n" * 200 + b"b\n" * 5


def test_connection_lost_during_the_reactors_turn_ends_the_session():
    kept = []
    side = Side(keeping(kept))
    side.receive(b"a\n" * 200)
    side.lose()
    assert isinstance(kept[-1], ConnectionClosed)
    assert side.clock.getDelayedCalls() == []


def test_session_that_only_drains_lets_the_reactor_have_its_turn():
    async def session(conversation):
        for _ in range(1000):
            conversation.send(b"x\n")
            await conversation.drain()

    side = Side(session)
    assert len(side.writes) < 2 * EVENTS_IN_A_ROW
    side.clock.pump([0] * 20)
    assert side.wire.sent == b"x\n" * 1000


# ---------------------------------------------------------------------------------------- pressure


def test_unparsed_input_past_the_bound_pauses_the_transport_until_it_is_used():
    gate = Deferred()

    async def session(conversation):
        event = await conversation.receive()
        await gate
        conversation.send(event.text + b"\n")
        return await echo(conversation)

    side = Side(session)
    side.receive(b"slow\n" + b"x\n" * (INPUT_BOUND // 2))
    assert side.wire.producerState == "producing"
    side.receive(b"x\n")
    assert side.wire.producerState == "paused"
    gate.callback(None)
    for _ in range(INPUT_BOUND):
        if side.wire.producerState == "producing":
            break
        turn(side.clock)
    # It reads on before all is used, so that network and work overlap.
    assert 0 < side.core.buffered < INPUT_BOUND // 2
    side.clock.pump([0] * 1000)
    assert len(side.wire.sent) == 5 + INPUT_BOUND + 2


def test_transport_is_resumed_when_what_is_there_is_not_enough():
    gate = Deferred()

    async def session(conversation):
        event = await conversation.receive()
        await gate
        conversation.send(event.text + b"\n")
        return await echo(conversation)

    side = Side(session)
    side.receive(b"slow\n" + b"x" * (INPUT_BOUND + 1))
    assert side.wire.producerState == "paused"
    gate.callback(None)
    assert side.wire.producerState == "producing"


def test_session_that_waits_for_input_is_never_cut_off_from_it():
    side = Side()
    side.receive(b"x" * (2 * INPUT_BOUND))
    assert side.wire.producerState == "producing"


def test_transport_is_not_resumed_after_the_peer_has_ended_its_side():
    gate = Deferred()

    async def session(conversation):
        await conversation.receive()
        await gate
        conversation.send(b"ok\n")
        return await echo(conversation)

    side = Side(session)
    side.receive(b"slow\n" + b"x\n" * INPUT_BOUND)
    assert side.wire.producerState == "paused"
    side.connection.readConnectionLost()
    gate.callback(None)
    side.clock.pump([0] * 1500)
    assert side.wire.sent.endswith(b"x\n")
    assert side.wire.producerState == "paused"


def test_drain_returns_at_once_while_there_is_room():
    done = []

    async def session(conversation):
        conversation.send(b"one\n")
        await conversation.drain()
        done.append(True)
        await conversation.receive()

    side = Side(session)
    assert done == [True]
    assert side.writes == [b"one\n"]


def test_drain_waits_until_the_transport_has_room():
    done = []

    async def session(conversation):
        await conversation.receive()
        conversation.send(b"one\n")
        await conversation.drain()
        done.append(True)

    side = Side(session)
    side.wire.has_room = False
    side.receive(b"go\n")
    assert done == []
    side.wire.make_room()
    assert done == [True]
    assert side.writes == [b"one\n"]


def test_peer_that_does_not_read_is_read_no_further():
    kept = []
    side = Side(keeping(kept))
    side.wire.producer.pauseProducing()
    side.receive(b"one\ntwo\n")
    assert kept == []
    side.wire.producer.resumeProducing()
    assert kept == [Line(b"one"), Line(b"two")]
