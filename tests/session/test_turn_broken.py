"""A turn whose line breaks: nothing is lost, and only the message under way is repeated."""

from collections import Counter

import pytest
from twisted.internet.defer import Deferred

from mailsuite.mail.queue import Result
from mailsuite.session.queueing import TurnedSession, relay_settings
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.net.support import Side
from tests.session.relaying import GOOD_MORNING
from tests.session.scripted import ScriptedConversation, finish, make_delivery
from tests.session.turning import LOGIN, SHIP, CustomerSite, FakeOnDemand, FakeTurn, Line, deliveries, provider_door

OPENED = """
S: 220 ship.example.org ESMTP
C: EHLO odmr.example.net
S: 250-ship.example.org
S: 250-STARTTLS
S: 250-AUTH PLAIN
S: 250 PIPELINING
"""
GROUP = """
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
C: DATA
"""
CONTENT = f"{GOOD_MORNING}C: .\n"


def held(script: str, *held: str) -> FakeTurn:
    """A turn at a customer's that follows a script, to its end."""
    turn = FakeTurn(SHIP, [make_delivery(queue_id) for queue_id in held or ("q1",)])
    session = TurnedSession(turn, relay_settings("odmr.example.net", SHIP, "ship.example.org"))
    conversation = ScriptedConversation(SmtpClientCore(), script)
    try:
        assert finish(session(conversation)) is None
    except BaseException as error:  # noqa: BLE001 - a cancellation goes on to whoever cancelled
        assert type(error).__name__ == "CancelledError", error  # noqa: PT017
    conversation.check()
    turn.run.check_accounts()
    return turn


def octets_of(count: int, *, chunking: bool) -> int:
    line = Line(FakeOnDemand(deliveries(count)), CustomerSite(chunking=chunking))
    line.carry()
    return line.passed


@pytest.mark.parametrize("chunking", [False, True])
def test_line_may_break_at_every_octet(chunking):
    """What was not settled is sent in a second turn: each message arrives, and at most one of them twice."""
    everything = octets_of(2, chunking=chunking)
    seen = set()
    for octets in range(everything + 1):
        site = CustomerSite(chunking=chunking)
        broken = Line(FakeOnDemand(deliveries(2)), site)
        broken.carry(octets)
        broken.check_accounts()
        settled = {queue_id for turn in broken.on_demand.turns for queue_id in turn.run.settled}
        if broken.on_demand.turns and octets < everything - 50:
            assert (broken.turn.ends == [None]) == (settled == {"q0", "q1"}), octets
        again = Line(FakeOnDemand([one for one in deliveries(2) if one.message.queue_id not in settled]), site)
        again.carry()
        assert again.turn.ends == [None]
        copies = Counter(site.received)
        assert set(copies) == {"q0", "q1"}
        assert sum(copies.values()) <= 3
        seen.add((len(settled), sum(copies.values())))
    # It broke before the first message, between the two, behind them, and before an answer to each.
    assert seen == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 2)}


@pytest.mark.parametrize("end", ["X: close", "X: slow", "X: cancel", "S: 421 4.3.2 bye", "S: garbage"])
def test_nothing_that_was_not_heard_counts(end):
    for script in (end, f"{OPENED}{GROUP}{end}"):
        turn = held(script)
        assert turn.run.settled == {}
        assert len(turn.ends) == 1
        assert turn.ends[0]


@pytest.mark.parametrize("end", ["X: close", "X: slow", "X: cancel", "S: 421 4.3.2 bye", "S: garbage"])
def test_message_under_way_is_given_back_and_those_before_are_settled(end):
    turn = held(
        f"{OPENED}{GROUP}S: 250 ok\nS: 250 ok\nS: 354 go\n{CONTENT}{GROUP}"
        f"S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\n{CONTENT}{end}",
        "q1",
        "q2",
    )
    assert turn.run.results("q1") == ["relayed"]
    assert turn.run.released == ["q2"]
    assert len(turn.ends) == 1
    assert turn.ends[0]


def test_one_recipient_has_it_so_the_other_is_deferred():
    """The second transaction of a delivery (RFC 5321 section 4.5.3.1.10) broke; the first must not be repeated."""
    delivery = make_delivery("q1", "ann@example.net", "bob@example.net")
    turn = FakeTurn(SHIP, [delivery])
    session = TurnedSession(turn, relay_settings("odmr.example.net", SHIP, "ship.example.org"))
    conversation = ScriptedConversation(
        SmtpClientCore(),
        f"{OPENED}C: MAIL FROM:<ann@example.org>\nC: RCPT TO:<ann@example.net>\nC: RCPT TO:<bob@example.net>\nC: DATA\n"
        f"S: 250 ok\nS: 250 ok\nS: 452 4.5.3 Too many\nS: 354 go\n{CONTENT}{GROUP}S: 250 ok\nX: close",
    )
    assert finish(session(conversation)) is None
    assert turn.run.results("q1") == ["relayed", "delayed"]


def test_recipients_that_were_all_refused_are_settled_whatever_comes_after():
    turn = held(f"{OPENED}{GROUP}S: 250 ok\nS: 550 5.1.1 no\nS: 503 no\nC: RSET\nX: close")
    assert turn.run.results("q1") == ["failed"]


