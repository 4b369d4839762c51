"""The relay session with peers that follow a script: what it says, and what becomes of each recipient."""

import pytest
from zope.interface.verify import verifyObject

from mailsuite.interfaces import IConversation, IQueueRun
from mailsuite.mail.envelope import Body
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import NextHop
from mailsuite.session.relay import RelayEnd, RelaySession, RelaySettings, Stage
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.session.scripted import ListedRun, ScriptedConversation, finish, make_delivery, read_script
from tests.wire.smtp.client_dialogue import one_by_one, whole

HOP = NextHop("mx.example.net")
HELLO = """
S: 220 mx.example.net ESMTP
C: EHLO relay.example.org
S: 250-mx.example.net
"""
BYE = """
C: QUIT
S: 221 2.0.0 Bye
"""
GOOD_MORNING = """
C: Subject: hello
C:
C: Good morning.
"""


def relay(
    script: str,
    *deliveries,
    hop: NextHop = HOP,
    cut=whole,
    **settings,
) -> tuple[ListedRun, RelayEnd]:
    """Hold one session by the script, to its end."""
    run = ListedRun(*(deliveries or (make_delivery(),)))
    session = RelaySession(run, RelaySettings("relay.example.org", hop, **settings))
    conversation = ScriptedConversation(SmtpClientCore(lmtp=hop.lmtp), script, cut=cut)
    assert finish(session(conversation)) is None
    conversation.check()
    run.check_accounts()
    return run, session.end


def test_fakes_keep_the_interfaces():
    assert verifyObject(IConversation, ScriptedConversation(SmtpClientCore(), ""))
    assert verifyObject(IQueueRun, ListedRun())


@pytest.mark.parametrize("cut", [whole, one_by_one])
def test_one_message_to_a_server_without_extensions(cut):
    run, end = relay(
        f"""
S: 220 old.example.net
C: EHLO relay.example.org
S: 502 What?
C: HELO relay.example.org
S: 250 old.example.net
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: RCPT TO:<eve@example.net>
S: 550 5.1.1 No such user
C: RCPT TO:<zoe@example.net>
S: 450 4.2.1 Busy
C: DATA
S: 354 go
{GOOD_MORNING}
C: .
S: 250 2.6.0 Queued as 42
{BYE}""",
        make_delivery("q1", "bob@example.net", "eve@example.net", "zoe@example.net"),
        cut=cut,
    )
    sent, failed, later = run.settled["q1"]
    assert (sent.result, str(sent.status), sent.text) == (Result.RELAYED, "2.6.0", "Queued as 42")
    assert (failed.result, str(failed.status)) == (Result.FAILED, "5.1.1")
    assert (later.result, str(later.status)) == (Result.DEFERRED, "4.2.1")
    assert {outcome.remote for outcome in run.settled["q1"]} == {"mx.example.net"}
    assert failed.reply is not None
    assert failed.reply.code == 550
    assert end == RelayEnd(Stage.READY, None, 1)
    assert end.reached


@pytest.mark.parametrize("cut", [whole, one_by_one])
def test_messages_overlap_with_pipelining(cut):
    run, end = relay(
        f"""{HELLO}
S: 250-SIZE 10000
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org> SIZE=33
C: RCPT TO:<bob@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
C: MAIL FROM:<> SIZE=33
C: RCPT TO:<bob@example.net>
C: RCPT TO:<eve@example.net>
C: DATA
S: 250 2.0.0 First
S: 250 ok
S: 550 no
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
C: MAIL FROM:<zoe@example.org> SIZE=33
C: RCPT TO:<bob@example.net>
C: DATA
S: 451 4.3.0 Not now
S: 550 5.7.1 Not from you
S: 503 no
S: 503 no
{BYE}""",
        make_delivery("q1"),
        make_delivery("q2", "bob@example.net", "eve@example.net", sender=""),
        make_delivery("q3", sender="zoe@example.org"),
        cut=cut,
    )
    assert run.results("q1") == ["relayed"]
    assert run.results("q2") == ["failed", "delayed"]
    assert run.settled["q2"][1].text == "Not now"
    assert run.results("q3") == ["failed"]
    assert str(run.settled["q3"][0].status) == "5.7.1"
    assert end.settled == 3


