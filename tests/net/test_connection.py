"""The life of sessions on a connection: how they end, what follows them, what a lost transport does to them."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer

from mailsuite.mail import replies
from mailsuite.net.timeouts import Timeouts
from mailsuite.wire.core import (
    ConnectionClosed,
    PeerTooSlow,
    RemoteProtocolError,
    Role,
)
from tests.net.support import LineCore, Side, failures_in


def test_connection_provides_what_transports_look_for():
    side = Side()
    assert IHalfCloseableProtocol.providedBy(side.connection)
    assert IPushProducer.providedBy(side.connection)
    assert side.wire.producer is side.connection
    assert side.wire.streaming


def test_session_that_returns_closes_the_connection_after_its_last_words():
    side = Side()
    side.receive(b"one\nquit\n")
    assert side.writes == [b"one\nquit\n"]
    assert side.is_closing
    assert side.over == []
    side.lose()
    assert side.over == [None]
    assert side.clock.getDelayedCalls() == []


def test_finished_can_be_asked_later_and_more_than_once():
    side = Side()
    again = []
    side.connection.finished().addCallback(again.append)
    side.receive(b"quit\n")
    side.lose()
    side.connection.finished().addCallback(again.append)
    assert again == [None, None]


def test_peer_that_does_not_read_our_last_words_is_aborted():
    side = Side(timeouts=Timeouts(closing=30))
    side.receive(b"quit\n")
    side.clock.advance(29)
    assert not side.wire.disconnected
    side.clock.advance(1)
    assert side.wire.disconnected


def test_octets_that_come_after_the_end_are_not_looked_at():
    side = Side()
    side.receive(b"quit\n")
    calls = side.core.calls
    side.receive(b"more\n")
    assert side.core.calls == calls
    assert side.core.buffered == 0


# ------------------------------------------------------------------------------- a lost connection


def test_session_that_waits_for_the_peer_is_told_of_the_loss():
    kept = []

    async def session(conversation):
        try:
            await conversation.receive()
        except ConnectionClosed as error:
            kept.append(error)
            raise

    side = Side(session)
    side.lose(ConnectionLost("reset"))
    assert str(kept[0]) == "the line broke"
    assert side.over == kept
    assert side.clock.getDelayedCalls() == []


def test_session_that_waits_for_room_is_told_of_the_loss():
    kept = []

    async def session(conversation):
        await conversation.receive()
        conversation.send(b"content")
        try:
            await conversation.drain()
        except ConnectionClosed:
            kept.append("told")
            raise

    side = Side(session)
    side.wire.has_room = False
    side.receive(b"go\n")
    side.lose()
    assert kept == ["told"]


def test_session_that_waits_elsewhere_is_cancelled(logged):
    kept = []

    async def session(conversation):
        await conversation.receive()
        try:
            await Deferred()
        except CancelledError:
            kept.append("cancelled")
            raise
        finally:
            kept.append("leases back")

    side = Side(session)
    side.receive(b"one\n")
    side.lose()
    assert kept == ["cancelled", "leases back"]
    assert isinstance(side.over[0], ConnectionClosed)
    assert failures_in(logged) == []


def test_cancelled_session_may_take_its_time_to_clean_up():
    cleaned = Deferred()

    async def session(conversation):
        try:
            await Deferred()
        finally:
            await cleaned

    side = Side(session)
    side.lose()
    assert side.over == []
    cleaned.callback(None)
    assert isinstance(side.over[0], ConnectionClosed)


def test_session_that_was_told_is_not_cancelled_while_it_cleans_up():
    cleaned, kept = Deferred(), []

    async def session(conversation):
        try:
            await conversation.receive()
        finally:
            await cleaned
            kept.append("leases back")

    side = Side(session)
    side.lose()
    assert kept == []
    cleaned.callback(None)
    assert kept == ["leases back"]
    assert len(side.over) == 1


def test_session_that_goes_on_after_the_loss_is_told_again_and_may_speak_into_the_void():
    kept = []

    async def session(conversation):
        with pytest.raises(CancelledError):
            await Deferred()
        conversation.send(b"anyone\n")
        for method in (conversation.receive, conversation.drain):
            with pytest.raises(ConnectionClosed):
                await method()
            kept.append(method.__name__)

    side = Side(session)
    side.lose()
    assert kept == ["receive", "drain"]
    assert side.writes == []
    assert side.over == [None]


def test_connection_lost_within_a_write_reaches_the_session_at_its_wait():
    kept = []

    async def session(conversation):
        await conversation.receive()
        conversation.send(b"one\n")
        try:
            await conversation.receive()
        except ConnectionClosed:
            kept.append("told")
            raise

    side = Side(session)
    side.wire.write = lambda _data: side.lose()
    side.receive(b"go\n")
    assert kept == ["told"]
    assert len(side.over) == 1


def test_connection_lost_within_a_drain_reaches_the_session_there():
    kept = []

    async def session(conversation):
        await conversation.receive()
        conversation.send(b"one\n")
        try:
            await conversation.drain()
        except ConnectionClosed:
            kept.append("told")

    side = Side(session)
    side.wire.write = lambda _data: side.lose()
    side.receive(b"go\n")
    assert kept == ["told"]


def test_owner_may_abort():
    side = Side()
    side.connection.abort()
    assert side.wire.disconnected
    side.lose()
    assert isinstance(side.over[0], ConnectionClosed)


# -------------------------------------------------------------------------- exceptions out of sessions


def test_exception_out_of_a_servers_session_is_logged_and_answered_by_421(logged):
    async def session(conversation):
        await conversation.receive()
        raise ZeroDivisionError("a defect")

    side = Side(session)
    side.receive(b"one\n")
    assert side.writes == [replies.SESSION_FAILED.encoded]
    assert side.is_closing
    assert [type(error) for error in failures_in(logged)] == [ZeroDivisionError]
    side.lose()
    assert isinstance(side.over[0], ZeroDivisionError)


def test_session_that_cannot_even_begin_is_answered_by_421(logged):
    def session(conversation):
        raise ZeroDivisionError("a defect")

    side = Side(session)
    assert side.writes == [replies.SESSION_FAILED.encoded]
    assert len(failures_in(logged)) == 1


def test_exception_where_the_core_can_say_nothing_more_just_closes(logged):
    async def session(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        raise ZeroDivisionError("a defect")

    side = Side(session)
    side.receive(b"one\n")
    assert side.writes == [b"turn\n"]
    assert side.is_closing


def test_exception_out_of_a_clients_session_says_nothing_to_the_peer(logged):
    async def session(conversation):
        await conversation.receive()
        raise ZeroDivisionError("a defect")

    side = Side(session, LineCore(Role.CLIENT))
    side.receive(b"220\n")
    assert side.writes == []
    assert side.is_closing
    assert len(failures_in(logged)) == 1


def test_slow_peer_is_told_so_where_the_session_does_not(logged):
    side = Side(timeouts=Timeouts(command=300))
    side.clock.advance(300)
    assert side.writes == [replies.TOO_SLOW.encoded]
    assert side.is_closing
    side.lose()
    assert isinstance(side.over[0], PeerTooSlow)
    assert failures_in(logged) == []


@pytest.mark.parametrize("text", [b"%\n", b"exit\n"])
def test_what_the_peer_did_wrong_is_no_failure_of_ours(text, logged):
    side = Side()
    side.receive(text)
    side.lose()
    assert isinstance(side.over[0], (RemoteProtocolError, ConnectionClosed))
    assert failures_in(logged) == []
