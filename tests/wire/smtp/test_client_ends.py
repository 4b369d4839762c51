"""The client's core: greeting, 421, STARTTLS, violations, limits of time."""

import pytest

from mailsuite.wire.core import PAUSED, EndOfFile, LocalProtocolError, Phase, Role, Violation
from mailsuite.wire.smtp.client import Closing, Greeting, Replied, SmtpClientCore
from mailsuite.wire.smtp.client_states import State
from mailsuite.wire.smtp.commands import (
    Bdat,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Mail,
    Quit,
    Rcpt,
    Rset,
    StartTls,
)
from tests.wire.smtp.client_core import ANN, BOB, hear, in_state, ready


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
