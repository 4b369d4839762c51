"""ETRN, ATRN, TURN and CHECKPOINT in the server's core: when each is taken, and where its answer leads."""

from dataclasses import replace

import pytest

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, LocalProtocolError, Phase
from mailsuite.wire.smtp.checkpoint import resuming
from mailsuite.wire.smtp.commands import Atrn, Bdat, Content, ContentEnd, Data, Etrn, Mail, Noop, Quit, Rcpt, Rset, Turn
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server_states import State
from tests.wire.smtp.server_core import CONSENT, ODMR_OFFER, OFFER, RELAYING_OFFER, core_in, talk

IN_TRANSACTION = [State.SENDER, State.RECIPIENTS, State.CHUNKS, State.BROKEN]
LINES = [b"ETRN example.org\r\n", b"ATRN example.org\r\n", b"TURN\r\n"]
TURNS = [(b"ATRN example.org,example.com\r\n", Atrn(("example.org", "example.com"))), (b"TURN\r\n", Turn())]
REFUSALS = [replies.ATRN_REFUSED, replies.ATRN_UNAVAILABLE, replies.NO_MAIL, replies.NOT_IMPLEMENTED]
CHECKPOINTED = b"MAIL FROM:<fred@example.org> TRANSID=<1@example.org>\r\n"


def said_to(state: State, line: bytes, offer: Offer = RELAYING_OFFER, *, authenticated: bool = True) -> bytes:
    """What a core says by itself."""
    core = core_in(state, offer, authenticated=authenticated)
    core.receive_data(line)
    event = core.next_event()
    assert isinstance(event, Answer), event
    assert core.state is state
    return event.data


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("state", IN_TRANSACTION)
def test_none_of_them_within_a_transaction(state: State, line: bytes) -> None:
    # RFC 1985 section 5
    assert said_to(state, line) == replies.BAD_SEQUENCE.encoded


@pytest.mark.parametrize("line", LINES)
def test_none_of_them_after_a_negative_greeting(line: bytes) -> None:
    core = core_in(State.REFUSING, RELAYING_OFFER)
    assert talk(core, line)[1] == replies.BAD_SEQUENCE.encoded


def test_etrn_comes_behind_ehlo() -> None:
    assert said_to(State.INITIAL, LINES[0], authenticated=False) == b"503 5.5.1 Say EHLO first\r\n"


@pytest.mark.parametrize("line", LINES[1:])
@pytest.mark.parametrize("state", [State.INITIAL, State.READY, *IN_TRANSACTION])
@pytest.mark.parametrize("offer", [RELAYING_OFFER, replace(RELAYING_OFFER, require_auth=True)])
def test_turns_are_for_those_who_have_logged_in(state: State, line: bytes, offer: Offer) -> None:
    # RFC 2645 section 5.2.1
    if offer.require_auth and state in IN_TRANSACTION:
        state = State.READY
    assert said_to(state, line, offer, authenticated=False) == b"530 5.7.0 Authentication required\r\n"


def test_etrn_asks_for_no_login_but_where_all_does() -> None:
    events, _ = talk(core_in(State.READY, RELAYING_OFFER), LINES[0])
    assert events == [Etrn("example.org")]
    demanding = replace(RELAYING_OFFER, require_auth=True)
    assert said_to(State.READY, LINES[0], demanding, authenticated=False) == replies.AUTH_REQUIRED.encoded


@pytest.mark.parametrize("line", LINES)
def test_tls_comes_first_where_it_is_demanded(line: bytes) -> None:
    offer = replace(RELAYING_OFFER, require_tls=True)
    assert said_to(State.READY, line, offer, authenticated=False) == replies.TLS_REQUIRED.encoded


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"ETRN example.org", replies.UNRECOGNIZED),  # RFC 1985 section 5.1 knows 500, and no 502
        (b"ETRN", replies.UNRECOGNIZED),
        (b"ATRN example.org", replies.NOT_IMPLEMENTED),  # RFC 2645 section 7
        (b"ATRN ,", replies.NOT_IMPLEMENTED),
        (b"TURN", replies.NOT_IMPLEMENTED),  # RFC 821 section 3.8
        (b"MAIL FROM:<a@b> TRANSID=<a@b>", replies.UNKNOWN_PARAMETER),
    ],
)
@pytest.mark.parametrize("state", [State.READY, State.SENDER])
def test_what_is_not_offered_is_not_there(line: bytes, reply: Reply, state: State) -> None:
    assert said_to(state, line + b"\r\n", OFFER) == reply.encoded


