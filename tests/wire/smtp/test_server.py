"""The server's core as its driver sees it: phases, the end of input, what is left over, how long errors are borne."""

from dataclasses import replace

import pytest

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, EndOfFile, LocalProtocolError, Phase, Role
from mailsuite.wire.smtp.commands import Bdat, Content, ContentEnd, Data, Ehlo, Mail, Noop, Quit, Rcpt, StartTls
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore
from mailsuite.wire.smtp.server_states import State
from tests.wire.smtp.server_core import GREETING, LMTP_OFFER, OFFER, core_in, talk


def test_role() -> None:
    assert SmtpServerCore(OFFER).role is Role.SERVER


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (State.CONNECTED, Phase.WORKING),
        (State.INITIAL, Phase.COMMAND),
        (State.RECIPIENTS, Phase.COMMAND),
        (State.CONTENT, Phase.DATA_BLOCK),
        (State.CHUNKS, Phase.COMMAND),
        (State.AUTH, Phase.COMMAND),
        (State.DONE, Phase.WORKING),
    ],
)
def test_phase_of_state(state: State, phase: Phase) -> None:
    # RFC 5321 section 4.5.3.2.7
    assert core_in(state).timeout is phase


def test_phase_while_something_is_answered_is_ours() -> None:
    core = core_in(State.CONTENT)
    core.receive_data(b".\r\n")
    assert core.timeout is Phase.DATA_BLOCK
    assert core.next_event() == ContentEnd()
    assert core.timeout is Phase.WORKING
    core.send(replies.QUEUED)
    assert core.timeout is Phase.COMMAND


def test_phase_within_a_chunk_that_nobody_sees() -> None:
    core = core_in(State.READY)
    core.receive_data(b"BDAT 3\r\n")
    assert core.next_event() is NEED_DATA
    assert core.timeout is Phase.DATA_BLOCK
    core.receive_data(b"abc")
    assert core.next_event() == Answer(replies.BAD_SEQUENCE.encoded)
    assert core.timeout is Phase.COMMAND


@pytest.mark.parametrize("state", State)
def test_in_transaction(state: State) -> None:
    within = {State.SENDER, State.RECIPIENTS, State.CONTENT, State.CHUNKS, State.BROKEN}
    assert core_in(state).in_transaction is (state in within)


def test_in_transaction_from_mail_to_its_end() -> None:
    core = core_in(State.READY)
    core.receive_data(b"MAIL FROM:<>\r\n")
    assert not core.in_transaction
    core.next_event()
    assert core.in_transaction
    core.send(replies.LOCAL_ERROR)
    assert not core.in_transaction


# -------------------------------------------------------------------------------- the end of input


@pytest.mark.parametrize("state", sorted(set(State) - {State.CONNECTED, State.DONE}, key=lambda state: state.name))
def test_end_of_input_in_every_state(state: State) -> None:
    core = core_in(state)
    core.receive_data(b"")
    assert core.next_event() == EndOfFile()
    assert core.next_event() == EndOfFile()


def test_end_of_input_comes_behind_all_that_was_said() -> None:
    core = core_in(State.READY)
    core.receive_data(b"NOOP\r\nWHAT\r\nQUI")
    core.receive_data(b"")
    assert core.next_event() == Noop()
    assert core.next_event() is PAUSED
    core.send(replies.OK)
    assert core.next_event() == Answer(replies.UNRECOGNIZED.encoded)
    assert core.next_event() == EndOfFile()


def test_end_of_input_before_the_greeting() -> None:
    core = core_in(State.CONNECTED)
    core.receive_data(b"")
    assert core.next_event() is PAUSED
    core.send(GREETING)
    assert core.next_event() == EndOfFile()


# ------------------------------------------------------------------------------------------- STARTTLS


def test_starttls_alone_is_handed_out() -> None:
    core = core_in(State.READY)
    core.receive_data(b"STARTTLS\r\n")
    assert core.next_event() == StartTls()
    core.send(replies.READY_FOR_TLS)
    assert core.next_event() is PAUSED
    assert core.trailing_data == b""
    with pytest.raises(LocalProtocolError):
        core.send(replies.OK)


@pytest.mark.parametrize("behind", [b"\0", b"\n", b"EHLO a\r\n", b"x" * 100_000])
def test_starttls_with_something_behind_it_is_the_end(behind: bytes) -> None:
    core = core_in(State.READY)
    core.receive_data(b"STARTTLS\r\n" + behind)
    assert core.next_event() == Answer(replies.BEHIND_STARTTLS.encoded, closing=True)
    assert core.next_event() is PAUSED
    assert core.trailing_data == b""
    assert core.state is State.DONE


