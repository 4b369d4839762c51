"""What follows a session on its connection, and how a connection is asked to end."""

import gc

from twisted.internet.defer import CancelledError, Deferred

from mailsuite.mail import replies
from mailsuite.session.handover import Handover
from mailsuite.wire.core import ConnectionClosed, Role
from tests.net.support import LineCore, Side, echo, failures_in


def test_handover_puts_a_fresh_pair_on_the_same_transport():
    seen = []

    async def second(conversation):
        seen.append(conversation.core)
        conversation.send(b"second\n")
        return await echo(conversation)

    fresh = LineCore()

    async def first(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        return Handover(fresh, second)

    side = Side(first)
    side.receive(b"switch\n")
    assert side.wire.sent == b"turn\nsecond\n"
    side.receive(b"hello\n")
    assert side.wire.sent == b"turn\nsecond\nhello\n"
    assert seen == [fresh]
    assert side.over == []


def test_octets_that_the_old_core_left_go_to_the_new_one():
    async def first(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        return Handover(LineCore(), echo)

    side = Side(first)
    side.receive(b"switch\none\ntwo\n")
    assert side.wire.sent == b"turn\none\ntwo\n"


def test_server_becomes_a_client_as_atrn_does():
    async def client(conversation):
        greeting = await conversation.receive()
        conversation.send(b"hello " + greeting.text + b"\n")
        await conversation.receive()

    async def server(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        return Handover(LineCore(Role.CLIENT), client)

    side = Side(server)
    side.receive(b"atrn\n")
    side.receive(b"220\n")
    assert side.wire.sent == b"turn\nhello 220\n"
    side.receive(b"250\n")
    assert side.is_closing


def test_end_of_the_peers_side_outlasts_a_handover():
    gate = Deferred()

    async def first(conversation):
        await conversation.receive()
        await gate
        conversation.send(b"turn\n")
        return Handover(LineCore(), echo)

    side = Side(first)
    side.receive(b"switch\none\n")
    side.connection.readConnectionLost()
    gate.callback(None)
    assert side.wire.sent == b"turn\none\n"
    assert side.is_closing


def test_handover_of_a_session_whose_connection_is_gone_begins_nothing():
    begun = []
    gate = Deferred()

    async def second(conversation):
        begun.append(True)

    async def first(conversation):
        try:
            await gate
        except CancelledError:
            return Handover(LineCore(), second)

    side = Side(first)
    side.lose()
    assert begun == []
    assert isinstance(side.over[0], ConnectionClosed)


def test_handover_after_the_end_was_told_begins_nothing():
    begun = []

    async def second(conversation):
        begun.append(True)

    async def first(conversation):
        try:
            return await echo(conversation)
        except ConnectionClosed:
            return Handover(LineCore(), second)

    side = Side(first)
    side.receive(b"exit\n")
    assert begun == []
    assert side.is_closing


def test_turning_around_a_thousand_times_grows_nothing():
    turns = []

    async def session(conversation):
        event = await conversation.receive()
        turns.append(event.text)
        conversation.send(b"turn\n")
        return Handover(LineCore(), session)

    side = Side(session)
    side.receive(b"x\n" * 1000)
    side.clock.pump([0] * 50)
    assert len(turns) == 1000
    gc.collect()
    assert sum(isinstance(one, LineCore) for one in gc.get_objects()) < 10


def test_sessions_that_hand_over_without_waiting_do_not_recurse():
    left = [5000]

    async def session(conversation):
        left[0] -= 1
        if left[0]:
            return Handover(LineCore(), session)
        return await echo(conversation)

    side = Side(session)
    side.receive(b"one\n")
    assert left == [0]
    assert side.wire.sent == b"one\n"


def test_handover_that_cannot_be_done_is_logged_and_aborts(logged):
    class Broken(LineCore):
        def receive_data(self, data):
            raise ZeroDivisionError("a defect")

    async def session(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        return Handover(Broken(), echo)

    side = Side(session)
    side.receive(b"switch\nmore\n")
    assert side.wire.disconnected
    assert [type(error) for error in failures_in(logged)] == [ZeroDivisionError]
    side.lose()
    assert isinstance(side.over[0], ZeroDivisionError)


# ------------------------------------------------------------------------------------------ shutdown


def test_shutdown_says_421_at_once_to_a_peer_whose_command_is_waited_for():
    side = Side()
    side.receive(b"one\n")
    side.connection.shutdown(replies.SHUTTING_DOWN)
    assert side.writes == [b"one\n", replies.SHUTTING_DOWN.encoded]
    assert side.is_closing
    side.lose()
    assert isinstance(side.over[0], ConnectionClosed)


def test_shutdown_lets_a_session_finish_what_it_is_doing():
    gate = Deferred()

    async def session(conversation):
        await conversation.receive()
        await gate
        conversation.send(b"queued\n")
        await conversation.receive()

    side = Side(session)
    side.receive(b"end of data\n")
    side.connection.shutdown(replies.SHUTTING_DOWN)
    assert not side.is_closing
    gate.callback(None)
    assert side.wire.sent == b"queued\n" + replies.SHUTTING_DOWN.encoded
    assert side.is_closing


def test_shutdown_waits_for_content_that_is_under_way():
    side = Side()
    side.receive(b"data 10\n")
    side.connection.shutdown(replies.SHUTTING_DOWN)
    assert not side.is_closing
    side.receive(b"0123456789")
    assert side.wire.sent == b"data 10\n" + replies.SHUTTING_DOWN.encoded
    assert side.is_closing


def test_shutdown_in_the_clients_role_leaves_the_session_alone():
    side = Side(echo, LineCore(Role.CLIENT))
    side.connection.shutdown(replies.SHUTTING_DOWN)
    assert side.writes == []
    assert not side.is_closing