@pytest.mark.parametrize("cut", [whole, one_by_one])
def test_chunks_and_the_rset_between_them(cut):
    run, _ = relay(
        f"""{HELLO}
S: 250-CHUNKING
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
S: 250 ok
S: 250 ok
C: BDAT 7 LAST
C: .dots
C: RSET
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
C: RCPT TO:<eve@example.net>
S: 250 2.0.0 First
S: 250 reset
S: 250 ok
S: 250 ok
S: 550 no
C: BDAT 6 LAST
C: more
C: RSET
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
S: 552 5.3.4 Too much
S: 250 reset
S: 250 ok
S: 550 no
C: RSET
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
S: 250 reset
S: 250 ok
S: 250 ok
C: BDAT 0 LAST
S: 250 2.0.0 Empty
{BYE}""",
        make_delivery("q1", content=b".dots\r\n"),
        make_delivery("q2", "bob@example.net", "eve@example.net", content=b"more\r\n"),
        make_delivery("q3"),
        make_delivery("q4", content=b""),
        cut=cut,
    )
    assert run.results("q1") == ["relayed"]
    assert run.results("q2") == ["failed", "failed"]
    assert [str(outcome.status) for outcome in run.settled["q2"]] == ["5.3.4", "5.0.0"]
    assert run.results("q3") == ["failed"]
    assert run.results("q4") == ["relayed"]


def test_chunks_without_pipelining_wait_and_reset_after_a_failure():
    run, _ = relay(
        f"""{HELLO}
S: 250 CHUNKING
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: BDAT 6 LAST
C: text
S: 451 4.3.0 Not now
C: RSET
S: 250 reset
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: BDAT 6 LAST
C: text
S: 250 ok
{BYE}""",
        make_delivery("q1", content=b"text\r\n"),
        make_delivery("q2", content=b"text\r\n"),
    )
    assert run.results("q1") == ["delayed"]
    assert run.results("q2") == ["relayed"]


def test_settings_do_without_what_is_offered():
    run, _ = relay(
        f"""{HELLO}
S: 250-CHUNKING
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
{BYE}""",
        pipelining=False,
        chunking=False,
    )
    assert run.results("q1") == ["relayed"]


@pytest.mark.parametrize(
    ("answers", "rest", "results"),
    [
        # nobody, and DATA is refused: RSET
        ("S: 250 ok\nS: 550 no\nS: 450 later\nS: 554 nobody", "C: RSET\nS: 250 ok", ["failed", "delayed"]),
        # nobody, and the server wants content: a lone dot, whatever comes of it
        ("S: 250 ok\nS: 550 no\nS: 450 later\nS: 354 go", "C: .\nS: 250 ok", ["failed", "delayed"]),
        # MAIL is refused; what is said of the rest does not matter
        ("S: 451 later\nS: 250 ok\nS: 550 no\nS: 503 no", "C: RSET\nS: 250 ok", ["delayed", "delayed"]),
        ("S: 552 5.3.4 Too big\nS: 503 no\nS: 503 no\nS: 503 no", "", ["failed", "failed"]),
        ("S: 550 no\nS: 250 ok\nS: 250 ok\nS: 354 go", "C: .\nS: 250 ok", ["failed", "failed"]),
        # DATA is refused
        ("S: 250 ok\nS: 250 ok\nS: 450 later\nS: 554 5.7.1 no", "C: RSET\nS: 250 ok", ["failed", "delayed"]),
        ("S: 250 ok\nS: 550 no\nS: 250 ok\nS: 451 4.3.0 later", "C: RSET\nS: 250 ok", ["failed", "delayed"]),
    ],
)
def test_transaction_without_content(answers, rest, results):
    run, end = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
C: RCPT TO:<eve@example.net>
C: DATA
{answers}
{rest}
{BYE}""",
        make_delivery("q1", "bob@example.net", "eve@example.net"),
    )
    assert run.results("q1") == results
    assert end.settled == 1


def test_rset_goes_with_the_next_message():
    run, _ = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
C: DATA
S: 250 ok
S: 550 no
S: 503 no
C: RSET
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<eve@example.net>
C: DATA
S: 250 reset
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
{BYE}""",
        make_delivery("q1"),
        make_delivery("q2", "eve@example.net"),
    )
    assert run.results("q1") == ["failed"]
    assert run.results("q2") == ["relayed"]


