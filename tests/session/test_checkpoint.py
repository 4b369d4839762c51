"""CHECKPOINT on the server's side (RFC 1845): what came before the line broke stays, and is not asked for again."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.logger import globalLogPublisher

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.mail import replies
from mailsuite.spool.memory import MemorySpool
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.offer import Offer
from tests.session.interrupted import HOST, Client, Server, stuffed

RCPT = b"RCPT TO:<anna@example.net>\r\n"
TEXT = b"Subject: a\r\nTo: anna\r\n\r\n.one\r\n..\r\n.\r\n\r\ntwo.\r\n" + b"x" * 40 + b"\r\n.end\r\n"
OCTETS = b"A: b\r\n\r\n\n\r\r\n\x00.\r\n.\r\n\xff\nQUIT\r\n\r\r\n\n\nend"


def by_data(content: bytes) -> list[bytes]:
    """DATA and its content."""
    return [b"DATA\r\n", stuffed(content)]


def by_chunks(size: int) -> Any:
    def chunks(content: bytes) -> list[bytes]:
        pieces = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
        return [
            b"BDAT %d%s\r\n%s" % (len(piece), b" LAST" if number == len(pieces) else b"", piece)
            for number, piece in enumerate(pieces, 1)
        ]

    return chunks


def say_until(client: Client, parts: list[bytes], octets: int) -> None:
    """Say so many octets of it."""
    for part in parts:
        if octets > 0:
            client.say(part[:octets])
        octets -= len(part)


def finish(client: Client, content: bytes, way: Any = by_data) -> bytes:
    """Say the rest; the last answer."""
    answer = b""
    for part in way(content):
        *_, answer = client.say(part)
    return answer


def broken_off(server: Server, content: bytes = TEXT, said: int | None = None, way: Any = None) -> None:
    """A connection that is lost when the content has been said but for its last octet."""
    client = server.connect()
    assert client.offset() == 0
    client.say(RCPT)
    parts = (way or by_chunks(10_000))(content)
    say_until(client, parts, sum(map(len, parts)) - 1 if said is None else said)
    client.lose()


WAYS = {"data": by_data, "chunk": by_chunks(10_000), "chunks": by_chunks(7)}


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize(("first", "content"), [("data", TEXT), ("chunk", TEXT), ("chunk", OCTETS), ("chunks", OCTETS)])
def test_line_may_break_at_every_octet(first: str, second: str, content: bytes) -> None:
    if content == OCTETS and second == "data":
        second = "chunks"
    parts = WAYS[first](content)
    offsets = set()
    for said in range(sum(map(len, parts)) + 1):
        server = Server()
        broken_off(server, content, said, WAYS[first])
        again = server.connect()
        offset = again.offset()
        offsets.add(offset)
        assert content[:offset].endswith(b"\r\n") or offset in {0, len(content)}
        assert again.say(RCPT) == [b"250 2.1.5 Recipient OK"]
        assert finish(again, content[offset:], WAYS[second]).startswith(b"250 2.0.0 Queued as ")
        assert server.contents() == [content], said
        assert len(server.door.checkpoints) == 0
    assert len(offsets) > 4  # where lines end, behind the header
    assert len(content) in offsets  # whole, and the answer was lost


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 400), max_size=8), st.sampled_from(list(WAYS)))
def test_line_that_breaks_again_and_again(chance: random.Random, breaks: list[int], last: str) -> None:
    server = Server()
    content = (
        b"A: b\r\n\r\n" + b"".join(chance.choice([b"\r\n", b".", b"x" * 50, b"..\r\n"]) for _ in range(60)) + b"\r\n"
    )
    known = 0
    for said in breaks:
        client = server.connect()
        offset = client.offset()
        assert offset >= known  # nothing that was kept is lost by a further break
        known = offset
        if chance.random() < 0.5 or not known:
            client.say(RCPT)
        say_until(client, WAYS[chance.choice(list(WAYS))](content[offset:]), said)
        client.lose()
        if chance.random() < 0.3:
            server.spool.stop()
            server.spool.start()
    client = server.connect()
    offset = client.offset()
    client.say(RCPT)
    assert finish(client, content[offset:], WAYS[last]).startswith(b"250 2.0.0 Queued as ")
    assert server.contents() == [content]


def test_octets_that_were_altered_do_not_count() -> None:
    said = b"A: b\r\n\r\none\r\ntwo\r\nthree\nfour\r\nfive\r\n"
    whole = said.replace(b"three\n", b"three\r\n")
    for octets in range(len(said) + 9):
        server = Server()
        broken_off(server, said, octets, by_data)
        client = server.connect()
        offset = client.offset()
        assert offset <= said.index(b"three")
        client.say(RCPT)
        finish(client, said[offset:])
        assert whole in server.contents()


def test_altered_message_is_not_known_as_complete() -> None:
    server = Server()
    client = server.connect()
    client.offset()
    client.say(RCPT)
    assert finish(client, b"A: b\r\n\r\none\ntwo\r\n").startswith(b"250")
    assert server.connect().offset() == 0


def test_what_we_add_does_not_count() -> None:
    """RFC 6409 section 8: a submission server adds fields, once, and they are none of the peer's octets."""
    server = Server(submission=True)
    for said in range(20, len(TEXT), 7):
        broken_off(server, TEXT, said)
        client = server.connect()
        offset = client.offset()
        client.say(RCPT)
        assert finish(client, TEXT[offset:]).startswith(b"250")
        client.say(b"QUIT\r\n")
        [message] = server.messages()
        stored = message.content.in_memory()
        assert stored.endswith(TEXT)
        assert [stored.count(name) for name in (b"Received:", b"\r\nDate:", b"\r\nMessage-ID:")] == [1, 1, 1]


