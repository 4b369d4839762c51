"""How a relay session ends: before any delivery, and when the connection is lost at any point."""

import pytest

from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import NextHop
from mailsuite.session.relay import RelayEnd, RelaySession, RelaySettings, Stage
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.session.relaying import BYE, GOOD_MORNING, HELLO, HOP, relay
from tests.session.scripted import ListedRun, ScriptedConversation, finish, make_delivery, read_script
from tests.wire.smtp.client_dialogue import one_by_one


def test_drained_run_is_quit_at_once():
    session = RelaySession(ListedRun(), RelaySettings("relay.example.org", HOP))
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


class BrokenContent:
    """Content that its reader can do nothing with."""

    size = 33

    def in_memory(self):
        raise RuntimeError("a defect")


def test_a_defect_leaves_the_session_and_what_was_taken_in_the_hands_of_the_run():
    group = "C: MAIL FROM:<ann@example.org>\nC: RCPT TO:<bob@example.net>\nC: DATA\n"
    script = f"{HELLO}\nS: 250 PIPELINING\n{group}\nS: 250 ok\nS: 250 ok\nS: 354 go\n"
    run = ListedRun(make_delivery("q1", content=BrokenContent()), make_delivery("q2"), make_delivery("q3"))
    session = RelaySession(run, RelaySettings("relay.example.org", HOP))
    conversation = ScriptedConversation(SmtpClientCore(), script)
    with pytest.raises(RuntimeError, match="a defect"):
        finish(session(conversation))
    assert run.taken == ["q1", "q2"]
    assert (run.settled, run.released) == ({}, [])
    assert b"\r\n.\r\n" not in conversation.all_said


def test_a_defect_does_not_have_it_sent_again_what_has_arrived():
    # LMTP: the first recipient has it, then the session breaks over the second one's reply.
    class BreakingConversation(ScriptedConversation):
        async def receive(self):
            event = await super().receive()
            if event.reply.code == 299:
                raise RuntimeError("a defect")
            return event

    run = ListedRun(make_delivery("q1", "bob@example.net", "eve@example.net"), make_delivery("q2"))
    session = RelaySession(run, RelaySettings("relay.example.org", NextHop("mx.example.net", lmtp=True)))
    script = f"""
S: 220 hello
C: LHLO relay.example.org
S: 250 mx.example.net
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: RCPT TO:<eve@example.net>
S: 250 ok
C: DATA
S: 354 go
{GOOD_MORNING}
C: .
S: 250 bob has it
S: 299 eve
"""
    conversation = BreakingConversation(SmtpClientCore(lmtp=True), script)
    with pytest.raises(RuntimeError, match="a defect"):
        finish(session(conversation))
    assert run.results("q1") == ["delivered", "delayed"]
    assert run.taken == ["q1", "q2"]
    assert run.released == []
