"""Every command in every state, every answer to every event: the tables, written down a second time."""

import pytest

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, Event, LocalProtocolError
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
from mailsuite.wire.smtp.server_states import LEADS, LEGAL, State
from tests.wire.smtp.server_core import CHALLENGE, CONSENT, GREETING, LMTP_OFFER, OFFER, core_in, talk

# "ok" reaches the session, a number is what the core answers by itself, ">" names the state that follows.
TABLE = """
command                 REFUSING  INITIAL  READY  SENDER      RECIPIENTS  CHUNKS      BROKEN
EHLO_a                  503       ok       ok     ok          ok          ok          ok
HELO_a                  503       ok       ok     ok          ok          ok          ok
MAIL_FROM:<a@b>         503       503      ok     503         503         503         503
RCPT_TO:<a@b>           503       503      503    ok          ok          503         503
DATA                    503       503      503    554         ok          503         503
BDAT_0                  503       503      503    554>BROKEN  ok          ok          503
BDAT_0_LAST             503       503      503    554>BROKEN  ok          ok          503
RSET                    503       ok       ok     ok          ok          ok          ok
NOOP                    503       ok       ok     ok          ok          ok          ok
HELP                    503       ok       ok     ok          ok          ok          ok
VRFY_a                  503       ok       ok     ok          ok          ok          ok
QUIT                    ok        ok       ok     ok          ok          ok          ok
STARTTLS                503       503      ok     503         503         503         503
AUTH_PLAIN              503       503      ok     503         503         503         503
EXPN_a                  503       502      502    502         502         502         502
LHLO_a                  503       500      500    500         500         500         500
WHAT                    503       500      500    500         500         500         500
MAIL_FROM:<>_X=1        503       555      555    555         555         555         555
MAIL                    503       501      501    501         501         501         501
"""


def cells(table: str) -> list[tuple[bytes, State, str]]:
    head, *rows = (line.split() for line in table.strip().splitlines())
    return [
        (row[0].replace("_", " ").encode(), State[state], cell)
        for row in rows
        for state, cell in zip(head[1:], row[1:], strict=True)
    ]


def test_table_has_every_state_in_which_lines_are_commands() -> None:
    other = {State.CONNECTED, State.CONTENT, State.AUTH, State.DONE}
    assert {state for _, state, _ in cells(TABLE)} == set(State) - other


@pytest.mark.parametrize(("line", "state", "expected"), cells(TABLE))
def test_command_in_state(line: bytes, state: State, expected: str) -> None:
    core = core_in(state)
    core.receive_data(line + b"\r\n")
    event = core.next_event()
    if expected == "ok":
        assert isinstance(event, Command)
        assert line.startswith((event.verb.encode(), b"HELO"))
        assert state in LEGAL[type(event)]
    else:
        code, _, behind = expected.partition(">")
        assert isinstance(event, Answer)
        assert not event.closing
        assert event.data.startswith(code.encode())
        assert core.state is (State[behind] if behind else state)
        assert core.next_event() is NEED_DATA


@pytest.mark.parametrize("line", sorted({line for line, _, _ in cells(TABLE)}))
def test_command_before_the_greeting_waits(line: bytes) -> None:
    core = core_in(State.CONNECTED)
    core.receive_data(line + b"\r\n")
    assert core.next_event() is PAUSED
    core.send(GREETING)
    assert core.next_event() is not PAUSED


@pytest.mark.parametrize("line", sorted({line for line, _, _ in cells(TABLE)}))
def test_command_within_content_is_content(line: bytes) -> None:
    core = core_in(State.CONTENT)
    core.receive_data(line + b"\r\n")
    assert core.next_event() == Content(line)  # the CR LF may be part of the end


@pytest.mark.parametrize("line", sorted({line for line, _, _ in cells(TABLE)}))
def test_command_within_an_auth_exchange_is_a_response(line: bytes) -> None:
    core = core_in(State.AUTH)
    core.receive_data(line + b"\r\n")
    event = core.next_event()
    assert isinstance(event, AuthResponse)
    # These happen to be Base64.
    decodable = {b"WHAT", b"MAIL", b"DATA", b"RSET", b"NOOP", b"HELP", b"QUIT", b"STARTTLS"}
    assert (event.fault is None) == (line in decodable)


