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
from tests.session.interrupted import (
    HOST,
    RCPT,
    TEXT,
    WAYS,
    Server,
    broken_off,
    by_chunks,
    finish,
    say_until,
    stuffed,
)

OCTETS = b"A: b\r\n\r\n\n\r\r\n\x00.\r\n.\r\n\xff\nQUIT\r\n\r\r\n\n\nend"


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
        broken_off(server, said, octets, WAYS["data"])
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


def test_log_tells_what_was_kept_and_resumed() -> None:
    server = Server()
    broken_off(server)
    [kept] = server.logged
    assert "the line broke behind" in kept
    client = server.connect()
    offset = client.offset()
    assert server.logged[1].endswith(f"is resumed at octet {offset}")
    assert f"behind {offset} octets" in kept