def test_transid_is_not_there_after_helo() -> None:
    assert talk(core_in(State.INITIAL, RELAYING_OFFER), b"HELO a\r\n" + CHECKPOINTED)[1].endswith(
        replies.UNKNOWN_PARAMETER.encoded
    )


@pytest.mark.parametrize(
    "reply",
    [
        *(replies.ETRN_STARTED, replies.ETRN_NO_MAIL, replies.ETRN_PENDING, replies.ETRN_COUNTED),
        *(replies.ETRN_UNABLE, replies.ETRN_NOT_ALLOWED, replies.SYNTAX_ERROR, replies.BAD_ARGUMENTS),
    ],
)
def test_etrn_leads_nowhere(reply: Reply) -> None:
    core = core_in(State.READY, RELAYING_OFFER)
    core.receive_data(b"ETRN #uucp\r\nNOOP\r\n")
    assert core.next_event() == Etrn("#uucp")
    assert core.next_event() is PAUSED
    assert core.send(reply) == reply.encoded
    assert core.state is State.READY
    assert core.next_event() == Noop()


@pytest.mark.parametrize(("line", "command"), TURNS)
@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_turn_leaves_behind_what_stands_behind_it(line: bytes, command: Atrn | Turn, cut: int) -> None:
    core = core_in(State.READY, RELAYING_OFFER, authenticated=True)
    behind = b"220 example.org\r\nQUIT\r\n\xff\r"
    octets = line + behind
    events = []
    for at in range(0, len(octets), cut):
        core.receive_data(octets[at : at + cut])
        event = core.next_event()
        if event is not NEED_DATA and event is not PAUSED:
            events.append(event)
    assert events == [command]
    assert core.timeout is Phase.WORKING
    assert core.send(replies.TURNING) == b"250 2.0.0 OK, now reversing the connection\r\n"
    assert core.state is State.DONE
    assert core.next_event() is PAUSED
    core.receive_data(b"\nmore")
    core.receive_data(b"")
    assert core.next_event() is PAUSED
    assert core.trailing_data == core.trailing_data == behind + b"\nmore"
    with pytest.raises(LocalProtocolError):
        core.send(replies.OK)


@pytest.mark.parametrize(("line", "command"), TURNS)
@pytest.mark.parametrize("reply", REFUSALS)
def test_refused_turn_changes_nothing(line: bytes, command: Atrn | Turn, reply: Reply) -> None:
    core = core_in(State.READY, RELAYING_OFFER, authenticated=True)
    core.receive_data(line + b"MAIL FROM:<>\r\n" + line + b"RSET\r\n" + line + b"QUIT\r\n")
    assert core.next_event() == command
    assert core.send(reply) == reply.encoded
    assert core.trailing_data == b""
    events, said = talk(core, b"", consent={**CONSENT, type(command): reply})
    assert events == [Mail(None), Answer(replies.BAD_SEQUENCE.encoded), Rset(), command, Quit()]
    assert said.count(reply.encoded) == 1
    assert core.state is State.DONE


def test_turn_is_answered_by_nothing_in_between() -> None:
    core = core_in(State.READY, RELAYING_OFFER, authenticated=True)
    core.receive_data(b"ATRN\r\n")
    assert core.next_event() == Atrn()
    for reply in (replies.START_CONTENT, resuming(0)):
        with pytest.raises(LocalProtocolError):
            core.send(reply)


def test_refusals_of_turns_are_counted_as_others_are() -> None:
    core = core_in(State.READY, replace(RELAYING_OFFER, max_errors=3))
    events, said = talk(core, b"ATRN\r\n" * 10)
    assert said == replies.AUTH_REQUIRED.encoded * 4 + replies.TOO_MANY_ERRORS.encoded
    assert events[-1] == Answer(replies.TOO_MANY_ERRORS.encoded, closing=True)