def test_plaintext_that_comes_while_starttls_is_answered_is_left_for_the_driver_to_see() -> None:
    core = core_in(State.READY)
    core.receive_data(b"STARTTLS\r\n")
    core.next_event()
    core.receive_data(b"MAIL FROM:<evil@example.org>\r\n")
    core.send(replies.READY_FOR_TLS)
    assert core.next_event() is PAUSED
    assert core.trailing_data == b"MAIL FROM:<evil@example.org>\r\n"


def test_commands_behind_a_starttls_that_was_refused_are_commands() -> None:
    core = core_in(State.READY)
    core.receive_data(b"STARTTLS\r\n")
    core.next_event()
    core.receive_data(b"NOOP\r\n")
    core.send(replies.TLS_UNAVAILABLE)
    assert core.trailing_data == b""
    assert core.next_event() == Noop()


def test_core_behind_starttls_has_been_greeted() -> None:
    core = SmtpServerCore(OFFER, greeted=True)
    assert core.state is State.INITIAL
    with pytest.raises(LocalProtocolError):
        core.send(GREETING)
    core.receive_data(b"EHLO a\r\n")
    assert core.next_event() == Ehlo("a")


# --------------------------------------------------------------------------------------------- errors


def test_errors_that_the_core_refuses_end_in_421() -> None:
    core = core_in(State.READY, replace(OFFER, max_errors=2))
    core.receive_data(b"WHAT\r\n" * 5)
    answers = [core.next_event() for _ in range(4)]
    refusal = Answer(replies.UNRECOGNIZED.encoded)
    assert answers == [refusal, refusal, refusal, Answer(replies.TOO_MANY_ERRORS.encoded, closing=True)]
    assert core.next_event() is PAUSED
    assert core.state is State.DONE


@pytest.mark.parametrize(("reply", "counts"), [(replies.NO_SUCH_USER, True), (replies.MAILBOX_FULL, False)])
def test_errors_that_the_session_refuses_count_as_well(reply: Reply, counts: bool) -> None:
    core = core_in(State.SENDER, replace(OFFER, max_errors=2))
    for _ in range(3):
        core.receive_data(b"RCPT TO:<nobody@example.net>\r\n")
        assert isinstance(core.next_event(), Rcpt)
        core.send(reply)
    after = Answer(replies.TOO_MANY_ERRORS.encoded, closing=True) if counts else NEED_DATA
    assert core.next_event() == after


def test_errors_do_not_cut_content_short() -> None:
    """The 421 waits until what flows has ended: it would be taken for the answer to something else."""
    core = core_in(State.RECIPIENTS, replace(OFFER, max_errors=1))
    talk(core, b"WHAT\r\nDATA\r\n")
    events, _ = talk(core, b"bare\rCR\r\n.\r\n")
    assert events == [
        ContentEnd(fault=replies.BARE_CR_IN_CONTENT),
        Answer(replies.TOO_MANY_ERRORS.encoded, closing=True),
    ]


def test_no_error_is_borne_where_none_is_allowed() -> None:
    core = core_in(State.READY, replace(OFFER, max_errors=0))
    _, said = talk(core, b"NOOP\r\nWHAT\r\nNOOP\r\n")
    assert said == replies.OK.encoded + replies.UNRECOGNIZED.encoded + replies.TOO_MANY_ERRORS.encoded


# -------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("way", [b"DATA\r\n" + b"x" * 1000 + b"\r\n.\r\n", b"BDAT 1000 LAST\r\n" + b"x" * 1000])
def test_no_limit_of_size(way: bytes) -> None:
    core = core_in(State.RECIPIENTS, replace(OFFER, max_size=None))
    events, _ = talk(core, way)
    assert events[-1] == ContentEnd()


