"""The relay session against the server's core, joined in memory, with a server that answers as it likes.

Whatever it answers, both sides keep the protocol, every delivery is accounted for once, and who counts as relayed has
the message, octet by octet.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface import implementer

from mailsuite.interfaces import IConversation
from mailsuite.mail import replies
from mailsuite.mail.queue import Result
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import NextHop
from mailsuite.mail.session import Peer
from mailsuite.session.relay import RelaySession, RelaySettings
from mailsuite.wire.core import (
    Answer,
    ConnectionClosed,
    EndOfFile,
    Event,
    RemoteProtocolError,
    Signal,
    Violation,
)
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.commands import Bdat, Content, ContentEnd, Data, Ehlo, Mail, Quit, Rcpt, Rset
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore
from tests.session.scripted import ListedRun, finish, make_delivery

Answerer = Callable[[Event], Reply]


class Server:
    """A server that answers by a function, and keeps what it has accepted for each recipient."""

    def __init__(self, offer: Offer, answer: Answerer) -> None:
        self.core = SmtpServerCore(offer)
        self.mailboxes: list[tuple[str, bytes]] = []
        self.closed = False
        self._answer = answer
        self._offer = offer
        self._recipients: list[str] = []
        self._content = b""
        self.out = self.core.send(Reply(220, None, ("mx.example.net",)))

    def take(self, data: bytes) -> None:
        """What the client says."""
        if data:
            self.core.receive_data(data)
        while not self.closed and not isinstance(event := self.core.next_event(), Signal):
            assert not isinstance(event, EndOfFile)
            if isinstance(event, Answer):
                # Bad order may be the consequence of a refusal within a group; bad syntax is a defect of the client.
                assert event.data.startswith((b"503", b"554")), event.data
                self.out += event.data
                self.closed = event.closing
            else:
                self._respond(event)

    def _respond(self, event: Event) -> None:
        if isinstance(event, Content):
            self._content += event.data
            return
        if isinstance(event, Bdat):
            return
        if isinstance(event, ContentEnd):
            self._end(event)
            return
        reply = self._answer(event)
        if isinstance(event, Ehlo) and reply.is_positive:
            reply = self._offer.ehlo_reply(event.domain)
        if isinstance(event, Mail | Rset | Ehlo):
            self._recipients, self._content = [], b""
        if isinstance(event, Rcpt) and reply.is_positive:
            self._recipients.append(str(event.address))
        self.out += self.core.send(reply)
        self.closed = reply.code in (421, 221)

    def _end(self, event: ContentEnd) -> None:
        answers = len(self._recipients) if self._offer.lmtp and event.last else 1
        for number in range(answers):
            reply = event.fault or self._answer(event)
            self.out += self.core.send(reply)
            if event.last and reply.is_positive:
                for recipient in self._recipients[number : number + 1] if self._offer.lmtp else self._recipients:
                    self.mailboxes.append((recipient, self._content))
            if reply.code == 421:
                self.closed = True
                return
        if event.last:
            self._recipients, self._content = [], b""


class Babbler:
    """No server at all: it says the next thing on its list whatever is said to it, then hangs up."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.out = b""
        self.closed = False

    def take(self, data: bytes) -> None:
        self.out += self._pieces.pop(0) if self._pieces else b""
        self.closed = not self._pieces


@implementer(IConversation)
class JoinedConversation:
    """What is said is heard by the server when the session waits; both directions may be cut anywhere."""

    peer = local = Peer("192.0.2.25", 25)
    tls = None
    line_by_line = False

    def __init__(self, core: SmtpClientCore, server: Server | Babbler, cut: Callable[[bytes], list[bytes]]) -> None:
        self.core = core
        self._server = server
        self._cut = cut
        self._out = b""
        self._in: list[bytes] = []

    async def receive(self) -> Event:
        while True:
            event = self.core.next_event()
            if isinstance(event, Violation):
                raise RemoteProtocolError(event.reason)
            if isinstance(event, EndOfFile):
                raise ConnectionClosed("closed")
            if isinstance(event, Event):
                return event
            if not self._in:
                self._exchange()
                assert self._in or isinstance(self._server, Babbler), "both sides wait for each other"
            if self._in:
                self.core.receive_data(self._in.pop(0))

    def send(self, message: Any) -> None:
        self._out += self.core.send(message)

    async def drain(self) -> None:
        if self._server.closed:
            raise ConnectionClosed("closed")
        self._exchange()

    def _exchange(self) -> None:
        octets, self._out = self._out, b""
        for part in self._cut(octets) or [b""]:
            if not self._server.closed:
                self._server.take(part)
        octets, self._server.out = self._server.out, b""
        self._in += list(self._cut(octets)) if octets else []
        if self._server.closed:
            self._in.append(b"")


POSITIVE = {Data: replies.START_CONTENT, Quit: replies.BYE, Rcpt: replies.RECIPIENT_OK, Mail: replies.SENDER_OK}
NEGATIVE = [
    replies.LOCAL_ERROR,
    replies.NO_SUCH_USER,
    replies.TOO_MANY_RECIPIENTS,
    replies.STORAGE_FULL,
    replies.TOO_BIG,
    replies.SHUTTING_DOWN,
    Reply(450, None, ("one", "two")),
]
CONTENTS = [
    b"",
    b".\r\n",
    b"Subject: hi\r\n\r\n.dots\r\n..\r\n",
    b"x" * 300_000 + b"\r\n",
    b".\r\n" * 100_000,
    b"no end",
]