def test_refused_rset_ends_the_connection_before_the_next_message_suffers():
    run, end = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
C: DATA
S: 250 ok
S: 550 no
S: 503 no
C: RSET
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<eve@example.net>
C: DATA
S: 500 What?
S: 503 no
S: 503 no
S: 503 no
""",
        make_delivery("q1"),
        make_delivery("q2", "eve@example.net"),
    )
    assert run.results("q1") == ["failed"]
    assert run.released == ["q2"]
    assert end.outcome is not None


# ----------------------------------------------------------------------------------------- many recipients


def names(count: int) -> list[str]:
    return [f"user{number}@example.net" for number in range(count)]


def lines(side: str, texts) -> str:
    return "\n".join(f"{side}: {text}" for text in texts)


def test_groups_are_no_larger_than_the_window():
    recipients = [f"RCPT TO:<{name}>" for name in names(250)]
    run, _ = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
{lines("C", recipients[:99])}
{lines("S", ["250 ok"] * 100)}
{lines("C", recipients[99:199])}
{lines("S", ["250 ok"] * 100)}
{lines("C", recipients[199:])}
C: DATA
{lines("S", ["250 ok"] * 51)}
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
{BYE}""",
        make_delivery("q1", *names(250)),
    )
    assert run.results("q1") == ["relayed"] * 250


@pytest.mark.parametrize("refusal", ["452 4.5.3 Too many", "452 Too many", "552 5.5.3 Too many"])
def test_recipients_that_are_too_many_go_in_a_second_transaction(refusal):
    # RFC 5321 section 4.5.3.1.10
    run, end = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user0@example.net>
C: RCPT TO:<user1@example.net>
C: RCPT TO:<user2@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 550 5.1.1 no
S: {refusal}
S: 354 go
{GOOD_MORNING}
C: .
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user2@example.net>
C: DATA
S: 250 2.0.0 one
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
S: 250 2.0.0 two
{BYE}""",
        make_delivery("q1", *names(3)),
    )
    assert [outcome.text for outcome in run.settled["q1"]] == ["one", "no", "two"]
    assert end.settled == 1


def test_first_recipient_is_never_too_many_and_552_is_mostly_something_else():
    run, _ = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user0@example.net>
C: RCPT TO:<user1@example.net>
C: RCPT TO:<user2@example.net>
C: DATA
S: 250 ok
S: 452 4.5.3 Too many
S: 250 ok
S: 552 5.2.2 Over quota
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
{BYE}""",
        make_delivery("q1", *names(3)),
    )
    assert run.results("q1") == ["delayed", "relayed", "failed"]


# ---------------------------------------------------------------------------------- before any delivery


def test_drained_run_is_quit_at_once():
    run = ListedRun()
    session = RelaySession(run, RelaySettings("relay.example.org", HOP))
    conversation = ScriptedConversation(SmtpClientCore(), f"{HELLO}\nS: 250 HELP\n{BYE}")
    finish(session(conversation))
    conversation.check()
    assert session.end == RelayEnd(Stage.READY, None, 0)