def test_limit_of_size_counts_anew_for_each_message() -> None:
    core = core_in(State.RECIPIENTS)
    for _ in range(3):
        events, _ = talk(core, b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 40 LAST\r\n" + b"x" * 40)
        assert events[-1] == ContentEnd()
        talk(core, b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\n")


def test_content_is_handed_out_as_it_comes() -> None:
    core = core_in(State.CONTENT)
    for piece in (b"one", b"two"):
        core.receive_data(piece)
        assert core.next_event() == Content(piece)
        assert core.next_event() is NEED_DATA


def test_lmtp_wants_as_many_answers_as_recipients() -> None:
    core = core_in(State.RECIPIENTS, LMTP_OFFER)
    talk(core, b"RCPT TO:<c@d>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    core.receive_data(b".\r\nNOOP\r\n")
    assert core.next_event() == ContentEnd()
    for reply in (replies.DELIVERED, replies.MAILBOX_FULL, replies.NO_SUCH_USER):
        assert core.next_event() is PAUSED
        assert core.state is State.CONTENT
        core.send(reply)
    assert core.state is State.READY
    assert core.next_event() == Noop()


def test_recipients_of_an_earlier_message_do_not_count() -> None:
    core = core_in(State.RECIPIENTS, LMTP_OFFER)
    talk(core, b"RCPT TO:<c@d>\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n")
    _, said = talk(core, b"BDAT 0 LAST\r\n")
    assert said == replies.QUEUED.encoded


def test_421_between_the_answers_of_lmtp_ends_it() -> None:
    core = core_in(State.RECIPIENTS, LMTP_OFFER)
    talk(core, b"RCPT TO:<c@d>\r\n")
    core.receive_data(b"BDAT 0 LAST\r\n")
    assert core.next_event() == Bdat(0, last=True)
    assert core.next_event() == ContentEnd()
    core.send(replies.DELIVERED)
    core.send(replies.SHUTTING_DOWN)
    assert core.state is State.DONE


# ---------------------------------------------------------------------------------------------- offer


def test_offer_in_full() -> None:
    offer = Offer("mx.example.net", max_size=1000, starttls=True, mechanisms=(b"SCRAM-SHA-256", b"PLAIN"))
    assert offer.ehlo_reply("client.example.org").lines == (
        "mx.example.net greets client.example.org",
        "PIPELINING",
        "SIZE 1000",
        "8BITMIME",
        "SMTPUTF8",
        "CHUNKING",
        "ENHANCEDSTATUSCODES",
        "STARTTLS",
        "AUTH SCRAM-SHA-256 PLAIN",
        "HELP",
    )
    assert offer.parameters == {"SIZE", "BODY", "SMTPUTF8", "AUTH"}


def test_offer_tells_of_mechanisms_that_somebody_can_use() -> None:
    usable = {b"PLAIN"}
    offer = Offer("a", mechanisms=(b"SCRAM-SHA-256", b"PLAIN"), usable=lambda name: name in usable)
    assert "AUTH PLAIN" in offer.ehlo_reply("b").lines
    usable.add(b"SCRAM-SHA-256")
    assert "AUTH SCRAM-SHA-256 PLAIN" in offer.ehlo_reply("b").lines
    usable.clear()
    assert not [line for line in offer.ehlo_reply("b").lines if line.startswith("AUTH")]
    assert "AUTH" not in offer.absent  # who names one all the same is answered as ever
    # RFC 2645 section 5.1.1
    assert "AUTH SCRAM-SHA-256 PLAIN" in replace(offer, odmr=True).ehlo_reply("b").lines


def test_offer_of_reports_and_of_tls_that_is_required() -> None:
    offer = Offer("mx.example.net", dsn=True, requiretls=True)
    assert offer.parameters >= {"RET", "ENVID", "NOTIFY", "ORCPT", "REQUIRETLS"}
    assert "DSN" in offer.ehlo_reply("a").lines
    assert "REQUIRETLS" not in offer.ehlo_reply("a").lines
    assert "REQUIRETLS" in offer.ehlo_reply("a", secure=True).lines
    # On-demand mail relay is a profile without mail (RFC 2645).
    assert not {"DSN", "REQUIRETLS"} & {*Offer("a", dsn=True, requiretls=True, odmr=True).ehlo_reply("a").lines}


def test_offer_of_the_least() -> None:
    offer = Offer("mx.example.net", max_size=None, chunking=False, smtputf8=False)
    expected = ("mx.example.net greets a", "PIPELINING", "SIZE 0", "8BITMIME", "ENHANCEDSTATUSCODES", "HELP")
    assert offer.ehlo_reply("a").lines == expected
    assert offer.parameters == {"SIZE", "BODY"}


def test_every_line_of_the_offer_fits() -> None:
    """In 512 octets, whatever the client calls itself (RFC 5321 section 4.5.3.1.5)."""
    core = core_in(State.INITIAL)
    name = "a" * 255
    core.receive_data(b"EHLO " + name.encode() + b"\r\n")
    event = core.next_event()
    assert event == Ehlo(name)
    wire = core.send(core.offer.ehlo_reply(name))
    assert len(wire.splitlines()) == len(core.offer.ehlo_reply(name).lines)


def test_events_of_a_first_mail() -> None:
    core = core_in(State.INITIAL)
    octets = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\nA: b\r\n.\r\nQUIT\r\n"
    events, _ = talk(core, octets)
    assert [type(event) for event in events] == [Ehlo, Mail, Rcpt, Data, Content, ContentEnd, Quit]
