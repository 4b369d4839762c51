"""ETRN, ATRN, TURN and CHECKPOINT in the client's core."""

import pytest

from mailsuite.wire.core import NEED_DATA, PAUSED, LocalProtocolError, Phase, Violation
from mailsuite.wire.smtp.checkpoint import offset_of
from mailsuite.wire.smtp.client import Replied, SmtpClientCore
from mailsuite.wire.smtp.client_states import LEGAL, State
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Mail,
    Quit,
    Rcpt,
    Rset,
    Turn,
)
from mailsuite.wire.smtp.server_states import LEGAL as SERVERS_LEGAL
from tests.wire.smtp.client_core import ALL, ANN, BOB, hear, ready

CHECKPOINTED = Mail(ANN, transid="12345@claremont.edu")
TURNS: list[Command] = [Atrn(), Atrn(("example.org", "example.com")), Turn()]


def logged_in() -> SmtpClientCore:
    core = ready()
    core.send(Auth(b"PLAIN", b"x"))
    hear(core, b"235 ok\r\n")
    return core


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (Etrn("example.org"), b"ETRN example.org\r\n"),
        (Etrn("@example.org"), b"ETRN @example.org\r\n"),
        (Etrn("#uucp"), b"ETRN #uucp\r\n"),
        (Atrn(), b"ATRN\r\n"),
        (Atrn(("example.org",)), b"ATRN example.org\r\n"),
        (Atrn(("example.org", "example.com")), b"ATRN example.org,example.com\r\n"),  # RFC 2645: without spaces
        (Turn(), b"TURN\r\n"),
        (CHECKPOINTED, b"MAIL FROM:<ann@example.org> TRANSID=<12345@claremont.edu>\r\n"),
    ],
)
def test_what_is_said(command: Command, line: bytes) -> None:
    assert logged_in().send(command) == line


@pytest.mark.parametrize("command", [Etrn("example.org"), Atrn(), CHECKPOINTED])
def test_what_was_not_offered_is_not_said(command: Command) -> None:
    needed = {Etrn: "ETRN", Atrn: "ATRN", Mail: "CHECKPOINT"}[type(command)]
    core = ready(*(word for word in ALL if word != needed))
    with pytest.raises(LocalProtocolError, match=f"needs {needed}"):
        core.send(command)
    assert core.outstanding == 0


def test_turn_needs_no_extension() -> None:
    # RFC 821 section 3.8: it is older than EHLO
    core = SmtpClientCore(greeted=True)
    core.send(Helo("relay.example.org"))
    hear(core, b"250 mx.example.net\r\n")
    assert core.send(Turn()) == b"TURN\r\n"


@pytest.mark.parametrize(
    "command",
    [
        *(Etrn(""), Etrn("local"), Etrn("a.b c.d"), Etrn("#"), Etrn("@@a.b"), Etrn("bücher.example")),
        *(Atrn(("local",)), Atrn(("",)), Atrn(("a.b", "c d")), Atrn(("bücher.example",))),
        *(Mail(ANN, transid=bad) for bad in ("", "a", "<a@b>", "a b@c", "a@b> SIZE=1 X=<a@b", "1" * 77 + "@x")),
    ],
)
def test_what_no_server_could_read_is_not_said(command: Command) -> None:
    core = ready()
    with pytest.raises(LocalProtocolError):
        core.send(command)
    assert core.outstanding == 0


def test_lmtp_has_no_checkpoints() -> None:
    core = ready(lmtp=True)
    with pytest.raises(LocalProtocolError, match="TRANSID"):
        core.send(CHECKPOINTED)


@pytest.mark.parametrize(
    "reply", [b"250 2.0.0 OK\r\n", b"250-OK\r\n250 now reversing\r\n", b"299 turned\r\n", b"250\r\n"]
)
@pytest.mark.parametrize("command", TURNS)
@pytest.mark.parametrize("cut", [1, 1000])
def test_core_is_done_after_a_turn_and_keeps_what_it_did_not_parse(command: Command, reply: bytes, cut: int) -> None:
    core = logged_in()
    core.send(command)
    assert core.timeout is Phase.TURN
    octets = reply + b"EHLO mx.example.net\r\nMA"
    events = [event for at in range(0, len(octets), cut) for event in hear(core, octets[at : at + cut])]
    [event] = events
    assert isinstance(event, Replied)
    assert event.command is command
    assert event.reply.is_positive
    assert core.over
    assert core.next_event() is PAUSED
    core.receive_data(b"IL\r\n")
    core.receive_data(b"")
    assert core.next_event() is PAUSED
    assert core.trailing_data == core.trailing_data == b"EHLO mx.example.net\r\nMAIL\r\n"
    with pytest.raises(LocalProtocolError):
        core.send(Quit())


@pytest.mark.parametrize("code", [450, 451, 453, 500, 501, 502, 503, 530])
@pytest.mark.parametrize("command", TURNS)
def test_refused_turn_changes_nothing(command: Command, code: int) -> None:
    # RFC 2645 section 7
    core = logged_in()
    core.send(command)
    [event] = hear(core, f"{code}-no\r\n{code} really\r\n".encode())
    assert isinstance(event, Replied)
    assert event.reply.code == code
    assert core.state is State.READY
    assert core.trailing_data == b""
    assert core.capabilities.atrn
    core.send(command)
    core.receive_data(b"421 4.3.2 closing\r\n")
    assert isinstance(core.next_event(), Replied)
    assert core.state is State.CLOSING


