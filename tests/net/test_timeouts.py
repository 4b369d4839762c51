"""How long we wait for a peer."""

from twisted.internet.defer import Deferred

from mailsuite.net.timeouts import Timeouts
from mailsuite.wire.core import PeerTooSlow, Phase, Role
from tests.net.support import Chunk, Line, LineCore, Side, echo, keeping


def test_every_phase_has_the_limit_of_rfc_5321():
    seconds = {phase: Timeouts().limit(phase) for phase in Phase}
    assert seconds == {
        Phase.GREETING: 300,
        Phase.COMMAND: 300,
        Phase.RESPONSE: 300,
        Phase.MAIL: 300,
        Phase.RECIPIENT: 300,
        Phase.DATA_INITIATION: 120,
        Phase.DATA_BLOCK: 180,
        Phase.DATA_TERMINATION: 600,
        Phase.TURN: 600,  # RFC 2645 section 5.2.1
        Phase.QUIT: 10,
        Phase.WORKING: None,
    }


def test_command_must_be_whole_within_its_limit_however_its_octets_trickle():
    kept = []
    side = Side(keeping(kept), timeouts=Timeouts(command=300))
    for _ in range(29):
        side.clock.advance(10)
        side.receive(b"x")
    assert kept == []
    side.clock.advance(10)
    assert isinstance(kept[0], PeerTooSlow)
    assert kept[0].phase is Phase.COMMAND


def test_each_command_has_its_own_limit():
    kept = []
    side = Side(keeping(kept), timeouts=Timeouts(command=300))
    for _ in range(5):
        side.clock.advance(299)
        side.receive(b"x\n")
    assert kept == [Line(b"x")] * 5


def test_command_that_the_core_answers_begins_the_wait_anew():
    kept = []
    side = Side(keeping(kept), timeouts=Timeouts(command=300))
    for _ in range(5):
        side.clock.advance(299)
        side.receive(b"?\n")
    assert kept == []
    side.clock.advance(300)
    assert isinstance(kept[0], PeerTooSlow)


def test_our_own_time_is_never_counted():
    gate = Deferred()

    async def session(conversation):
        event = await conversation.receive()
        await gate
        conversation.send(event.text + b"\n")
        return await echo(conversation)

    side = Side(session)
    side.receive(b"one\n")
    side.clock.pump([1000] * 10)
    gate.callback(None)
    assert side.writes == [b"one\n"]
    side.clock.pump([20] * 14)
    side.receive(b"two\n")
    assert side.writes == [b"one\n", b"two\n"]


def test_content_that_stops_is_too_slow():
    kept = []
    side = Side(keeping(kept), timeouts=Timeouts(data_block=180))
    side.receive(b"data 1000000\n" + b"x" * 50000)
    side.clock.advance(100)
    side.receive(b"x" * 50000)
    side.clock.advance(179)
    assert isinstance(kept[-1], Chunk)
    side.clock.advance(2)
    assert isinstance(kept[-1], PeerTooSlow)
    assert kept[-1].phase is Phase.DATA_BLOCK


def test_content_that_trickles_is_too_slow():
    kept = []
    side = Side(keeping(kept), timeouts=Timeouts(data_block=180, minimum_rate=100))
    side.receive(b"data 1000000\n")
    for _ in range(179):
        side.clock.advance(1)
        side.receive(b"x" * 99)
    assert isinstance(kept[-1], Chunk)
    side.clock.advance(1)
    assert isinstance(kept[-1], PeerTooSlow)


def test_content_at_the_minimum_rate_may_take_as_long_as_it_takes():
    kept = []
    side = Side(keeping(kept), timeouts=Timeouts(data_block=180, minimum_rate=100))
    side.receive(b"data 1000000\n")
    for _ in range(2000):
        side.clock.advance(1)
        side.receive(b"x" * 101)
    assert all(isinstance(event, (Line, Chunk)) for event in kept)


def test_peer_that_does_not_take_content_is_too_slow_at_drain():
    kept = []

    async def session(conversation):
        await conversation.receive()
        conversation.send(b"content")
        try:
            await conversation.drain()
        except PeerTooSlow as error:
            kept.append(error.phase)

    side = Side(session, timeouts=Timeouts(data_block=180))
    side.wire.has_room = False
    side.receive(b"go\n")
    side.clock.advance(179)
    assert kept == []
    side.clock.advance(1)
    assert kept == [Phase.DATA_BLOCK]
    assert side.is_closing


def test_rate_of_content_says_nothing_of_a_peer_that_takes():
    kept = []

    async def session(conversation):
        while True:
            conversation.send(b"content")
            try:
                await conversation.drain()
            except PeerTooSlow as error:
                kept.append(error.phase)
                return

    side = Side(session, LineCore(Role.CLIENT), timeouts=Timeouts(data_block=180))
    side.wire.has_room = False
    for _ in range(10):
        side.clock.advance(100)
        side.wire.producer.resumeProducing()
    assert kept == []


def test_content_in_many_pieces_may_take_as_long_as_each_is_answered_in_time():
    class Core(LineCore):
        timeout = Phase.DATA_BLOCK

    kept = []
    side = Side(keeping(kept, answer=False), Core(Role.CLIENT), timeouts=Timeouts(data_block=180))
    for _ in range(10):
        side.clock.advance(100)
        side.receive(b"250\n")
    assert kept == [Line(b"250")] * 10
    side.clock.advance(180)
    assert isinstance(kept[-1], PeerTooSlow)


def test_client_waits_for_a_response_as_long_as_it_may_take():
    kept = []
    side = Side(keeping(kept, answer=False), LineCore(Role.CLIENT), timeouts=Timeouts(response=300))
    side.clock.advance(299)
    side.receive(b"250\n")
    assert kept == [Line(b"250")]
    side.clock.advance(300)
    assert isinstance(kept[1], PeerTooSlow)
    assert kept[1].phase is Phase.RESPONSE


def test_wait_costs_no_delayed_call_of_its_own():
    side = Side()
    before = side.clock.getDelayedCalls()
    for _ in range(50):
        side.clock.advance(1)
        side.receive(b"x\n")
    assert side.clock.getDelayedCalls() == before