def whole(octets: bytes) -> list[bytes]:
    return [octets] if octets else []


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_all_goes_well(lmtp, chunking, pipelining, checkpoint):
    server = Server(
        Offer("mx.example.net", lmtp=lmtp, checkpoint=checkpoint), lambda event: POSITIVE.get(type(event), replies.OK)
    )
    run = ListedRun(
        *(make_delivery(f"q{n}", "bob@example.net", "eve@example.net", content=c) for n, c in enumerate(CONTENTS))
    )
    hop = NextHop("mx.example.net", lmtp=lmtp)
    session = RelaySession(run, RelaySettings("relay.example.org", hop, chunking=chunking, pipelining=pipelining))
    finish(session(JoinedConversation(SmtpClientCore(lmtp=lmtp), server, whole)))
    run.check_accounts()
    done = "delivered" if lmtp else "relayed"
    assert all(run.results(f"q{n}") == [done, done] for n in range(len(CONTENTS)))
    meant = [
        content if chunking or content.endswith(b"\n") or not content else content + b"\r\n" for content in CONTENTS
    ]
    names = ["bob@example.net", "eve@example.net"]
    assert server.mailboxes == [(name, content) for content in meant for name in names]
    assert session.end.outcome is None


deliveries = st.lists(st.tuples(st.integers(1, 7), st.sampled_from(CONTENTS)), min_size=1, max_size=4)


@given(st.data(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), deliveries, st.integers(1, 8))
def test_server_that_answers_as_it_likes(data, lmtp, chunking, pipelining, checkpoint, messages, window):
    negative = st.sampled_from(NEGATIVE)
    refused = 0

    def answer(event: Event) -> Reply:
        nonlocal refused
        positive = POSITIVE.get(type(event), replies.OK)
        if isinstance(event, Rset | Quit) or data.draw(st.integers(0, 3)):
            return positive
        refused += 1
        return data.draw(negative)

    def cut(octets: bytes) -> list[bytes]:
        at = data.draw(st.integers(0, len(octets)))
        return [part for part in (octets[:at], octets[at:]) if part]

    server = Server(Offer("mx.example.net", lmtp=lmtp, max_errors=1000, checkpoint=checkpoint), answer)
    made = [
        make_delivery(f"q{n}", *(f"user{n}-{i}@example.net" for i in range(count)), content=content)
        for n, (count, content) in enumerate(messages)
    ]
    run = ListedRun(*made)
    settings = RelaySettings(
        "relay.example.org",
        NextHop("mx.example.net", lmtp=lmtp),
        chunking=chunking,
        pipelining=pipelining,
        window=window,
        ahead=window,
    )
    session = RelaySession(run, settings)
    finish(session(JoinedConversation(SmtpClientCore(lmtp=lmtp), server, cut)))

    run.check_accounts()
    for delivery in made:
        queue_id = delivery.message.queue_id
        outcomes = run.settled.get(queue_id, [])
        for recipient, outcome in zip(delivery.recipients, outcomes, strict=bool(outcomes)):
            copies = [content for name, content in server.mailboxes if name == str(recipient.address)]
            sent = outcome.result in (Result.RELAYED, Result.DELIVERED)
            # A copy without the outcome would be the lost reply that RFC 1047 tells of; here every reply arrives.
            assert len(copies) == sent
            assert all(
                re.sub(rb"(?<!\n)\Z", b"\r\n", copy) == re.sub(rb"(?<!\n)\Z", b"\r\n", octets_of(delivery))
                for copy in copies
            )
    if not refused:
        assert session.end.outcome is None
        assert set(run.settled) == {delivery.message.queue_id for delivery in made}


PIECES = [
    *(b"220 a\r\n", b"250 a\r\n", b"250-a\r\n", b"250 2.0.0 a\r\n", b"354 a\r\n", b"334 a\r\n", b"421 a\r\n"),
    *(b"250-a\r\n250-PIPELINING\r\n250 CHUNKING\r\n", b"250-a\r\n250 PIPELINING\r\n", b"452 4.5.3 a\r\n", b"550 a\n"),
    b"250-a\r\n250-PIPELINING\r\n250-CHECKPOINT\r\n250-SIZE\r\n250 CHUNKING\r\n",
    *(b"355 0\r\n", b"355 33\r\n", b"355 7 a\r\n250 a\r\n", b"250 a\r\n" * 4, b"503 a\r\n" * 3),
    *(b"250 a\r\n" * 3, b"250 a\r\n" * 3 + b"354 a\r\n", b"\r\n", b"2", b"\xff\n", b"a" * 13_000),
]


@given(st.booleans(), st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=25))
def test_no_server_can_make_the_session_raise(lmtp, pieces):
    run = ListedRun(*(make_delivery(f"q{n}", *(f"u{i}@example.net" for i in range(n + 1))) for n in range(3)))
    session = RelaySession(run, RelaySettings("relay.example.org", NextHop("mx.example.net", lmtp=lmtp)))
    conversation = JoinedConversation(SmtpClientCore(lmtp=lmtp), Babbler(pieces), whole)
    conversation.core.receive_data(b"220 hello\r\n")
    finish(session(conversation))
    run.check_accounts()
    assert session.end.reached or not run.taken


def octets_of(delivery) -> bytes:
    octets = delivery.content.in_memory()
    assert octets is not None
    return octets