def test_answer_that_wants_more_is_no_answer_to_a_turn() -> None:
    core = logged_in()
    core.send(Atrn())
    assert isinstance(hear(core, b"354 go on\r\n")[0], Violation)


@pytest.mark.parametrize("code", [250, 251, 252, 253, 458, 459, 500, 501, 503])
def test_etrn_leads_nowhere(code: int) -> None:
    # RFC 1985 section 5.1
    core = ready()
    core.send(Etrn("example.org"))
    assert core.timeout is Phase.RESPONSE
    [event] = hear(core, f"{code} about node example.org\r\n".encode())
    assert isinstance(event, Replied)
    assert event.reply.code == code
    assert core.state is State.READY
    core.send(Etrn("@example.com"))


def test_none_of_them_within_a_transaction() -> None:
    core = logged_in()
    core.send(CHECKPOINTED)
    hear(core, b"250 ok\r\n")
    for command in (Etrn("example.org"), Atrn(), Turn()):
        with pytest.raises(LocalProtocolError):
            core.send(command)


# ------------------------------------------------------------------------------------------ CHECKPOINT


@pytest.mark.parametrize("data", [True, False])
def test_content_follows_a_resumed_mail_at_once(data: bool) -> None:
    # RFC 1845 section 5
    core = ready()
    core.send(CHECKPOINTED)
    assert core.timeout is Phase.MAIL
    [event] = hear(core, b"355 6135 is the transaction offset\r\n")
    assert isinstance(event, Replied)
    assert event.command is CHECKPOINTED
    assert offset_of(event.reply) == 6135
    assert core.state is State.RECIPIENTS
    if data:
        core.send(Data())
        hear(core, b"354 Send previously checkpointed message\r\n")
        core.send(Content(b"the rest\r\n"))
        assert core.send(ContentEnd()) == b".\r\n"
    else:
        core.send(Bdat(8, last=True))
        core.send(Content(b"the rest"))
        core.send(ContentEnd())
    assert isinstance(hear(core, b"250 ok\r\n")[0], Replied)
    assert core.state is State.READY


def test_recipients_may_follow_a_resumed_mail() -> None:
    core = ready()
    core.send(CHECKPOINTED)
    hear(core, b"355 0\r\n")
    core.send(Rcpt(BOB))
    core.send(Data())
    hear(core, b"550 no\r\n354 go\r\n")
    assert core.state is State.CONTENT


def test_commands_pipelined_behind_a_mail_that_is_resumed() -> None:
    core = ready()
    for command in (Rset(), CHECKPOINTED, Rcpt(BOB), Data()):
        core.send(command)
    events = hear(core, b"250 ok\r\n355 7 is it\r\n250 ok\r\n354 go\r\n")
    assert [event.reply.code for event in events if isinstance(event, Replied)] == [250, 355, 250, 354]
    assert core.state is State.CONTENT


def test_transactions_may_follow_each_other_without_any_answer() -> None:
    core = ready()
    for _ in range(3):
        core.send(CHECKPOINTED)
        core.send(Rcpt(BOB))
        core.send(Bdat(3, last=True))
        core.send(Content(b"hi!"))
        core.send(ContentEnd())
        core.send(Rset())
    assert core.outstanding == 12
    good = b"250 ok\r\n" * 4
    events = hear(core, good + b"355 3 I have it\r\n250 ok\r\n554 no more\r\n250 ok\r\n" + good)
    assert [event.reply.code for event in events if isinstance(event, Replied)] == [
        *[250] * 4,
        355,
        250,
        554,
        *[250] * 5,
    ]
    assert core.state is State.READY


def test_refusals_within_a_deep_pipeline_take_nothing_with_them() -> None:
    core = ready()
    for _ in range(2):
        for command in (CHECKPOINTED, Rcpt(BOB), Bdat(0, last=True), ContentEnd(), Rset()):
            core.send(command)
    events = hear(core, b"550 no\r\n503 no\r\n503 no\r\n250 ok\r\n" + b"250 ok\r\n" * 4)
    assert [event.reply.code for event in events if isinstance(event, Replied)] == [550, 503, 503, *[250] * 5]
    assert core.state is State.READY


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (CHECKPOINTED, b"355 somewhere\r\n"),
        (CHECKPOINTED, b"355\r\n"),
        (CHECKPOINTED, b"354 6135 go on\r\n"),
        (CHECKPOINTED, b"355-is it\r\n355 6135\r\n"),
        (Mail(ANN), b"355 6135 is the transaction offset\r\n"),
    ],
)
def test_mail_is_resumed_by_an_offset_and_only_where_it_has_a_transid(command: Mail, reply: bytes) -> None:
    core = ready()
    core.send(command)
    assert isinstance(hear(core, reply)[0], Violation)
    assert core.over


@pytest.mark.parametrize(("code", "state"), [(250, State.SENDER), (450, State.READY), (555, State.READY)])
def test_mail_with_a_transid_has_the_other_answers_too(code: int, state: State) -> None:
    core = ready()
    core.send(CHECKPOINTED)
    assert isinstance(hear(core, f"{code} so\r\n".encode())[0], Replied)
    assert core.state is state
    assert core.next_event() is NEED_DATA


def test_every_command_of_the_server_can_be_said() -> None:
    assert set(SERVERS_LEGAL) <= set(LEGAL)
    assert {Ehlo, Etrn, Atrn, Turn} <= set(SERVERS_LEGAL)
