"""What ATRN, TURN and ETRN are answered, and who is refused."""

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.session.queueing import TurnedSession
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow, Phase
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.dialogues.runners import MemoryConversation
from tests.net.support import Side, failures_in
from tests.session.scripted import finish
from tests.session.turning import (
    LOGIN,
    STRANGER,
    FakeOnDemand,
    deliveries,
    provider_door,
    refusing,
)

HELLO = b"EHLO ship.example.org\r\n"


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def answers(on_demand: FakeOnDemand | None, said: bytes, **door: object) -> list[str]:
    """The lines that answer what is said behind the login."""
    core, session = provider_door(on_demand, **door).open()
    side = Side(session, core)
    hello, _, rest = said.partition(b"|")
    side.receive(hello)
    before = len(side.wire.sent)
    side.receive(rest)
    return side.wire.sent[before:].decode().splitlines()


@pytest.mark.parametrize(
    ("login", "command", "answer"),
    [
        (HELLO, b"ATRN", "530 5.7.0 Authentication required"),
        (HELLO, b"ATRN ship.example.org", "530 5.7.0 Authentication required"),
        (HELLO, b"TURN", "530 5.7.0 Authentication required"),
        (STRANGER, b"ATRN", "450 4.7.1 ATRN request refused"),
        (STRANGER, b"TURN", "502 5.5.1 Command not implemented"),
        (LOGIN, b"ATRN", "250 2.0.0 OK, now reversing the connection"),
        (LOGIN, b"TURN", "250 2.0.0 OK, now reversing the connection"),
    ],
)
def test_customers_alone_have_turns(login, command, answer):
    on_demand = FakeOnDemand(deliveries(1))
    assert answers(on_demand, login + b"|" + command + b"\r\n") == [answer]
    assert bool(on_demand.turns) == answer.startswith("250")


def test_turn_is_refused_where_it_is_not_allowed():
    on_demand = FakeOnDemand(deliveries(1))
    assert answers(on_demand, LOGIN + b"|TURN\r\n", turn_allowed=False) == ["502 5.5.1 Command not implemented"]
    assert on_demand.asked == []


@pytest.mark.parametrize("command", [b"ATRN", b"TURN", b"ETRN ship.example.org"])
def test_offer_without_anybody_to_ask_is_not_implemented(command):
    assert answers(None, LOGIN + b"|" + command + b"\r\n") == ["502 5.5.1 Command not implemented"]


def test_domains_are_asked_for_by_their_keys_and_once_each():
    on_demand = FakeOnDemand()
    answers(on_demand, LOGIN + b"|ATRN Ship.Example.ORG,crew.example.org,ship.example.org\r\n")
    assert on_demand.asked == [("ship", ("ship.example.org", "crew.example.org"), "192.0.2.1")]


@pytest.mark.parametrize(
    "reply",
    [
        replies.ATRN_REFUSED,
        replies.ATRN_TOO_SOON,
        replies.ATRN_UNDER_WAY,
        replies.ATRN_UNAVAILABLE,
        replies.NO_MAIL,
        Reply.make(450, "4.7.1", "Refused", "for two reasons"),
        Reply.make(450, "4.7.1", "x" * 2000),
    ],
)
@pytest.mark.parametrize("command", [b"ATRN", b"TURN"])
def test_refusal_is_one_line_and_the_session_goes_on(command, reply):
    refusal, noop = answers(refusing(reply), LOGIN + b"|" + command + b"\r\nNOOP\r\n")
    assert refusal.startswith(f"{reply.code} {reply.status} {reply.text[:50]}")
    assert len(refusal) <= 510  # RFC 5321 section 4.5.3.1.5
    assert noop == "250 2.0.0 OK"


@pytest.mark.parametrize("command", [b"ATRN", b"TURN", b"ETRN ship.example.org"])
def test_defect_is_a_temporary_answer_and_logged(command, logged):
    on_demand = FakeOnDemand(trouble=ZeroDivisionError("a defect"))
    assert answers(on_demand, LOGIN + b"|" + command + b"\r\nNOOP\r\n") == [
        "451 4.3.0 Local error in processing, try again later",
        "250 2.0.0 OK",
    ]
    assert [type(failure) for failure in failures_in(logged)] == [ZeroDivisionError]


@pytest.mark.parametrize("login", [HELLO, LOGIN])
def test_queue_is_started_for_whoever_may_ask(login):
    on_demand = FakeOnDemand()
    node = "ship.example.org"
    assert answers(on_demand, login + f"|ETRN @{node}\r\nNOOP\r\n".encode()) == [
        f"253 2.0.0 OK, 3 pending messages for node @{node} started",
        "250 2.0.0 OK",
    ]
    assert on_demand.asked == [(f"@{node}", "ship" if login == LOGIN else None, "192.0.2.1")]


@pytest.mark.parametrize("reply", [replies.ETRN_UNABLE, replies.ETRN_NOT_ALLOWED])
def test_refusal_of_a_node_is_told(reply):
    assert answers(refusing(reply), HELLO + b"|ETRN ship.example.org\r\nNOOP\r\n") == [str(reply), "250 2.0.0 OK"]


def test_refusals_are_logged_for_the_operator():
    lines: list[str] = []
    answers(refusing(replies.NO_MAIL), LOGIN + b"|ATRN ship.example.org\r\n", log=lines.append)
    answers(refusing(replies.ETRN_NOT_ALLOWED), HELLO + b"|ETRN #uucp\r\n", log=lines.append)
    answers(refusing(replies.ATRN_REFUSED), LOGIN + b"|ATRN ship.example.org\r\n", log=lines.append)
    assert lines == [  # that there is no mail is no refusal
        "refused: ETRN #uucp of 192.0.2.1: 459 4.7.1 This node is not allowed",
        f"refused: ATRN ship.example.org as ship of 192.0.2.1: {replies.ATRN_REFUSED}",
    ]


def test_tls_stays_as_it_is():
    """The handover asks for no handshake: whatever there is of TLS goes on."""
    core, session = provider_door(FakeOnDemand(deliveries(1))).open(secure=True)
    conversation = MemoryConversation(core)
    coroutine = session(conversation)
    conversation.feed(LOGIN + b"ATRN\r\n")
    handover = finish(coroutine)
    assert handover.tls is None
    assert isinstance(handover.core, SmtpClientCore)
    assert isinstance(handover.session, TurnedSession)


@pytest.mark.parametrize("error", [ConnectionClosed("lost"), PeerTooSlow(Phase.DATA_BLOCK)])
def test_answer_that_cannot_be_said_ends_the_turn(error):
    class Choked(MemoryConversation):
        async def drain(self) -> None:
            raise error

    on_demand = FakeOnDemand(deliveries(1))
    core, session = provider_door(on_demand).open()
    conversation = Choked(core)
    conversation.feed(LOGIN + b"ATRN\r\n")
    assert finish(session(conversation)) is None
    [turn] = on_demand.turns
    assert turn.ends == ["the connection was lost before the turn"]
    assert turn.run.taken == []
