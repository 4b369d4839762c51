"""How events reach a session, and what it says reaches the peer."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from mailsuite.interfaces import IConversation
from mailsuite.mail.session import Peer
from mailsuite.wire.core import ConnectionClosed, LocalProtocolError, Phase, RemoteProtocolError, Role
from tests.net.support import Line, LineCore, Side, echo, keeping


def test_conversation_provides_its_interface():
    side = Side()
    assert verifyObject(IConversation, side.conversation)
    assert side.conversation.peer == Peer("192.0.2.1", 54321)
    assert side.conversation.local == Peer("10.0.0.1", 25)
    assert side.conversation.tls is None
    assert side.conversation.core is side.core


def test_session_starts_with_the_connection_and_its_greeting_is_written():
    async def session(conversation):
        conversation.send(b"welcome\n")
        return await echo(conversation)

    assert Side(session).writes == [b"welcome\n"]


def test_event_in_pieces_is_one_event():
    side = Side()
    for octet in b"hello\n":
        side.receive(bytes([octet]))
    assert side.writes == [b"hello\n"]


def test_replies_to_a_pipelined_group_leave_in_one_write():
    side = Side()
    side.receive(b"one\ntwo\n?bad\nthree\n")
    assert side.writes == [b"one\ntwo\nwhat?\nthree\n"]


def test_answers_of_the_core_keep_their_place_among_the_replies_of_a_slow_session():
    gate = Deferred()

    async def session(conversation):
        event = await conversation.receive()
        await gate
        conversation.send(event.text + b"\n")
        return await echo(conversation)

    side = Side(session)
    side.receive(b"slow\n?bad\nquick\n")
    assert side.writes == []
    gate.callback(None)
    assert side.writes == [b"slow\nwhat?\nquick\n"]


def test_nothing_is_written_while_the_session_waits_for_something_else():
    gate = Deferred()

    async def session(conversation):
        first = await conversation.receive()
        conversation.send(first.text + b"\n")
        await conversation.receive()
        await gate
        conversation.send(b"at last\n")
        await conversation.receive()

    side = Side(session)
    side.receive(b"one\ntwo\n")
    assert side.writes == []
    gate.callback(None)
    assert side.writes == [b"one\nat last\n"]


def test_answer_of_the_core_alone_is_written_without_the_session():
    side = Side()
    side.receive(b"?\n")
    side.receive(b"?\n")
    assert side.writes == [b"what?\n", b"what?\n"]


def test_closing_answer_ends_the_connection_after_what_came_before_it():
    kept = []
    side = Side(keeping(kept))
    side.receive(b"one\nexit\ntwo\n")
    assert side.writes == [b"one\ngone\n"]
    assert side.is_closing
    assert kept[0] == Line(b"one")
    assert isinstance(kept[1], ConnectionClosed)
    assert len(kept) == 2


def test_violation_is_raised_in_the_session():
    kept = []
    side = Side(keeping(kept))
    side.receive(b"one\n%\n")
    assert isinstance(kept[1], RemoteProtocolError)
    assert str(kept[1]) == "a percent sign"
    assert side.writes == [b"one\n"]
    assert side.is_closing


def test_waiting_before_answering_is_our_own_fault():
    kept = []
    side = Side(keeping(kept, answer=False))
    side.receive(b"one\n")
    assert isinstance(kept[1], LocalProtocolError)
    assert side.is_closing


def test_session_may_cancel_its_own_wait_and_wait_again():
    kept = []

    async def session(conversation):
        wait = Deferred.fromCoroutine(conversation.receive())
        wait.cancel()
        with pytest.raises(CancelledError):
            await wait
        kept.append(await conversation.receive())

    side = Side(session)
    side.receive(b"one\n")
    assert kept == [Line(b"one")]
    assert side.over == []


# ------------------------------------------------------------------------------------- half-closed


def test_client_that_ends_its_side_behind_a_whole_session_gets_all_replies():
    side = Side()
    side.receive(b"one\ntwo\nquit\n")
    side.connection.readConnectionLost()
    assert side.writes == [b"one\ntwo\nquit\n"]
    assert side.is_closing


def test_what_was_said_before_the_end_is_answered_by_a_slow_session_too():
    kept, gates = [], []

    async def session(conversation):
        while True:
            try:
                event = await conversation.receive()
            except ConnectionClosed:
                kept.append("closed")
                raise
            gates.append(Deferred())
            await gates[-1]
            conversation.send(event.text + b"\n")

    side = Side(session)
    side.receive(b"one\ntwo\n")
    side.connection.readConnectionLost()
    assert kept == []
    gates[0].callback(None)
    gates[1].callback(None)
    assert side.writes == [b"one\ntwo\n"]
    assert kept == ["closed"]
    assert side.is_closing


def test_end_of_the_peers_side_while_waiting_closes():
    kept = []
    side = Side(keeping(kept))
    side.connection.readConnectionLost()
    assert isinstance(kept[0], ConnectionClosed)
    assert side.is_closing


def test_a_client_still_hears_what_the_server_said_before_the_connection_was_lost():
    gate, kept = Deferred(), []

    async def session(conversation):
        await conversation.receive()
        try:
            await gate
        except CancelledError:
            kept.append((await conversation.receive()).text)
            with pytest.raises(ConnectionClosed):
                await conversation.receive()
            kept.append("and no more")

    side = Side(session, LineCore(Role.CLIENT))
    side.receive(b"hello\n250 yours\n")
    side.lose()
    assert kept == [b"250 yours", "and no more"]


def test_a_client_that_pauses_for_breath_still_hears_the_last_words():
    kept = []
    side = Side(keeping(kept, answer=False), LineCore(Role.CLIENT))
    side.receive(b"line\n" * 5000)
    heard = len(kept)
    assert heard < 5000
    side.lose()
    assert [event.text for event in kept[:-1]] == [b"line"] * 5000
    assert isinstance(kept[-1], ConnectionClosed)


def test_a_server_answers_nobody_who_has_gone():
    gate, kept = Deferred(), []

    async def session(conversation):
        kept.append((await conversation.receive()).text)
        try:
            await gate
        except CancelledError:
            conversation.send(b"one\n")
            with pytest.raises(ConnectionClosed):
                await conversation.receive()

    side = Side(session)
    side.receive(b"one\ntwo\n")
    side.lose()
    assert kept == [b"one"]


@pytest.mark.parametrize("lines", range(95, 112))
def test_a_client_that_paused_for_breath_and_found_nothing_hears_what_comes_later(lines):
    kept = []
    side = Side(keeping(kept, answer=False), LineCore(Role.CLIENT))
    side.receive(b"250\n" * lines)  # the pause falls behind the last of them for one of these numbers
    side.clock.advance(0)
    side.receive(b"later\n")
    side.clock.advance(0)
    assert kept == [Line(b"250")] * lines + [Line(b"later")]


def test_a_session_that_waited_for_room_and_then_for_input_hears_what_comes():
    class Core(LineCore):
        timeout = Phase.DATA_BLOCK

    kept = []

    async def session(conversation):
        while True:
            conversation.send(b"content")
            kept.append(await conversation.receive())

    side = Side(session, Core(Role.CLIENT))
    side.receive(b"one\n")
    side.wire.producer.pauseProducing()
    side.receive(b"two\n")
    side.wire.producer.resumeProducing()
    side.receive(b"three\n")
    side.clock.advance(0)
    assert kept == [Line(b"one"), Line(b"two"), Line(b"three")]