# ----------------------------------------------------------------------------------- the answer to EHLO


def test_ehlo_lists_what_is_offered() -> None:
    assert {"ETRN", "ATRN", "CHECKPOINT"} <= set(RELAYING_OFFER.ehlo_reply("a").lines)
    assert "TURN" not in RELAYING_OFFER.ehlo_reply("a").lines
    assert not {"ETRN", "ATRN", "CHECKPOINT"} & set(OFFER.ehlo_reply("a").lines)
    assert "CHECKPOINT" not in replace(RELAYING_OFFER, lmtp=True).ehlo_reply("a").lines
    assert "TRANSID" not in replace(RELAYING_OFFER, lmtp=True).parameters


def test_profile_of_on_demand_mail_relay_lists_atrn_and_what_there_is_of_auth() -> None:
    # RFC 2645 section 5.1.1
    full = replace(ODMR_OFFER, etrn=True, checkpoint=True, mechanisms=(b"CRAM-MD5", b"EXTERNAL"))
    words = ("PIPELINING", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH CRAM-MD5 EXTERNAL", "ATRN", "HELP")
    assert full.ehlo_reply("a").lines[1:] == words
    in_plaintext = replace(full, mechanisms=(), require_tls=True)
    assert in_plaintext.ehlo_reply("a").lines[1:] == tuple(word for word in words if "AUTH" not in word)


PROFILE = """
command                 INITIAL  READY  authenticated
EHLO_a                  ok       ok     ok
HELO_a                  ok       ok     ok
STARTTLS                503      ok     ok
AUTH_PLAIN              503      ok     503
ATRN                    530      530    ok
ATRN_a.b,c.d            530      530    ok
ATRN_a                  501      501    501
NOOP                    ok       ok     ok
RSET                    ok       ok     ok
HELP                    ok       ok     ok
QUIT                    ok       ok     ok
MAIL_FROM:<a@b>         502      502    502
MAIL                    502      502    502
RCPT_TO:<a@b>           502      502    502
DATA                    502      502    502
BDAT_0_LAST             502      502    502
VRFY_a                  502      502    502
EXPN_a                  502      502    502
ETRN_a.b                502      502    502
ETRN                    502      502    502
TURN                    502      502    502
WHAT                    500      500    500
"""


@pytest.mark.parametrize("row", PROFILE.strip().splitlines()[1:], ids=lambda row: row.split()[0])
def test_profile_of_on_demand_mail_relay(row: str) -> None:
    # RFC 2645 sections 5.1 to 5.4
    name, *cells = row.split()
    for column, cell in zip(("INITIAL", "READY", "authenticated"), cells, strict=True):
        state = State.INITIAL if column == "INITIAL" else State.READY
        core = core_in(state, ODMR_OFFER, authenticated=column == "authenticated")
        core.receive_data(name.replace("_", " ").encode() + b"\r\n")
        event = core.next_event()
        if cell == "ok":
            assert not isinstance(event, Answer), column
        else:
            assert isinstance(event, Answer), column
            assert event.data.startswith(cell.encode()), column


def test_turn_in_the_profile_is_a_matter_of_the_offer() -> None:
    core = core_in(State.READY, replace(ODMR_OFFER, turn=True), authenticated=True)
    assert talk(core, b"TURN\r\n")[0] == [Turn()]


# ------------------------------------------------------------------------------------------ CHECKPOINT


def resumed(offset: int, offer: Offer = RELAYING_OFFER) -> tuple[bytes, object]:
    core = core_in(State.READY, offer)
    core.receive_data(CHECKPOINTED)
    event = core.next_event()
    assert event == Mail(event.reverse_path, transid="1@example.org")
    return core.send(resuming(offset)), core


@pytest.mark.parametrize(
    ("lines", "events"),
    [
        (b"DATA\r\nthe rest\r\n.\r\n", [Data(), Content(b"the rest\r\n"), ContentEnd()]),
        (b"BDAT 3 LAST\r\nabc", [Bdat(3, last=True), Content(b"abc"), ContentEnd()]),
    ],
)
def test_content_follows_a_resumed_mail_at_once(lines: bytes, events: list[object]) -> None:
    # RFC 1845 sections 3 and 5
    said, core = resumed(6135, replace(RELAYING_OFFER, max_size=None))
    assert said == b"355 6135 is the transaction offset\r\n"
    assert core.state is State.RECIPIENTS
    assert core.in_transaction
    assert talk(core, lines)[0] == events
    assert core.state is State.READY


def test_more_recipients_and_rset_may_follow_a_resumed_mail() -> None:
    _, core = resumed(50)
    events, _ = talk(core, b"RCPT TO:<anna@example.net>\r\nRSET\r\nDATA\r\n")
    assert isinstance(events[0], Rcpt)
    assert events[-1] == Answer(replies.BAD_SEQUENCE.encoded)


@pytest.mark.parametrize("reply", [Reply(355, None, ("somewhere",)), Reply(354, None, ("12 go on",)), replies.RESUMING])
def test_mail_is_resumed_by_an_offset_and_only_where_it_has_a_transid(reply: Reply) -> None:
    core = core_in(State.READY, RELAYING_OFFER)
    core.receive_data(b"MAIL FROM:<>\r\n" if reply is replies.RESUMING else CHECKPOINTED)
    core.next_event()
    with pytest.raises(LocalProtocolError):
        core.send(reply)
    assert core.next_event() is PAUSED


def test_transid_of_one_mail_says_nothing_of_the_next() -> None:
    core = core_in(State.READY, RELAYING_OFFER)
    talk(core, CHECKPOINTED + b"RSET\r\nMAIL FROM:<>\r\n", consent={**CONSENT, Mail: replies.LOCAL_ERROR})
    core.receive_data(b"MAIL FROM:<>\r\n")
    core.next_event()
    with pytest.raises(LocalProtocolError):
        core.send(resuming(1))


@pytest.mark.parametrize("reply", [replies.SENDER_OK, replies.LOCAL_ERROR, replies.NOT_YOUR_ADDRESS])
def test_mail_with_a_transid_has_the_other_answers_too(reply: Reply) -> None:
    core = core_in(State.READY, RELAYING_OFFER)
    core.receive_data(CHECKPOINTED)
    core.next_event()
    core.send(reply)
    assert core.state is (State.SENDER if reply.is_positive else State.READY)


@pytest.mark.parametrize(("offset", "size", "fits"), [(90, 10, True), (90, 11, False), (100, 0, True), (500, 1, False)])
def test_what_went_before_counts_towards_the_limit(offset: int, size: int, fits: bool) -> None:
    # RFC 1870 section 6.3; the limit is 100
    for lines in (b"BDAT %d LAST\r\n%b" % (size, b"x" * size), b"DATA\r\n" + b"x" * (size - 2) + b"\r\n" * (size > 1)):
        if lines.startswith(b"DATA") and size < 2:
            continue
        _, core = resumed(offset)
        events, _ = talk(core, lines + (b".\r\n" if lines.startswith(b"DATA") else b""))
        assert isinstance(events[-1], ContentEnd)
        assert events[-1].fault is (None if fits else replies.TOO_BIG)


def test_limit_is_whole_again_for_the_next_message() -> None:
    _, core = resumed(100)
    octets = b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 100 LAST\r\n" + b"x" * 100
    assert talk(core, octets)[0][-1] == ContentEnd()


def test_mail_line_may_be_longer() -> None:
    # RFC 1845 section 2, (5): by 88
    line = b"MAIL FROM:<fred@example.org> TRANSID=<" + b"1" * 66 + b"@" + b"x" * 11 + b">"
    for max_line, fits in ((len(line) + 2 - 88, True), (len(line) + 1 - 88, False)):
        core = core_in(State.READY, replace(RELAYING_OFFER, max_line=max_line))
        assert isinstance(talk(core, line + b"\r\n")[0][0], Mail) is fits
    core = core_in(State.READY, replace(OFFER, max_line=len(line) + 1))
    assert talk(core, line + b"\r\n")[1] == replies.LINE_TOO_LONG.encoded
