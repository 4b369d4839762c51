"""The client's core: what may be said when, what replies belong to, and what a server cannot do to it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body
from mailsuite.mail.options import Notify, Return
from mailsuite.wire.core import EndOfFile, LocalProtocolError, Phase, Violation
from mailsuite.wire.smtp.client import Closing, Greeting, Replied
from mailsuite.wire.smtp.client_states import KINDS, LEADS, LEGAL, Kind, State, expected
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Turn,
    Vrfy,
)
from tests.wire.smtp.client_core import ALL, ANN, BOB, EXAMPLES, hear, in_state, ready


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: command.verb)
def test_what_may_be_said_in_each_state(state, command):
    core = in_state(state)
    assert core.state is state
    if state in LEGAL[type(command)]:
        assert core.send(command) == command.line()
        assert core.outstanding == 1
    else:
        with pytest.raises(LocalProtocolError):
            core.send(command)
        assert core.state is state


def test_tables_are_complete():
    assert set(KINDS) == set(LEGAL) == {type(command) for command in EXAMPLES}
    assert set(LEADS) == set(Kind)
    for kind, leads in LEADS.items():
        assert leads.keys() >= {4, 5}, kind  # any command may be refused
        assert next(iter(leads)) in (2, 3), kind  # what is hoped for stands first
    reachable = {state for leads in LEADS.values() for state in leads.values() if state}
    assert reachable | {State.CONNECTED, State.REFUSED, State.INITIAL} == set(State)
    assert expected(State.READY, [Kind.MAIL, Kind.RCPT, Kind.RCPT, Kind.DATA]) is State.CONTENT
    assert expected(State.BROKEN, [Kind.RSET, Kind.MAIL]) is State.SENDER


@pytest.mark.parametrize("digit", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("kind", "state", "said"),
    [
        (Kind.HELLO, State.INITIAL, [Helo("relay.example.org")]),
        (Kind.MAIL, State.READY, [Mail(ANN)]),
        (Kind.RCPT, State.SENDER, [Rcpt(BOB)]),
        (Kind.DATA, State.RECIPIENTS, [Data()]),
        (Kind.CONTENT, State.CONTENT, [ContentEnd()]),
        (Kind.CHUNK, State.RECIPIENTS, [Bdat(0, last=False), ContentEnd(last=False)]),
        (Kind.LAST_CHUNK, State.RECIPIENTS, [Bdat(0, last=True), ContentEnd()]),
        (Kind.RSET, State.RECIPIENTS, [Rset()]),
        (Kind.QUERY, State.SENDER, [Noop()]),
        (Kind.QUERY, State.READY, [Etrn("example.org")]),
        (Kind.TURN, State.READY, [Atrn()]),
        (Kind.TURN, State.READY, [Turn()]),
        (Kind.QUIT, State.SENDER, [Quit()]),
        (Kind.STARTTLS, State.READY, [StartTls()]),
        (Kind.AUTH, State.READY, [Auth(b"PLAIN")]),
    ],
)
def test_where_each_reply_leads(digit, kind, state, said):
    core = in_state(state)
    for message in said:
        core.send(message)
    [event] = hear(core, f"{digit}50 text\r\n".encode())
    if digit in LEADS[kind]:
        assert isinstance(event, Replied)
        assert event.command == said[-1]
        assert core.state is (LEADS[kind][digit] or state)
    else:
        assert isinstance(event, Violation)
        assert core.over


def test_nothing_goes_before_an_answer_without_pipelining():
    core = ready("SIZE")
    core.send(Mail(ANN))
    with pytest.raises(LocalProtocolError, match="before the answer to MAIL"):
        core.send(Rcpt(BOB))
    hear(core, b"250 ok\r\n")
    core.send(Rcpt(BOB))


@pytest.mark.parametrize(
    ("state", "last"),
    [
        *((State.READY, command) for command in EXAMPLES if isinstance(command, Ehlo | StartTls | Auth | Noop | Vrfy)),
        *((State.READY, command) for command in (Etrn("example.org"), Atrn(), Turn())),
        *((State.RECIPIENTS, command) for command in (Data(), Noop(), Quit())),
        (State.AUTH, AuthResponse(b"x")),
    ],
)
def test_what_must_be_last_in_a_group(state, last):
    # RFC 2920 section 3.1
    core = in_state(state)
    core.send(last)
    for command in (Rset(), Mail(ANN), Quit()):
        with pytest.raises(LocalProtocolError):
            core.send(command)


def test_replies_are_counted_not_guessed():
    core = ready()
    said = [Mail(ANN), Rcpt(BOB), Rcpt(ANN), Rset(), Mail(BOB), Rcpt(ANN), Data()]
    for command in said:
        core.send(command)
    events = hear(core, b"250 1\r\n250-2\r\n250 2\r\n550 3\r\n250 4\r\n250 5\r\n250 6\r\n354 7\r\n")
    assert [event.command for event in events] == said
    assert [event.reply.lines[-1] for event in events] == ["1", "2", "3", "4", "5", "6", "7"]
    assert core.state is State.CONTENT


def test_refused_mail_leaves_no_transaction_to_go_on_with():
    core = ready()
    for command in (Mail(ANN), Rcpt(BOB)):
        core.send(command)
    hear(core, b"550 no\r\n503 no\r\n")
    for command in (Rcpt(BOB), Data()):
        with pytest.raises(LocalProtocolError, match="READY"):
            core.send(command)
    core.send(Mail(ANN))


def test_next_message_may_stand_behind_the_content_but_not_within():
    core = in_state(State.CONTENT)
    core.send(Content(b"text\r\n"))
    with pytest.raises(LocalProtocolError, match="within the content"):
        core.send(Mail(ANN))
    assert core.send(ContentEnd()) == b".\r\n"
    core.send(Mail(ANN))
    core.send(Rcpt(BOB))
    core.send(Data())
    events = hear(core, b"250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert [type(event.command) for event in events] == [ContentEnd, Mail, Rcpt, Data]


@pytest.mark.parametrize(
    ("command", "keyword"),
    [
        (Mail(ANN, size=1), "SIZE"),
        (Mail(ANN, body=Body.EIGHT_BIT), "8BITMIME"),
        (Mail(ANN, body=Body.SEVEN_BIT), "8BITMIME"),
        (Mail(ANN, body=Body.BINARY), "BINARYMIME"),
        (Mail(ANN, smtputf8=True), "SMTPUTF8"),
        (Mail(ANN, auth=""), "AUTH"),
        (Mail(ANN, ret=Return.FULL), "DSN"),
        (Mail(ANN, envid="1"), "DSN"),
        (Mail(ANN, require_tls=True), "REQUIRETLS"),
        (StartTls(), "STARTTLS"),
        (Auth(b"PLAIN"), "AUTH"),
    ],
)
def test_what_is_not_offered_is_not_said(command, keyword):
    core = ready(*(word for word in ALL if not word.startswith(keyword)))
    with pytest.raises(LocalProtocolError, match=keyword):
        core.send(command)
    assert ready().send(command) == command.line()


def test_bdat_needs_chunking_and_rcpt_in_utf8_its_parameter():
    core = ready("PIPELINING", "SMTPUTF8")
    core.send(Mail(ANN))
    core.send(Rcpt(BOB))
    with pytest.raises(LocalProtocolError, match="CHUNKING"):
        core.send(Bdat(1, last=True))
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        core.send(Rcpt(Address("jürgen", "example.net")))
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        ready().send(Mail(Address("jürgen", "example.net")))


@pytest.mark.parametrize("rcpt", [Rcpt(BOB, Notify(0)), Rcpt(BOB, orcpt="rfc822;bob@example.net")])
def test_rcpt_asks_for_reports_only_where_they_are_offered(rcpt):
    for offered in (ALL, [word for word in ALL if word != "DSN"]):
        core = ready(*offered)
        core.send(Mail(ANN))
        if "DSN" in offered:
            assert core.send(rcpt) == rcpt.line()
        else:
            with pytest.raises(LocalProtocolError, match="DSN"):
                core.send(rcpt)


def test_original_recipient_is_in_utf8_only_behind_smtputf8():
    bob = Rcpt(BOB, orcpt="utf-8;größe@example.net")
    assert bob.line() == rb"RCPT TO:<bob@example.net> ORCPT=utf-8;gr\x{F6}\x{DF}e@example.net" + b"\r\n"
    utf8 = replace(bob, smtputf8=True)
    core = ready()
    core.send(Mail(ANN, smtputf8=True))
    assert core.send(utf8) == "RCPT TO:<bob@example.net> ORCPT=utf-8;größe@example.net\r\n".encode()
    core = ready()
    core.send(Mail(ANN))
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        core.send(utf8)


@pytest.mark.parametrize("evil", ["x\r\nRSET", "x\nRSET", "x\rRSET", "x\0"])
def test_nothing_can_be_smuggled_into_a_line(evil):
    core = ready()
    for command in (Mail(Address(evil, "example.org")), Vrfy(evil), Ehlo(evil), Auth(evil.encode())):
        with pytest.raises(LocalProtocolError, match="line end"):
            core.send(command)
    assert core.outstanding == 0


def test_commands_that_no_client_of_this_kind_has_are_not_said():
    class Spin(Command):
        verb = "SPIN"

    with pytest.raises(LocalProtocolError, match="nothing that a client says"):
        ready().send(Spin())


def test_what_was_offered_before_is_forgotten():
    core = ready()
    core.send(Helo("relay.example.org"))
    hear(core, b"250 mx.example.net\r\n")
    assert not core.capabilities.keywords
    with pytest.raises(LocalProtocolError):
        core.send(StartTls())


def test_authentication_happens_once():
    core = ready()
    core.send(Auth(b"PLAIN", b"x"))
    hear(core, b"235 ok\r\n")
    with pytest.raises(LocalProtocolError, match="second time"):
        core.send(Auth(b"PLAIN", b"x"))


MESSAGES = [
    *EXAMPLES,
    Mail(ANN, transid="1@example.org"),
    Content(b"x"),
    Content(b".\r\n"),
    ContentEnd(),
    ContentEnd(last=False),
    Bdat(1, last=False),
]
PIECES = [
    *(b"220 a\r\n", b"250 a\r\n", b"250-a\r\n", b"250 PIPELINING\r\n", b"354 a\r\n", b"334 a\r\n", b"235 a\r\n"),
    *(b"421 a\r\n", b"450 a\r\n", b"554 a\r\n", b"250-x\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n"),
    *(b"\r\n", b"\n", b"2", b"\xff", b"", b"999 a\r\n", b"250-a\r\n251 a\r\n", b"355 7 a\r\n", b"355 a\r\n"),
]
moves = st.lists(st.one_of(st.sampled_from(MESSAGES), st.sampled_from(PIECES), st.binary(max_size=8)), max_size=40)


@given(st.booleans(), st.sampled_from(list(State)), moves)
def test_no_server_can_make_the_core_raise(lmtp, state, moves):
    core = in_state(state) if not lmtp else ready(lmtp=True)
    said = 0
    heard = 0
    for move in moves:
        if isinstance(move, bytes):
            for event in hear(core, move):
                heard += isinstance(event, Replied)
                assert isinstance(event, Greeting | Replied | Closing | Violation | EndOfFile)
        else:
            try:
                assert isinstance(core.send(move), bytes)
                said += 1
            except LocalProtocolError:
                continue
        assert isinstance(core.timeout, Phase)
        assert isinstance(core.trailing_data, bytes)
        assert core.outstanding <= said + 2  # a 354 or a BDAT awaits the answer to its content


@given(st.lists(st.sampled_from([b"250 ok\r\n", b"550 no\r\n", b"450 later\r\n"]), min_size=1, max_size=30))
def test_however_a_group_is_answered_the_next_may_begin_with_rset(answers):
    core = ready()
    core.send(Mail(ANN))
    for _ in answers[1:]:
        core.send(Rcpt(BOB))
    events = hear(core, b"".join(answers))
    assert len(events) == len(answers)
    assert core.outstanding == 0
    if core.state is not State.READY:
        core.send(Rset())
    core.send(Mail(ANN))


def test_reset_only_where_there_is_something_to_reset():
    for before, after in pairwise([State.INITIAL, State.READY]):
        with pytest.raises(LocalProtocolError):
            in_state(before).send(Rset())
        assert in_state(after).send(Rset()) == b"RSET\r\n"