@pytest.mark.parametrize("line", sorted({line for line, _, _ in cells(TABLE)}))
def test_command_after_the_end_is_kept_for_whoever_follows(line: bytes) -> None:
    core = core_in(State.DONE)
    core.receive_data(line + b"\r\n")
    assert core.next_event() is PAUSED
    assert core.trailing_data == line + b"\r\n"
    assert core.trailing_data == line + b"\r\n"


OUTCOMES = """
event          positive    intermediate  transient  permanent
greeting       INITIAL     error         error      REFUSING
EHLO           READY       error         stays      stays
HELO           READY       error         stays      stays
MAIL           SENDER      error         stays      stays
RCPT           RECIPIENTS  error         stays      stays
DATA           error       CONTENT       stays      stays
end            READY       error         READY      READY
chunk          CHUNKS      error         BROKEN     BROKEN
RSET           READY       error         stays      stays
NOOP           stays       error         stays      stays
HELP           stays       error         stays      stays
VRFY           stays       error         stays      stays
QUIT           DONE        error         stays      stays
STARTTLS       DONE        error         stays      stays
AUTH           READY       AUTH          stays      stays
response       READY       AUTH          READY      READY
"""
BEGINNINGS: dict[str, tuple[State, bytes]] = {
    "greeting": (State.CONNECTED, b""),
    "EHLO": (State.INITIAL, b"EHLO a\r\n"),
    "HELO": (State.INITIAL, b"HELO a\r\n"),
    "MAIL": (State.READY, b"MAIL FROM:<>\r\n"),
    "RCPT": (State.SENDER, b"RCPT TO:<a@b>\r\n"),
    "DATA": (State.RECIPIENTS, b"DATA\r\n"),
    "end": (State.CONTENT, b".\r\n"),
    "chunk": (State.RECIPIENTS, b"BDAT 0\r\n"),
    "RSET": (State.SENDER, b"RSET\r\n"),
    "NOOP": (State.SENDER, b"NOOP\r\n"),
    "HELP": (State.SENDER, b"HELP\r\n"),
    "VRFY": (State.SENDER, b"VRFY a\r\n"),
    "QUIT": (State.SENDER, b"QUIT\r\n"),
    "STARTTLS": (State.READY, b"STARTTLS\r\n"),
    "AUTH": (State.READY, b"AUTH PLAIN\r\n"),
    "response": (State.AUTH, b"AAAA\r\n"),
}
KINDS = {
    "positive": (200, 235, 250, 299),
    "intermediate": (334, 354),
    "transient": (450, 499),
    "permanent": (500, 554, 599),
}


def outcomes() -> list[tuple[str, int, str]]:
    head, *rows = (line.split() for line in OUTCOMES.strip().splitlines())
    return [
        (row[0], code, cell)
        for row in rows
        for kind, cell in zip(head[1:], row[1:], strict=True)
        for code in KINDS[kind]
    ]


@pytest.mark.parametrize(("name", "code", "expected"), outcomes())
def test_answer_leads(name: str, code: int, expected: str) -> None:
    state, octets = BEGINNINGS[name]
    core = core_in(state)
    before = core.state
    if octets:
        core.receive_data(octets)
        event = core.next_event()
        assert isinstance(event, Bdat) is (name == "chunk")
    if name == "greeting":
        # RFC 5321 section 3.1: 220 and 554 are the two greetings there are, besides 421.
        code = {"INITIAL": 220, "REFUSING": 554}.get(expected, code)
    if name == "chunk":
        assert core.next_event() == ContentEnd(last=False)
    assert core.next_event() is PAUSED
    reply = Reply(code, None, ("whatever",))
    if expected == "error":
        with pytest.raises(LocalProtocolError):
            core.send(reply)
        assert core.next_event() is PAUSED
        return
    assert core.send(reply) == reply.encoded
    assert core.state is (before if expected == "stays" else State[expected])
    assert core.next_event() is (PAUSED if core.state is State.DONE else NEED_DATA)


