"""How a relay session takes leave where its run is drained: early, late, or after it has lingered."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsuite.mail.queue import Result
from mailsuite.session.relay import RelaySession, RelaySettings, Stage
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.session.relaying import BYE, GOOD_MORNING, HELLO, HOP, relay
from tests.session.scripted import ListedRun, ScriptedConversation, finish, make_delivery

PIPELINING = f"{HELLO}\nS: 250 PIPELINING\n"
CHUNKING = f"{HELLO}\nS: 250-PIPELINING\nS: 250 CHUNKING\n"
GROUP = "C: MAIL FROM:<ann@example.org>\nC: RCPT TO:<bob@example.net>\nC: DATA\n"
GO = "S: 250 ok\nS: 250 ok\nS: 354 go\n"
CONTENT = f"{GOOD_MORNING}\nC: .\n"
EARLY = "C: QUIT\nS: {} ok\nS: 221 bye\n"


class Lingers:
    """Brings what is listed when it is asked for more; at its end it says no."""

    def __init__(self, run, *batches, is_worthwhile=True):
        self.run = run
        self.batches = list(batches)
        self.is_worthwhile = is_worthwhile
        self.asked = 0

    async def more(self):
        self.asked += 1
        if not self.batches:
            return False
        self.run._due += self.batches.pop(0)  # noqa: SLF001 - it is a list in a test
        return True


def linger(script, run, lingers, kind=ScriptedConversation):
    settings = RelaySettings("relay.example.org", HOP, quit_early=True)
    session = RelaySession(run, settings, lingers=lingers)
    conversation = kind(SmtpClientCore(), script)
    return session, conversation


@pytest.mark.parametrize(("code", "result"), [("250", "relayed"), ("451", "delayed"), ("550", "failed")])
def test_quit_stands_behind_the_last_content_where_no_more_is_expected(code, result) -> None:
    # RFC 2920 section 3.1: QUIT may be the last of a group.
    run, end = relay(PIPELINING + GROUP + GO + CONTENT + EARLY.format(code), quit_early=True)
    assert run.results("q1") == [result]
    assert (end.stage, end.outcome) == (Stage.READY, None)


def test_quit_stands_behind_the_last_message_only() -> None:
    again = "S: 250 ok\n" + GO
    script = PIPELINING + GROUP + GO + CONTENT + GROUP + again + CONTENT + EARLY.format(250)
    run, _ = relay(script, make_delivery("q1"), make_delivery("q2"), quit_early=True)
    assert [run.results(name) for name in ("q1", "q2")] == [["relayed"]] * 2


def test_quit_stands_behind_a_chunk_and_a_refused_one_needs_no_rset_then() -> None:
    group = "C: MAIL FROM:<ann@example.org>\nC: RCPT TO:<bob@example.net>\nS: 250 ok\nS: 250 ok\n"
    for code, result in (("250", "relayed"), ("552", "failed")):
        script = CHUNKING + group + f"C: BDAT 33 LAST\n{GOOD_MORNING}\n" + EARLY.format(code)
        run, end = relay(script, quit_early=True)
        assert run.results("q1") == [result]
        assert end.outcome is None


def test_quit_waits_for_its_turn_without_pipelining() -> None:
    script = f"""{HELLO}
S: 250 HELP
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
{CONTENT}
S: 250 ok
{BYE}"""
    run, _ = relay(script, quit_early=True)
    assert run.results("q1") == ["relayed"]


def test_quit_after_refused_recipients_stands_behind_what_ends_the_transaction() -> None:
    run, _ = relay(
        PIPELINING + GROUP + "S: 250 ok\nS: 550 no\nS: 554 nobody\nC: RSET\nC: QUIT\nS: 250 ok\nS: 221 bye\n",
        quit_early=True,
    )
    assert run.results("q1") == ["failed"]


@pytest.mark.parametrize("end", ["X: close", "S: 421 4.3.2 bye", "S: garbage"])
def test_a_connection_that_ends_before_the_reply_defers_as_ever(end) -> None:
    run, _ = relay(PIPELINING + GROUP + GO + CONTENT + "C: QUIT\n" + end, quit_early=True)
    [outcome] = run.settled["q1"]
    assert outcome.result is Result.DEFERRED


def test_a_reply_that_came_before_the_connection_ended_counts() -> None:
    run, end = relay(PIPELINING + GROUP + GO + CONTENT + "C: QUIT\nS: 250 ok\nX: close", quit_early=True)
    assert run.results("q1") == ["relayed"]
    assert end.outcome is None


def test_what_comes_while_a_connection_lingers_goes_over_it() -> None:
    run = ListedRun(make_delivery("q1"))
    lingers = Lingers(run, [make_delivery("q2")], [])
    message = GROUP + GO + CONTENT + "S: 250 ok\n"
    session, conversation = linger(PIPELINING + message + message + BYE, run, lingers)
    finish(session(conversation))
    conversation.check()
    assert [run.results(name) for name in ("q1", "q2")] == [["relayed"]] * 2
    assert lingers.asked == 3
    assert session.end.outcome is None


def test_where_it_is_not_worth_while_nobody_lingers() -> None:
    run = ListedRun(make_delivery("q1"))
    lingers = Lingers(run, [make_delivery("q2")], is_worthwhile=False)
    session, conversation = linger(PIPELINING + GROUP + GO + CONTENT + EARLY.format(250), run, lingers)
    finish(session(conversation))
    conversation.check()
    assert lingers.asked == 0


def test_a_server_that_has_closed_meanwhile_gets_nothing_and_the_message_counts_no_attempt() -> None:
    run = ListedRun(make_delivery("q1"))
    lingers = Lingers(run, [make_delivery("q2")])
    script = PIPELINING + GROUP + GO + CONTENT + "S: 250 ok\n" + GROUP + "S: 421 4.4.2 idle for too long"
    session, conversation = linger(script, run, lingers)
    finish(session(conversation))
    assert run.results("q1") == ["relayed"]
    assert run.released == ["q2"]


def test_a_connection_that_is_lost_while_it_lingers_was_drained() -> None:
    class Lost(Lingers):
        async def more(self):
            waiter = Deferred()
            waiter.cancel()
            await waiter

    run = ListedRun(make_delivery("q1"))
    session, conversation = linger(PIPELINING + GROUP + GO + CONTENT + "S: 250 ok\n", run, Lost(run))
    with pytest.raises(CancelledError):
        finish(session(conversation))
    assert run.results("q1") == ["relayed"]
    assert (session.end.stage, session.end.outcome) == (Stage.READY, None)
