"""The client's core: what may be said when, what replies belong to, and what a server cannot do to it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body
from mailsuite.wire.core import NEED_DATA, PAUSED, EndOfFile, Event, LocalProtocolError, Phase, Role, Violation
from mailsuite.wire.smtp.client import Closing, Greeting, Replied, SmtpClientCore
from mailsuite.wire.smtp.client_states import KINDS, LEADS, LEGAL, Kind, State, expected
from mailsuite.wire.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)

ANN = Address("ann", "example.org")
BOB = Address("bob", "example.net")
ALL = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "STARTTLS", "AUTH PLAIN")
EXAMPLES: list[Command] = [
    *(Ehlo("relay.example.org"), Helo("relay.example.org"), Mail(ANN), Rcpt(BOB), Data(), Bdat(3, last=True)),
    *(Rset(), Noop(), Vrfy("bob"), Help(), Quit(), StartTls(), Auth(b"PLAIN", b"x"), AuthResponse(b"x")),
]


def hear(core: SmtpClientCore, octets: bytes) -> list[Event]:
    core.receive_data(octets)
    events = []
    while (event := core.next_event()) not in (NEED_DATA, PAUSED):
        events.append(event)
        if isinstance(event, EndOfFile):
            break
    return events


def ready(*keywords: str, lmtp: bool = False) -> SmtpClientCore:
    """A core that has been greeted and has said EHLO."""
    core = SmtpClientCore(lmtp=lmtp)
    hear(core, b"220 mx.example.net\r\n")
    core.send(Ehlo("relay.example.org", lmtp=lmtp))
    lines = ["mx.example.net", *(keywords or ALL)]
    hear(core, b"".join(f"250{'-' if at + 1 < len(lines) else ' '}{w}\r\n".encode() for at, w in enumerate(lines)))
    return core


def in_state(state: State) -> SmtpClientCore:
    """A core to which nothing is owed, in a given state."""
    if state is State.CONNECTED:
        return SmtpClientCore()
    if state is State.INITIAL:
        return SmtpClientCore(greeted=True)
    if state is State.REFUSED:
        core = SmtpClientCore()
        hear(core, b"554 no\r\n")
        return core
    core = ready()
    exchanges: dict[State, list[tuple[Command | Content | ContentEnd, bytes]]] = {
        State.READY: [],
        State.SENDER: [(Mail(ANN), b"250 ok\r\n")],
        State.RECIPIENTS: [(Mail(ANN), b"250 ok\r\n"), (Rcpt(BOB), b"250 ok\r\n")],
        State.AUTH: [(Auth(b"LOGIN"), b"334 \r\n")],
        State.DONE: [(StartTls(), b"220 go\r\n")],
        State.CLOSING: [(Noop(), b"421 bye\r\n")],
    }
    exchanges[State.CONTENT] = [*exchanges[State.RECIPIENTS], (Data(), b"354 go\r\n")]
    chunk: list[tuple[Command | Content | ContentEnd, bytes]] = [(Bdat(1, last=False), b""), (Content(b"x"), b"")]
    exchanges[State.CHUNKS] = [*exchanges[State.RECIPIENTS], *chunk, (ContentEnd(last=False), b"250 ok\r\n")]
    exchanges[State.BROKEN] = [*exchanges[State.RECIPIENTS], *chunk, (ContentEnd(last=False), b"552 no\r\n")]
    for said, answer in exchanges[state]:
        core.send(said)
        hear(core, answer)
    return core


# ---------------------------------------------------------------------------------------------- the tables


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


# --------------------------------------------------------------------------------------------- pipelining


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


# ------------------------------------------------------------------------------------------------ content


def test_content_only_behind_a_354():
    core = ready()
    for message in (Content(b"text"), ContentEnd()):
        with pytest.raises(LocalProtocolError):
            core.send(message)
    core.send(Mail(ANN))
    core.send(Rcpt(BOB))
    core.send(Data())
    with pytest.raises(LocalProtocolError):
        core.send(Content(b"text"))
    hear(core, b"250 ok\r\n250 ok\r\n451 later\r\n")
    with pytest.raises(LocalProtocolError):
        core.send(Content(b"text"))
    assert core.state is State.RECIPIENTS
    core.send(Rset())


def test_content_is_stuffed_and_ended():
    core = in_state(State.CONTENT)
    assert core.send(Content(b"")) == b""
    assert core.send(Content(b".one\r")) == b"..one"
    assert core.send(Content(b"\n.two")) == b"\r\n..two"
    with pytest.raises(LocalProtocolError):
        core.send(ContentEnd(last=False))
    assert core.send(ContentEnd()) == b"\r\n.\r\n"
    with pytest.raises(LocalProtocolError):
        core.send(ContentEnd())


def test_chunks_are_octets_and_are_counted():
    core = in_state(State.RECIPIENTS)
    assert core.send(Bdat(5, last=False)) == b"BDAT 5\r\n"
    with pytest.raises(LocalProtocolError):
        core.send(ContentEnd(last=False))
    assert core.send(Content(b".\n")) == b".\n"
    with pytest.raises(LocalProtocolError):
        core.send(Rset())
    core.send(Content(b"\r\0\xff"))
    with pytest.raises(LocalProtocolError):
        core.send(Content(b"x"))


def test_announced_length_must_be_met_and_last_must_be_last():
    core = in_state(State.RECIPIENTS)
    core.send(Bdat(2, last=True))
    core.send(Content(b"xy"))
    with pytest.raises(LocalProtocolError):
        core.send(ContentEnd(last=False))
    assert core.send(ContentEnd()) == b""
    with pytest.raises(LocalProtocolError):
        core.send(Bdat(2, last=True))


def test_data_does_not_follow_a_chunk():
    core = in_state(State.CHUNKS)
    for command in (Data(), Rcpt(BOB), Mail(ANN)):
        with pytest.raises(LocalProtocolError):
            core.send(command)


def test_binary_content_goes_by_bdat_only():
    core = ready()
    core.send(Mail(ANN, body=Body.BINARY))
    core.send(Rcpt(BOB))
    with pytest.raises(LocalProtocolError, match="BINARYMIME"):
        core.send(Data())
    core.send(Bdat(0, last=True))


def test_early_refusal_of_data_ends_the_connection_and_the_content():
    core = in_state(State.CONTENT)
    core.send(Content(b"one\r\n"))
    [event] = hear(core, b"552 5.3.4 Enough\r\n")
    assert isinstance(event, Replied)
    assert event.command == ContentEnd()
    assert core.over
    assert core.send(Content(b"two\r\n")) == b""
    assert core.send(ContentEnd()) == b""  # the end must not make a message of the half that was said
    with pytest.raises(LocalProtocolError):
        core.send(Mail(ANN))


def test_early_refusal_of_a_chunk_lets_the_chunk_end():
    core = in_state(State.RECIPIENTS)
    core.send(Bdat(4, last=False))
    core.send(Content(b"xx"))
    hear(core, b"452 4.3.1 Full\r\n")
    assert core.send(Content(b"yy")) == b"yy"
    core.send(ContentEnd(last=False))
    assert core.outstanding == 0
    with pytest.raises(LocalProtocolError):
        core.send(Bdat(0, last=True))
    core.send(Rset())
    assert [type(event) for event in hear(core, b"250 ok\r\n")] == [Replied]


@pytest.mark.parametrize("begin", [[Data()], [Bdat(4, last=True)]])
def test_content_cannot_be_accepted_before_its_end(begin):
    core = in_state(State.RECIPIENTS)
    for command in begin:
        core.send(command)
    hear(core, b"354 go\r\n" if begin == [Data()] else b"")
    core.send(Content(b"one"))
    [event] = hear(core, b"250 taken\r\n")
    assert isinstance(event, Violation)
    assert core.send(Content(b"x")) == b""
    assert core.send(ContentEnd()) == b""


# --------------------------------------------------------------------------------------- what is not offered


@pytest.mark.parametrize(
    ("command", "keyword"),
    [
        (Mail(ANN, size=1), "SIZE"),
        (Mail(ANN, body=Body.EIGHT_BIT), "8BITMIME"),
        (Mail(ANN, body=Body.SEVEN_BIT), "8BITMIME"),
        (Mail(ANN, body=Body.BINARY), "BINARYMIME"),
        (Mail(ANN, smtputf8=True), "SMTPUTF8"),
        (Mail(ANN, auth=""), "AUTH"),
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


@pytest.mark.parametrize("evil", ["x\r\nRSET", "x\nRSET", "x\rRSET", "x\0"])
def test_nothing_can_be_smuggled_into_a_line(evil):
    core = ready()
    for command in (Mail(Address(evil, "example.org")), Vrfy(evil), Ehlo(evil), Auth(evil.encode())):
        with pytest.raises(LocalProtocolError, match="line end"):
            core.send(command)
    assert core.outstanding == 0


def test_commands_that_no_client_of_this_kind_has_are_not_said():
    class Turn(Command):
        verb = "TURN"

    with pytest.raises(LocalProtocolError, match="nothing that a client says"):
        ready().send(Turn())


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


# ---------------------------------------------------------------------------------------------------- LMTP


def test_each_dialect_has_its_hello():
    with pytest.raises(LocalProtocolError):
        SmtpClientCore(greeted=True).send(Ehlo("x", lmtp=True))
    for command in (Ehlo("x"), Helo("x")):
        with pytest.raises(LocalProtocolError):
            SmtpClientCore(greeted=True, lmtp=True).send(command)


def test_lmtp_answers_for_each_accepted_recipient():
    core = ready(lmtp=True)
    for command in (Mail(ANN), Rcpt(BOB), Rcpt(ANN), Rcpt(BOB), Data()):
        core.send(command)
    hear(core, b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
    core.send(ContentEnd())
    assert core.outstanding == 1
    [first] = hear(core, b"250 one\r\n")
    assert core.outstanding == 1
    [second] = hear(core, b"451 two\r\n")
    assert core.outstanding == 0
    assert (first.command, first.reply.code) == (ContentEnd(), 250)
    assert (second.command, second.reply.code) == (ContentEnd(), 451)
    assert isinstance(hear(core, b"250 three\r\n")[0], Violation)


def test_lmtp_354_without_a_recipient_is_a_violation():
    core = ready(lmtp=True)
    for command in (Mail(ANN), Rcpt(BOB), Data()):
        core.send(command)
    assert isinstance(hear(core, b"250 ok\r\n550 no\r\n354 go\r\n")[-1], Violation)


# ------------------------------------------------------------------------------ greeting, 421, STARTTLS, the end


def test_greeting_comes_first_and_once():
    core = SmtpClientCore()
    assert core.role is Role.CLIENT
    assert core.timeout is Phase.GREETING
    [event] = hear(core, b"220-mx.example.net\r\n220 ESMTP\r\n")
    assert isinstance(event, Greeting)
    assert event.reply.lines == ("mx.example.net", "ESMTP")
    assert core.timeout is Phase.WORKING
    assert isinstance(hear(core, b"220 again\r\n")[0], Violation)


@pytest.mark.parametrize(
    ("greeting", "state"),
    [
        (b"554 no", State.REFUSED),
        (b"521 never", State.REFUSED),
        (b"450 later", State.REFUSED),
        (b"421 bye", State.CLOSING),
    ],
)
def test_negative_greeting(greeting, state):
    core = SmtpClientCore()
    [event] = hear(core, greeting + b"\r\n")
    assert isinstance(event, Greeting)
    assert core.state is state
    assert core.over


def test_greeting_that_wants_more_is_a_violation():
    assert isinstance(hear(SmtpClientCore(), b"354 go\r\n")[0], Violation)


def test_421_that_answers_nothing():
    core = ready()
    [event] = hear(core, b"421 4.4.2 Idle too long\r\nand so on")
    assert isinstance(event, Closing)
    assert event.reply.text == "Idle too long"
    assert core.buffered == 0
    with pytest.raises(LocalProtocolError):
        core.send(Mail(ANN))


def test_421_answers_the_oldest_and_ends_all():
    core = ready()
    for command in (Mail(ANN), Rcpt(BOB), Rcpt(ANN)):
        core.send(command)
    events = hear(core, b"250 ok\r\n421 bye\r\n250 ok\r\n")
    assert [event.reply.code for event in events] == [250, 421, 250]
    assert core.over
    with pytest.raises(LocalProtocolError):
        core.send(Quit())


def test_core_is_done_after_starttls_and_keeps_what_it_did_not_parse():
    core = ready()
    core.send(StartTls())
    events = hear(core, b"220 go\r\n250 injected\r\n")
    assert len(events) == 1
    assert core.next_event() is PAUSED
    core.receive_data(b"\x16\x03")
    assert core.trailing_data == b"250 injected\r\n\x16\x03"
    fresh = SmtpClientCore(greeted=True)
    assert not fresh.capabilities.keywords
    assert fresh.send(Ehlo("relay.example.org")) == b"EHLO relay.example.org\r\n"


def test_refused_starttls_changes_nothing():
    core = ready()
    core.send(StartTls())
    hear(core, b"454 4.7.0 no\r\n")
    assert core.capabilities.starttls
    assert core.trailing_data == b""
    core.send(Mail(ANN))


def test_end_of_file_comes_behind_what_was_said_before_it():
    core = ready()
    core.send(Quit())
    core.receive_data(b"221 bye\r\n22")
    core.receive_data(b"")
    assert isinstance(core.next_event(), Replied)
    assert isinstance(core.next_event(), EndOfFile)


@pytest.mark.parametrize("octets", [b"250 what for\r\n", b"hello\r\n", b"\0\r\n", b"x" * 20_000, b"250-x\r\n" * 600])
def test_violation_is_an_event_and_the_last(octets):
    core = ready()
    [event] = hear(core, octets)
    assert isinstance(event, Violation)
    assert hear(core, b"220 hello again\r\n") == []
    assert core.buffered == 0
    assert core.next_event() is PAUSED


def test_limits_of_time_follow_the_oldest_command():
    # RFC 5321 section 4.5.3.2
    core = ready()
    assert core.timeout is Phase.WORKING
    for command in (Mail(ANN), Rcpt(BOB), Data()):
        core.send(command)
    assert core.timeout is Phase.MAIL
    hear(core, b"250 ok\r\n")
    assert core.timeout is Phase.RECIPIENT
    hear(core, b"250 ok\r\n")
    assert core.timeout is Phase.DATA_INITIATION
    hear(core, b"354 go\r\n")
    assert core.timeout is Phase.DATA_BLOCK
    core.send(ContentEnd())
    assert core.timeout is Phase.DATA_TERMINATION
    core.send(Rset())
    core.send(Quit())
    assert core.timeout is Phase.DATA_TERMINATION
    hear(core, b"250 ok\r\n")
    assert core.timeout is Phase.RESPONSE
    hear(core, b"250 ok\r\n")
    assert core.timeout is Phase.QUIT


def test_limits_of_time_of_chunks():
    core = in_state(State.RECIPIENTS)
    core.send(Bdat(1, last=False))
    assert core.timeout is Phase.DATA_BLOCK
    core.send(Content(b"x"))
    core.send(ContentEnd(last=False))
    assert core.timeout is Phase.DATA_BLOCK
    core.send(Bdat(0, last=True))
    core.send(ContentEnd())
    hear(core, b"250 ok\r\n")
    assert core.timeout is Phase.DATA_TERMINATION


# ---------------------------------------------------------------------------------------------------- fuzz

MESSAGES = [*EXAMPLES, Content(b"x"), Content(b".\r\n"), ContentEnd(), ContentEnd(last=False), Bdat(1, last=False)]
PIECES = [
    *(b"220 a\r\n", b"250 a\r\n", b"250-a\r\n", b"250 PIPELINING\r\n", b"354 a\r\n", b"334 a\r\n", b"235 a\r\n"),
    *(b"421 a\r\n", b"450 a\r\n", b"554 a\r\n", b"250-x\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n"),
    *(b"\r\n", b"\n", b"2", b"\xff", b"", b"999 a\r\n", b"250-a\r\n251 a\r\n"),
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