@pytest.mark.parametrize("state", State)
def test_421_ends_every_state(state: State) -> None:
    core = core_in(state)
    if state is State.DONE:
        with pytest.raises(LocalProtocolError):
            core.send(replies.SHUTTING_DOWN)
        return
    assert core.send(replies.SHUTTING_DOWN) == replies.SHUTTING_DOWN.encoded
    assert core.state is State.DONE
    core.receive_data(b"NOOP\r\n")
    assert core.next_event() is PAUSED
    with pytest.raises(LocalProtocolError):
        core.send(replies.OK)


@pytest.mark.parametrize("state", sorted(set(State) - {State.CONNECTED, State.DONE}, key=lambda state: state.name))
def test_reply_to_nothing_is_our_own_fault(state: State) -> None:
    core = core_in(state)
    with pytest.raises(LocalProtocolError):
        core.send(replies.OK)
    assert core.state is state


def test_rset_before_ehlo_does_not_stand_for_it() -> None:
    core = core_in(State.INITIAL)
    talk(core, b"RSET\r\n")
    assert core.state is State.INITIAL


def test_tables_speak_of_the_same_events() -> None:
    answered = {event for event, _ in LEADS if event is not None}
    assert answered <= set(CONSENT)
    assert set(LEGAL) <= {*CONSENT, Bdat}


@pytest.mark.parametrize("state", [State.SENDER, State.RECIPIENTS, State.CHUNKS, State.BROKEN])
def test_lmtp_differs_in_what_has_no_recipient(state: State) -> None:
    core = core_in(state, LMTP_OFFER)
    events, said = talk(core, b"DATA\r\n")
    if state is State.RECIPIENTS:
        assert events == [Data()]
    else:
        assert said == replies.BAD_SEQUENCE.encoded  # RFC 2033 section 4.2: 503, not 554
        assert core.state is state


@pytest.mark.parametrize(
    ("verb", "lmtp", "known"),
    [
        *((b"EHLO", False, True), (b"HELO", False, True), (b"LHLO", False, False)),
        *((b"EHLO", True, False), (b"HELO", True, False), (b"LHLO", True, True)),
    ],
)
def test_each_dialect_has_its_own_greeting(verb: bytes, lmtp: bool, known: bool) -> None:
    core = core_in(State.INITIAL, LMTP_OFFER if lmtp else OFFER)
    events, said = talk(core, verb + b" client.example.org\r\n")
    assert isinstance(events[0], Ehlo | Helo) is known
    assert (said == replies.UNRECOGNIZED.encoded) is not known


@pytest.mark.parametrize(
    "kind", [Ehlo, Helo, Mail, Rcpt, Data, Rset, Noop, Help, Vrfy, Quit, StartTls, Auth, AuthResponse]
)
def test_every_event_but_content_waits_for_its_answer(kind: type[Event]) -> None:
    name = {Ehlo: "EHLO", Helo: "HELO", AuthResponse: "response"}.get(kind) or getattr(kind, "verb", "")
    state, octets = BEGINNINGS[name]
    core = core_in(state)
    core.receive_data(octets + (b"" if kind is StartTls else b"NOOP\r\n"))
    assert isinstance(core.next_event(), kind)
    assert core.next_event() is PAUSED
    assert core.next_event() is PAUSED
    core.send(CONSENT[kind])
    assert core.next_event() is not PAUSED or core.state is State.DONE


def test_content_end_waits_for_its_answer() -> None:
    core = core_in(State.CONTENT)
    core.receive_data(b".\r\nNOOP\r\n")
    assert core.next_event() == ContentEnd()
    assert core.next_event() is PAUSED
    core.send(replies.QUEUED)
    assert core.next_event() == Noop()


def test_challenge_is_followed_by_a_response_and_nothing_else() -> None:
    core = core_in(State.READY)
    core.receive_data(b"AUTH PLAIN\r\n")
    assert core.next_event() == Auth(b"PLAIN")
    core.send(CHALLENGE)
    core.receive_data(b"*\r\n")
    assert core.next_event() == AuthResponse(None)