@pytest.mark.parametrize(
    ("script", "stage", "result", "status"),
    [
        ("S: 554 5.7.1 no\nC: QUIT\nS: 221 bye", Stage.GREETING, Result.FAILED, "5.7.1"),
        ("S: 521 never\nC: QUIT\nX: close", Stage.GREETING, Result.FAILED, "5.0.0"),
        ("S: 450 4.3.2 later\nC: QUIT\nS: 221 bye", Stage.GREETING, Result.DEFERRED, "4.3.2"),
        ("S: 421 later", Stage.GREETING, Result.DEFERRED, "4.4.2"),
        ("S: 421 4.7.0 later", Stage.GREETING, Result.DEFERRED, "4.7.0"),
        ("S: what?", Stage.GREETING, Result.DEFERRED, "4.4.2"),
        ("X: close", Stage.GREETING, Result.DEFERRED, "4.4.2"),
        ("X: slow", Stage.GREETING, Result.DEFERRED, "4.4.2"),
        (
            "S: 220 hello\nC: EHLO relay.example.org\nS: 450 4.7.1 no\nC: QUIT\nS: 221 bye",
            Stage.HELLO,
            Result.DEFERRED,
            "4.7.1",
        ),
        (
            "S: 220 hello\nC: EHLO relay.example.org\nS: 550 no\nC: HELO relay.example.org\nS: 550 5.7.1 no\nC: QUIT",
            Stage.HELLO,
            Result.FAILED,
            "5.7.1",
        ),
        ("S: 220 hello\nC: EHLO relay.example.org\nX: close", Stage.HELLO, Result.DEFERRED, "4.4.2"),
        ("S: 220 hello\nC: EHLO relay.example.org\nS: 421 bye", Stage.HELLO, Result.DEFERRED, "4.4.2"),
        ("S: 220 hello\nC: EHLO relay.example.org\nS: 354 go", Stage.HELLO, Result.DEFERRED, "4.4.2"),
    ],
)
def test_what_the_agent_learns_when_nothing_was_tried(script, stage, result, status):
    run, end = relay(script)
    assert run.taken == []
    assert (end.stage, end.reached, end.tls_failed, end.settled) == (stage, False, False, 0)
    assert end.outcome is not None
    assert (end.outcome.result, str(end.outcome.status)) == (result, status)
    assert end.outcome.remote == "mx.example.net"


def test_before_it_begins_the_end_is_a_deferral():
    end = RelaySession(ListedRun(), RelaySettings("relay.example.org", HOP)).end
    assert not end.reached
    assert end.outcome is not None
    assert end.outcome.result is Result.DEFERRED


# -------------------------------------------------------------------------------- what cannot be sent at all


@pytest.mark.parametrize(
    ("offer", "delivery", "status"),
    [
        ("SIZE 32", make_delivery("q1"), "5.3.4"),
        ("CHUNKING", make_delivery("q1", body=Body.BINARY), "5.6.3"),
        ("8BITMIME", make_delivery("q1", "jürgen@example.net"), "5.6.7"),
        ("8BITMIME", make_delivery("q1", sender="jürgen@example.net"), "5.6.7"),
        ("8BITMIME", make_delivery("q1", content="Subject: ü\r\n\r\n".encode(), smtputf8=True), "5.6.9"),
        ("8BITMIME", make_delivery("q1", content=b"A: b\r\n" * 20_000 + b"\xff", smtputf8=True), "5.6.9"),
    ],
)
def test_message_that_the_next_hop_cannot_take(offer, delivery, status):
    run, end = relay(f"{HELLO}\nS: 250 {offer}\n{BYE}", delivery)
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status), outcome.remote) == (Result.FAILED, status, "mx.example.net")
    assert "mx.example.net" in outcome.text
    assert end.settled == 1


def test_only_recipients_that_need_smtputf8_fail_without_it():
    run, _ = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@xn--bcher-kva.example>
C: RCPT TO:<bob@example.net>
C: RCPT TO:<eve@xn--bcher-kva.example>
C: DATA
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
C: Subject: ascii
C:
C: grüße
C: .
S: 250 ok
{BYE}""",
        make_delivery(
            "q1",
            "bob@example.net",
            "jürgen@example.net",
            "eve@bücher.example",
            sender="ann@bücher.example",
            content="Subject: ascii\r\n\r\ngrüße\r\n".encode(),
            smtputf8=True,
        ),
    )
    assert run.results("q1") == ["relayed", "failed", "relayed"]
    assert str(run.settled["q1"][1].status) == "5.6.7"


def test_smtputf8_and_8bitmime_are_said_where_offered():
    run, _ = relay(
        f"""{HELLO}
S: 250-8BITMIME
S: 250 SMTPUTF8
C: MAIL FROM:<jürgen@bücher.example> BODY=8BITMIME SMTPUTF8
S: 250 ok
C: RCPT TO:<eve@bücher.example>
S: 250 ok
C: DATA
S: 354 go
C: Subject: grüße
C: .
S: 250 ok
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
C: Subject: plain
C: .
S: 250 ok
{BYE}""",
        make_delivery(
            "q1",
            "eve@bücher.example",
            sender="jürgen@bücher.example",
            content="Subject: grüße\r\n".encode(),
            body=Body.EIGHT_BIT,
            smtputf8=True,
        ),
        make_delivery("q2", content=b"Subject: plain\r\n"),
    )
    assert run.results("q1") == run.results("q2") == ["relayed"]


def test_eight_bit_content_goes_as_it_is_without_8bitmime():
    run, _ = relay(
        f"""{HELLO}
