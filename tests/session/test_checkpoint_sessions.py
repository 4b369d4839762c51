"""CHECKPOINT on the server's side, beside the octets: one name in two sessions, and transactions that are complete."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from mailsuite.interfaces import SpoolFull
from mailsuite.spool.memory import MemorySpool
from tests.session.interrupted import RCPT, TEXT, WAYS, Server, broken_off, by_chunks, finish, say_until, stuffed

# --------------------------------------------------------------------------------------- two sessions


@pytest.mark.parametrize("way", ["data", "chunk"])
def test_later_session_has_the_name(way: str) -> None:
    """The client's side of the old connection is long gone, and here nobody knows yet."""
    server = Server()
    old = server.connect()
    old.offset()
    old.say(RCPT)
    parts = WAYS[way](TEXT)
    say_until(old, parts, sum(map(len, parts)) - 3)
    new = server.connect()
    offset = new.offset()
    assert offset > len(TEXT) // 2
    rest = b"".join(parts)[-3:]
    [answer] = old.say(rest)
    assert answer == b"451 4.4.2 The transaction goes on in another session"
    assert server.messages() == []
    new.say(RCPT)
    old.lose()
    assert finish(new, TEXT[offset:]).startswith(b"250")
    assert server.contents() == [TEXT]


def test_earlier_session_is_told_at_its_next_command() -> None:
    server = Server()
    broken_off(server)
    old = server.connect()
    offset = old.offset()
    new = server.connect()
    assert new.offset() == offset
    refusal = b"451 4.4.2 The transaction goes on in another session"
    assert old.say(RCPT + b"DATA\r\nRSET\r\n") == [refusal, refusal, b"250 2.0.0 Transaction reset"]
    assert finish(new, TEXT[offset:]).startswith(b"250")
    assert old.offset() == len(TEXT)