def test_client_of_the_rfc_says_no_recipient_again() -> None:
    # RFC 1845 section 5
    server = Server()
    broken_off(server)
    client = server.connect()
    offset = client.offset()
    assert offset > 0
    assert client.say(b"DATA\r\n") == [b"354 End data with <CR><LF>.<CR><LF>"]
    [answer] = client.say(stuffed(TEXT[offset:]))
    assert answer.startswith(b"250 2.0.0 Queued as ")
    [message] = server.messages()
    assert [str(one.address) for one in message.recipients] == ["anna@example.net"]
    assert server.contents() == []


def test_recipients_are_those_of_before_and_those_that_are_added() -> None:
    server = Server()
    client = server.connect()
    client.offset()
    client.say(RCPT + b"RCPT TO:<bob@example.net>\r\n")
    say_until(client, by_chunks(1000)(TEXT), len(TEXT))
    client.lose()
    again = server.connect()
    offset = again.offset()
    server.router.asked.clear()
    assert again.say(
        b"RCPT TO:<bob@example.NET>\r\nRCPT TO:<chris@example.net>\r\nRCPT TO:<nobody@example.net>\r\n"
    ) == [
        b"250 2.1.5 Recipient OK",
        b"250 2.1.5 Recipient OK",
        b"550 5.1.1 No such user here",
    ]
    assert [one.local_part for one in server.router.asked] == ["chris", "nobody"]
    finish(again, TEXT[offset:])
    [message] = server.messages()
    assert sorted(one.address.local_part for one in message.recipients) == ["anna", "bob", "chris"]


# ------------------------------------------------------------------------------------ whose it is


def test_nobody_else_has_the_name() -> None:
    server = Server()
    broken_off(server)
    assert server.connect(host="192.0.2.2").offset() == 0
    assert server.connect(b"other.example.org").offset() == 0
    known = server.connect()
    assert known.say(b"AUTH PLAIN AGZyZWQAc2VjcmV0\r\n") == [b"235 2.7.0 Authentication succeeded"]
    assert known.offset() == 0
    assert server.connect().offset(b"1@C") == 0  # RFC 1845 section 2: "This value is case-sensitive"
    assert server.connect(b"CLIENT.example.org").offset() > 0


def test_who_has_logged_in_may_come_from_anywhere() -> None:
    server = Server()
    client = server.connect()
    for login in (b"AGZyZWQAc2VjcmV0", b"AHNoaXAAc2VjcmV0"):  # fred, an account; ship, a customer
        client = server.connect()
        client.say(b"AUTH PLAIN " + login + b"\r\n")
        client.offset()
        client.say(RCPT)
        client.say(b"BDAT 1000\r\n" + TEXT)
        client.lose()
        client = server.connect(b"[192.0.2.99]", host="2001:db8::7")
        client.say(b"AUTH PLAIN " + login + b"\r\n")
        assert client.offset() == len(TEXT)


def test_peer_of_a_turned_connection_is_known_by_its_label() -> None:
    server = Server()
    door = server.door
    server.door = door.for_turn(frozenset({"example.net"}), "odmr.example.com")
    broken_off(server)
    server.door = door.for_turn(frozenset({"example.net"}), "other.example.com")
    assert server.connect().offset() == 0
    server.door = door.for_turn(frozenset({"example.net"}), "odmr.example.com")
    assert server.connect(b"elsewhere.example", host="192.0.2.200").offset() > 0
    server.door = door.for_turn(frozenset({"example.org"}), "odmr.example.com")
    assert server.connect().offset() == 0  # that is no domain of this turn


@pytest.mark.parametrize("complete", [False, True])
def test_transaction_with_another_envelope_is_another_one(complete: bool) -> None:
    server = Server()
    broken_off(server, said=10_000 if complete else None)
    assert server.connect().begin(sender=b"other@example.org") == b"250 2.1.0 Sender OK"
    assert (server.connect().offset() > 0) is complete