S: 250 HELP
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
C: grüße
C: .
S: 250 ok
{BYE}""",
        make_delivery("q1", content="grüße\r\n".encode(), body=Body.EIGHT_BIT),
    )
    assert run.results("q1") == ["relayed"]


def test_binary_content_goes_by_chunks():
    run, _ = relay(
        f"""{HELLO}
S: 250-BINARYMIME
S: 250 CHUNKING
C: MAIL FROM:<ann@example.org> BODY=BINARYMIME
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: BDAT 4 LAST
C: \0\x01
S: 250 ok
{BYE}""",
        make_delivery("q1", content=b"\0\x01\r\n", body=Body.BINARY),
    )
    assert run.results("q1") == ["relayed"]


# ----------------------------------------------------------------------------------------------------- LMTP


@pytest.mark.parametrize("cut", [whole, one_by_one])
@pytest.mark.parametrize("chunking", [False, True])
def test_lmtp_judges_each_recipient_by_its_own_reply(chunking, cut):
    end_of_group = "" if chunking else "C: DATA"
    go = "" if chunking else "S: 354 go"
    begin, dot = ("C: BDAT 33 LAST", "") if chunking else ("", "C: .")
    reset, was_reset = ("C: RSET", "S: 250 reset") if chunking else ("", "")
    run, _ = relay(
        f"""
S: 220 store.example.net LMTP
C: LHLO relay.example.org
S: 250-store.example.net
S: 250-CHUNKING
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user0@example.net>
C: RCPT TO:<user1@example.net>
C: RCPT TO:<user2@example.net>
C: RCPT TO:<user3@example.net>
{end_of_group}
S: 250 ok
S: 250 ok
S: 550 5.1.1 no
S: 250 ok
S: 250 ok
{go}
{begin}
{GOOD_MORNING}
{dot}
{reset}
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user9@example.net>
{end_of_group}
S: 250 2.1.5 Stored
S: 452 4.2.2 Over quota
S: 552 5.2.3 Too big
{was_reset}
S: 250 ok
S: 550 no
{"" if chunking else "S: 503 nobody"}
C: RSET
S: 250 ok
{BYE}""",
        make_delivery("q1", *names(4)),
        make_delivery("q2", "user9@example.net"),
        hop=NextHop("store.example.net", lmtp=True),
        cut=cut,
        chunking=chunking,
    )
    assert run.results("q1") == ["delivered", "failed", "delayed", "failed"]
    assert [str(outcome.status) for outcome in run.settled["q1"]] == ["2.1.5", "5.1.1", "4.2.2", "5.2.3"]
    assert run.results("q2") == ["failed"]


def test_lmtp_replies_that_came_count_when_the_connection_is_lost():
    # RFC 2033 section 5: "process the replies that arrived and treat the rest as temporary failures"
    run, end = relay(
        f"""