class SlowSpool(MemorySpool):
    """Answers when it is told to."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.gates: list[Deferred[None]] = []
        self.slow: set[str] = set()

    def resume(self, name: str) -> Any:
        return self._later("resume", lambda: super(SlowSpool, self).resume(name))

    def _commit(self, *arguments: Any) -> Any:
        return self._later("commit", lambda: super(SlowSpool, self)._commit(*arguments))

    def _later(self, what: str, do: Any) -> Any:
        if what not in self.slow:
            return do()
        gate: Deferred[None] = Deferred()
        self.gates.append(gate)
        done: Deferred[Any] = Deferred()  # a cancellation never stops what was asked for
        gate.addCallback(lambda _: do()).addCallbacks(done.callback, done.errback)
        return done


def slow_server(*slow: str) -> tuple[Server, SlowSpool]:
    server = Server()
    spool = SlowSpool(server.clock)
    server.spool = spool
    object.__setattr__(server.door, "spool", spool)
    spool.slow.update(slow)
    return server, spool


@pytest.mark.parametrize("lost", [False, True])
def test_later_session_waits_for_a_commit(lost: bool) -> None:
    server, spool = slow_server("commit")
    old = server.connect()
    old.offset()
    old.say(RCPT + b"DATA\r\n")
    assert old.say(stuffed(TEXT)) == []
    if lost:
        old.lose()
    new = server.connect()
    mail = b"MAIL FROM:<fred@example.org> TRANSID=<1@c>\r\n"
    assert new.say(mail) == []
    third = server.connect()
    assert third.say(mail) == []
    third.lose()
    spool.gates.pop().callback(None)
    [answer] = new.hear()
    assert answer == b"355 %d is the transaction offset" % len(TEXT)
    assert finish(new, b"", by_chunks(9)).startswith(b"250 2.0.0 Queued as ")
    assert server.contents() == [TEXT]
    assert len(server.door.checkpoints) == 0


def test_commit_that_fails_behind_a_lost_session_is_logged_and_begun_anew() -> None:
    server, spool = slow_server("commit")
    old = server.connect()
    old.offset()
    old.say(RCPT + b"DATA\r\n")
    old.say(stuffed(TEXT))
    old.lose()
    spool.failure = SpoolFull("no room")
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    spool.gates.pop().callback(None)
    globalLogPublisher.removeObserver(logged.append)
    assert [event["log_failure"].type for event in logged] == [SpoolFull]
    spool.failure = None
    assert server.connect().offset() == 0


def test_session_that_is_lost_while_it_looks_leaves_the_name() -> None:
    server, spool = slow_server("resume")
    old = server.connect()
    mail = b"MAIL FROM:<fred@example.org> TRANSID=<1@c>\r\n"
    assert old.say(mail) == []
    new = server.connect()
    assert new.say(mail) == []
    assert len(spool.gates) == 1  # never two that look
    old.lose()
    assert len(spool.gates) == 2
    for gate in spool.gates:
        gate.callback(None)
    assert new.side.wire.sent.endswith(b"250 2.1.0 Sender OK\r\n")
    new.lose()
    assert len(server.door.checkpoints) == 0


# ------------------------------------------------------------------------------------------ completed


def completed(server: Server) -> bytes:
    """A message was queued, and nobody has heard so; its id."""
    client = server.connect()
    client.offset()
    client.say(RCPT)
    answer = finish(client, TEXT)
    client.lose()
    return answer.split()[-1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("recipients", [b"", RCPT])
def test_complete_message_is_not_queued_twice(way: str, recipients: bytes) -> None:
    server = Server()
    queue_id = completed(server)
    client = server.connect()
    for _ in range(3):
        assert client.offset() == len(TEXT)
        if recipients:
            assert client.say(recipients) == [b"250 2.1.5 Recipient OK"]
        assert finish(client, b"", WAYS[way]) == b"250 2.0.0 Queued as " + queue_id
    assert server.contents() == [TEXT]
    assert server.logged[-1].endswith(f"for 1 recipient, {len(TEXT)} octets: was queued")


def test_others_need_another_transaction() -> None:
    server = Server()
    completed(server)
    client = server.connect()
    client.offset()
    assert client.say(b"RCPT TO:<bob@example.net>\r\nRCPT TO:<nobody@example.net>\r\n" + RCPT) == [
        b"452 4.5.3 The transaction is complete; this recipient needs another one",
        b"550 5.1.1 No such user here",
        b"250 2.1.5 Recipient OK",
    ]
    assert finish(client, b"").startswith(b"250")
    [message] = server.messages()
    assert len(message.recipients) == 1


@pytest.mark.parametrize("way", WAYS)
def test_octets_of_a_complete_message_are_refused(way: str) -> None:
    server = Server()
    completed(server)
    client = server.connect()
    client.offset()
    answers = [answer for part in WAYS[way](TEXT[:20] + b"\r\n") for answer in client.say(part)]
    assert b"554 5.5.0 The transaction is complete, no octet is missing" in answers
    assert server.contents() == [TEXT]
    client.say(b"RSET\r\n")
    assert client.offset() == len(TEXT)


def test_client_that_does_not_wait_for_the_offset_is_refused_for_now() -> None:
    server = Server()
    broken_off(server)
    size = b" SIZE=%d" % len(TEXT)
    client = server.connect()
    mail = b"MAIL FROM:<fred@example.org> TRANSID=<1@c>" + size + b"\r\n"
    *_, answer = client.say(mail + RCPT + b"BDAT %d LAST\r\n" % len(TEXT) + TEXT)
    assert answer == b"451 4.5.0 The content does not begin where the transaction was resumed"
    assert server.messages() == []
    *_, answer = client.say(b"RSET\r\n" + mail + RCPT + b"BDAT %d LAST\r\n" % len(TEXT) + TEXT)
    assert answer.startswith(b"250 2.0.0 Queued as ")
    assert server.contents() == [TEXT]


def test_quit_in_one_piece_with_the_end_says_nothing_of_it() -> None:
    """It was said before there was an answer: if that is lost, the client asks by the name what became of it."""
    server = Server()
    client = server.connect()
    client.offset(b"1@c")
    client.say(RCPT)
    [octets] = by_chunks(len(TEXT))(TEXT)
    # The answers to both of these are written before anything more is read.
    answers = client.say(octets + b"MAIL FROM:<fred@example.org> TRANSID=<2@c>\r\n" + RCPT)
    assert answers[0].startswith(b"250 2.0.0 Queued")
    answers = client.say(octets + b"QUIT\r\n")
    assert [answer[:3] for answer in answers] == [b"250", b"221"]
    again = server.connect()
    assert again.offset(b"1@c") == 0
    again.say(b"RSET\r\n")
    assert again.offset(b"2@c") == len(TEXT)


def test_quit_says_that_all_was_heard() -> None:
    server = Server()
    first = server.connect()
    other = server.connect()
    for client, transid in ((first, b"1@c"), (first, b"2@c"), (other, b"3@c")):
        client.offset(transid)
        client.say(RCPT)
        assert finish(client, TEXT).startswith(b"250")
    assert first.say(b"QUIT\r\n") == [b"221 2.0.0 Closing the channel"]
    again = server.connect()
    assert again.offset(b"3@c") == len(TEXT)
    again.say(b"RSET\r\n")
    for transid in (b"1@c", b"2@c"):
        assert again.offset(transid) == 0
        again.say(b"RSET\r\n")


def test_complete_message_is_forgotten_after_two_days() -> None:
    server = Server()
    completed(server)
    server.clock.advance(48 * 3600 + 1)
    assert server.connect().offset() == 0


def test_many_messages_in_one_group() -> None:
    server = Server()
    client = server.connect()
    said = b"".join(
        b"MAIL FROM:<fred@example.org> TRANSID=<%d@c>\r\n" % number + RCPT + b"BDAT %d LAST\r\n" % len(TEXT) + TEXT
        for number in range(200)
    )
    client.side.receive(said)
    while any(call.getTime() <= server.clock.seconds() for call in server.clock.getDelayedCalls()):
        server.clock.advance(0)
    answers = client.say(b"NOOP\r\n")
    assert sum(b" Queued as " in answer for answer in answers) == 200
    assert len(server.contents()) == 200
    client.lose()
    again = server.connect()
    for number in (0, 77, 199):
        assert again.offset(b"%d@c" % number) == len(TEXT)
        again.say(b"RSET\r\n")