# ---------------------------------------------------------------------------------- what is not kept


@pytest.mark.parametrize("said", [b"RSET\r\n", b"EHLO client.example.org\r\n", b"QUIT\r\n"])
def test_transaction_that_was_given_up_is_forgotten(said: bytes) -> None:
    # RFC 1845 section 3: the client "explicitly aborts the transaction ... or requests that the connection be closed"
    server = Server()
    broken_off(server)
    client = server.connect()
    assert client.offset() > 0
    client.say(said)
    client.lose()
    assert server.connect().offset() == 0


def test_few_octets_are_not_worth_keeping() -> None:
    server = Server(worth_keeping=60)
    broken_off(server, TEXT[:60] + b"\r\n")
    assert server.connect().offset() == 0
    broken_off(server, TEXT)
    assert server.connect().offset() >= 60


def test_message_that_would_be_refused_is_not_kept() -> None:
    server = Server(offer=Offer(HOST, checkpoint=True, max_size=100, line_ends=LineEndRule.REJECT))
    for faulty in (b"A: b\r\n\r\n" + b"x\r\n" * 50, b"A: b\r\n\r\nx\r\nx\nx", b"A: b\r\n\r\nx\r\nx\rx\r\n"):
        client = server.connect()
        assert client.offset() == 0
        client.say(RCPT + b"DATA\r\n")
        client.say(b"A: b\r\n\r\nx\r\nx\r\n")
        client.say(faulty)
        client.lose()
    assert server.connect().offset() == 0
    loop = b"Received: x\r\n" * 101 + b"\r\nbody\r\n"
    server = Server()
    broken_off(server, loop)
    assert server.connect().offset() == 0


def test_refused_message_is_not_kept() -> None:
    server = Server()
    client = server.connect()
    client.offset()
    client.say(RCPT)
    server.spool.failure = SpoolFull("no room")
    assert finish(client, TEXT) == b"452 4.3.1 Insufficient system storage"
    server.spool.failure = None
    client.lose()
    assert server.connect().offset() == 0


class FullSpool(MemorySpool):
    """Cannot keep, in one way or another."""

    trouble: Exception = SpoolFull("no room")

    def keep(self, draft: Any, *arguments: Any, **keywords: Any) -> Deferred[None]:
        draft.abort()
        return fail(self.trouble)


@pytest.mark.parametrize("trouble", [SpoolFull("no room"), SpoolError("no disk"), ZeroDivisionError("a defect")])
def test_part_that_cannot_be_kept_is_begun_anew(trouble: Exception) -> None:
    server = Server()
    server.spool = spool = FullSpool(server.clock)
    spool.trouble = trouble
    object.__setattr__(server.door, "spool", spool)
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        broken_off(server)
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert [event["log_namespace"] for event in logged] == ["mailsuite.session.visit"]
    client = server.connect()
    assert client.offset() == 0
    client.say(RCPT)
    assert finish(client, TEXT).startswith(b"250")
    assert server.contents() == [TEXT]


def test_spool_that_cannot_look_says_later() -> None:
    server = Server()
    broken_off(server)
    server.spool.failure = SpoolFull("no room")
    client = server.connect()
    assert client.begin() == b"452 4.3.1 Insufficient system storage"
    server.spool.failure = SpoolError("no disk")
    assert client.begin() == b"451 4.3.0 Local error in processing, try again later"
    server.spool.failure = None
    assert client.offset() > 0


# ----------------------------------------------------------------------------------- how the line ends


@pytest.mark.parametrize("how", ["closed", "slow", "abort", "shutdown", "cancelled"])
def test_however_the_line_ends_what_came_is_kept(how: str) -> None:
    server = Server()
    client = server.connect()
    client.offset()
    client.say(RCPT)
    client.say(b"BDAT %d\r\n" % len(TEXT) + TEXT)
    if how == "cancelled":  # within a command behind the chunk
        server.pace._slow = True  # noqa: SLF001 - the router takes its time from now on
        client.lose()
    elif how == "closed":
        client.side.connection.readConnectionLost()
    elif how == "slow":
        client.say(b"BDAT 100\r\n")
        server.clock.advance(10_000)
    elif how == "abort":
        client.side.connection.abort()
        client.lose()
    else:
        client.side.connection.shutdown(replies.SHUTTING_DOWN)
    assert server.connect().offset() == len(TEXT)


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


def test_log_tells_what_was_kept_and_resumed() -> None:
    server = Server()
    broken_off(server)
    [kept] = server.logged
    assert "the line broke behind" in kept
    client = server.connect()
    offset = client.offset()
    assert server.logged[1].endswith(f"is resumed at octet {offset}")
    assert f"behind {offset} octets" in kept