S: 220 store.example.net LMTP
C: LHLO relay.example.org
S: 250-store.example.net
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user0@example.net>
C: RCPT TO:<user1@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
S: 250 2.1.5 Stored
X: close""",
        make_delivery("q1", *names(2)),
        hop=NextHop("store.example.net", lmtp=True),
    )
    assert run.results("q1") == ["delivered", "delayed"]
    assert end.outcome is not None


def test_lhlo_has_no_helo_to_fall_back_on():
    _, end = relay(
        "S: 220 hello\nC: LHLO relay.example.org\nS: 500 What?\nC: QUIT\nS: 221 bye",
        hop=NextHop("store.example.net", lmtp=True),
    )
    assert end.stage is Stage.HELLO


# --------------------------------------------------------------------------------------- losing the connection

THREE = f"""{HELLO}
S: 250-SIZE
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org> SIZE=33
C: RCPT TO:<bob@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
C: MAIL FROM:<ann@example.org> SIZE=33
C: RCPT TO:<bob@example.net>
C: RCPT TO:<eve@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 250 ok
S: 550 no
S: 354 go
{GOOD_MORNING}
C: .
C: MAIL FROM:<ann@example.org> SIZE=33
C: RCPT TO:<bob@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
{BYE}"""
CHUNKED = f"""{HELLO}
S: 250-CHUNKING
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
S: 250 ok
S: 250 ok
C: BDAT 33 LAST
{GOOD_MORNING}
C: RSET
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
C: RCPT TO:<eve@example.net>
S: 250 ok
S: 250 reset
S: 250 ok
S: 250 ok
S: 550 no
C: BDAT 33 LAST
{GOOD_MORNING}
C: RSET
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
S: 250 ok
S: 250 reset
S: 250 ok
S: 250 ok
C: BDAT 33 LAST
{GOOD_MORNING}
S: 250 ok
{BYE}"""


def three_deliveries():
    return [make_delivery("q1"), make_delivery("q2", "bob@example.net", "eve@example.net"), make_delivery("q3")]


@pytest.mark.parametrize("end", ["X: close", "X: slow", "X: cancel", "S: 421 4.3.2 bye", "S: garbage", "S: 250-half"])
@pytest.mark.parametrize("script", [THREE, CHUNKED], ids=["data", "bdat"])
def test_connection_may_end_at_any_reply(script, end):
    """Every delivery is settled or released, once; none is relayed without its reply, none is attempted for nothing."""
    steps = read_script(script)
    at_reply = [at for at, (side, _) in enumerate(steps) if side == "S"]
    seen: set[tuple] = set()
    for at in at_reply:
        run = ListedRun(*three_deliveries())
        session = RelaySession(run, RelaySettings("relay.example.org", HOP))
        conversation = ScriptedConversation(SmtpClientCore(), steps[:at] + read_script(end), cut=one_by_one)
        try:
            finish(session(conversation))
        except BaseException as error:  # noqa: BLE001 - a cancellation goes on to whoever cancelled
            assert type(error).__name__ == "CancelledError", error  # noqa: PT017
        run.check_accounts()
        replies = sum(side == "S" and not line.startswith(b"250-") for side, line in steps[:at])
        assert all(outcome.result is not Result.FAILED or outcome.text == "no" for outcome in all_outcomes(run))
        relayed = sum(outcome.result is Result.RELAYED for outcome in all_outcomes(run))
        if at < at_reply[-1]:
            assert relayed <= 2
            assert session.end.outcome is not None
        seen.add((replies, relayed, *sorted(run.settled), "|", *run.released))
    words = {entry[1] for entry in seen}
    assert words == {0, 1, 2, 3}
    # The second message's group stands behind the first one's content: without an answer it is given back.
    assert any(entry[2:] == ("q1", "|", "q2") for entry in seen)
    assert any(entry[2:] == ("q1", "q2", "|", "q3") for entry in seen)


def all_outcomes(run: ListedRun) -> list[Outcome]:
    return [outcome for outcomes in run.settled.values() for outcome in outcomes]


def test_mail_without_an_answer_is_deferred_on_a_fresh_connection_and_released_on_a_used_one():
    group = "C: MAIL FROM:<ann@example.org>\nC: RCPT TO:<bob@example.net>\nC: DATA\n"
    run, end = relay(f"{HELLO}\nS: 250 PIPELINING\n{group}\nS: 421 4.7.0 Too many messages")
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status), outcome.remote) == (Result.DEFERRED, "4.7.0", "mx.example.net")
    assert end.reached
    run, end = relay(
        f"""{HELLO}
S: 250 PIPELINING
{group}
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
{group}
S: 250 ok
S: 421 4.7.0 Too many messages""",
        make_delivery("q1"),
        make_delivery("q2"),
        make_delivery("q3"),
    )
    assert run.results("q1") == ["relayed"]
    assert run.released == ["q2"]
    assert run.taken == ["q1", "q2"]
    assert (end.settled, end.reached) == (1, True)


def test_lost_behind_the_final_dot_is_deferred_not_relayed():
    run, end = relay(
        f"""{HELLO}
S: 250 HELP
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
{GOOD_MORNING}
C: .
X: slow"""
    )
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.4.2")
    assert "data-termination" in outcome.text
    assert end.outcome == outcome
