"""The relay session with peers that follow a script: what it says, and what becomes of each recipient."""

import pytest
from zope.interface.verify import verifyObject

from mailsuite.interfaces import IConversation, IQueueRun
from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.session.relay import RelayEnd, Stage
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.session.relaying import BYE, GOOD_MORNING, HELLO, names, relay
from tests.session.scripted import ListedRun, ScriptedConversation, make_delivery
from tests.wire.smtp.client_dialogue import one_by_one, whole


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