def test_temporary_refusal_of_a_message_defers_it_and_goes_on():
    turn = held(
        f"{OPENED}{GROUP}S: 250 ok\nS: 250 ok\nS: 354 go\n{CONTENT}{GROUP}"
        f"S: 452 4.3.1 Full\nS: 250 ok\nS: 250 ok\nS: 354 go\n{CONTENT}S: 250 ok\nC: QUIT\nS: 221 bye",
        "q1",
        "q2",
    )
    assert turn.run.results("q1") == ["delayed"]
    assert turn.run.settled["q1"][0].result is Result.DEFERRED
    assert turn.run.results("q2") == ["relayed"]
    assert turn.ends == [None]


@pytest.mark.parametrize(
    "script",
    [
        "S: 421 4.3.2 later",
        "S: 450 4.3.2 later\nC: QUIT\nS: 221 bye",
        "S: 554 5.3.2 never\nC: QUIT\nS: 221 bye",
        "S: 554 5.3.2 never\nC: QUIT\nX: close",
        "S: 220 hello\nC: EHLO odmr.example.net\nS: 450 no\nC: QUIT\nS: 221 bye",
    ],
)
def test_customer_that_does_not_want_its_mail_now(script):
    turn = held(script)
    assert turn.run.taken == []
    assert len(turn.ends) == 1
    assert turn.ends[0]


def test_customer_that_knows_helo_only():
    turn = held(
        "S: 220 old\nC: EHLO odmr.example.net\nS: 500 what\nC: HELO odmr.example.net\nS: 250 old\n"
        "C: MAIL FROM:<ann@example.org>\nS: 250 ok\nC: RCPT TO:<bob@example.net>\nS: 250 ok\nC: DATA\nS: 354 go\n"
        f"{CONTENT}S: 250 ok\nC: QUIT\nX: close"
    )
    assert turn.run.results("q1") == ["relayed"]
    assert turn.ends == [None]  # all was sent; what becomes of the QUIT does not matter


def test_unreadable_message_is_deferred_not_the_customers_fault():
    class Unreadable:
        size = 10

        def in_memory(self):
            return None

        async def read(self, offset, limit):
            raise OSError(5, "Input/output error")

    turn = FakeTurn(SHIP, [make_delivery("q1", content=Unreadable()), make_delivery("q2")])  # type: ignore[arg-type]
    session = TurnedSession(turn, relay_settings("odmr.example.net", SHIP, "ship.example.org"))
    conversation = ScriptedConversation(SmtpClientCore(), f"{OPENED}{GROUP}S: 250 ok\nS: 250 ok\nS: 354 go")
    assert finish(session(conversation)) is None
    assert turn.run.results("q1") == ["delayed"]
    assert turn.run.released == ["q2"]
    assert len(turn.ends) == 1
    assert "cannot be read" in str(turn.ends[0])


# ------------------------------------------------------------------------- before the turn has its session


def begin(on_demand: FakeOnDemand) -> Side:
    core, session = provider_door(on_demand).open()
    side = Side(session, core)
    side.receive(LOGIN)
    return side


@pytest.mark.parametrize(
    "said", [b"", b"220 ship.example.org\r\n", b"220 ship.example.org\r\n250 ship.example.org\r\n"]
)
def test_connection_that_closes_right_behind_the_answer_is_no_attempt(said):
    """fetchmail does so when it finds its local server down."""
    on_demand = FakeOnDemand(deliveries(1))
    side = begin(on_demand)
    side.receive(b"ATRN\r\n" + said)
    side.lose()
    [turn] = on_demand.turns
    assert len(turn.ends) == 1
    assert turn.run.settled == {}
    turn.run.check_accounts()


def test_connection_that_is_lost_while_the_turn_begins():
    gate: Deferred[None] = Deferred()
    on_demand = FakeOnDemand(deliveries(1), gate=gate)
    side = begin(on_demand)
    side.receive(b"ATRN\r\n")
    side.lose()
    assert on_demand.turns == []  # whoever begins it was cancelled


def test_turn_that_begins_on_a_lost_connection_is_ended():
    """Whoever begins turns may be past being cancelled when the connection is lost."""

    class Uncancelled(Deferred[None]):
        def cancel(self) -> None:
            """Go on."""

    gate = Uncancelled()
    on_demand = FakeOnDemand(deliveries(1), gate=gate)
    side = begin(on_demand)
    side.receive(b"ATRN\r\n")
    side.lose()
    gate.callback(None)
    [turn] = on_demand.turns
    assert len(turn.ends) == 1
    assert turn.run.taken == []
    assert len(side.over) == 1


def test_peer_that_does_not_read_the_answer_loses_its_turn():
    on_demand = FakeOnDemand(deliveries(1))
    side = begin(on_demand)
    side.wire.has_room = False
    side.receive(b"ATRN\r\n")
    [turn] = on_demand.turns
    assert turn.ends == []
    side.clock.advance(100_000)
    assert turn.ends == ["the connection was lost before the turn"]
    assert side.is_closing
