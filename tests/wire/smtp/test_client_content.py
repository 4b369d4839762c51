"""The client's core: content behind 354 and BDAT, and the replies to it."""

import pytest

from mailsuite.mail.envelope import Body
from mailsuite.wire.core import LocalProtocolError, Violation
from mailsuite.wire.smtp.client import Replied, SmtpClientCore
from mailsuite.wire.smtp.client_states import State
from mailsuite.wire.smtp.commands import (
    Bdat,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Rset,
)
from tests.wire.smtp.client_core import ANN, BOB, hear, in_state, ready


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
