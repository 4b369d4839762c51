"""The session of a customer that pulls: what it says, what it does not say, and what the end is called."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from zope.interface.verify import verifyObject

from mailsuite.interfaces import IConversation, SpoolFull
from mailsuite.session.inbound import Door
from mailsuite.session.pulling import PullEnd, PullProgress, PullResult, PullSession, PullSettings, PullStage
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.offer import Offer
from tests.dialogues.house import FakeRouter, FakeSpool, Pace
from tests.net.support import Side
from tests.session.scripted import TLS, ScriptedConversation, finish
from tests.session.test_relay_with_server import Babbler, JoinedConversation
from tests.wire.smtp.client_dialogue import one_by_one, whole

HOST = "odmr.example.net"
LOGIN = {"username": "ship", "password": "secret"}
UP = """
S: 220 odmr.example.net ready
C: EHLO ship.example.org
S: 250-odmr.example.net
S: 250-STARTTLS
S: 250-AUTH CRAM-MD5
S: 250-ETRN
S: 250 ATRN
"""
STARTTLS = """
C: STARTTLS
S: 220 go on
"""
SECURED = """
C: EHLO ship.example.org
S: 250-odmr.example.net
S: 250-AUTH CRAM-MD5
S: 250-ETRN
S: 250 ATRN
"""
# The challenge is <1896.697170952@postoffice.example.net>, as in RFC 2195 section 2.
AUTH = """
C: AUTH CRAM-MD5
S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UuZXhhbXBsZS5uZXQ+
C: c2hpcCBhYmI3ZGU0OWM1OGRhMTQxNjg2NmJiYzU2NmI3ZTU4NQ==
"""
LOGGED_IN = AUTH + "S: 235 welcome\n"
BYE = """
C: QUIT
S: 221 bye
"""


async def in_thread(function, *args):
    return function(*args)


def no_turn():
    raise AssertionError("nobody turns the line")


def session_for(*, turn=no_turn, progress=None, domains=(), **settings):
    settings = PullSettings("ship.example.org", HOST, tuple(domains), **settings)
    return PullSession(settings, turn=turn, tls=lambda: "options", in_thread=in_thread, progress=progress)


def hold(*scripts, cut=whole, secure=False, **settings) -> PullEnd:
    """Hold one pull by scripts, the second under TLS."""
    session = session_for(**settings)
    core, talk = session.core(), session
    for number, script in enumerate(scripts):
        conversation = ScriptedConversation(core, script, tls=TLS if secure or number else None, cut=cut)
        handover = finish(talk(conversation))
        conversation.check()
        if number + 1 < len(scripts):
            assert handover.tls == "options"
            core, talk = handover.core, handover.session
        else:
            assert handover is None
    return session.end


@pytest.mark.parametrize("cut", [whole, one_by_one])
@pytest.mark.parametrize(
    ("answer", "result", "text"),
    [
        ("453 You have no mail", PullResult.NO_MAIL, "there is no mail"),
        ("450 4.3.0 ATRN request refused", PullResult.TEMPORARY, "refuses ATRN: 450 4.3.0 ATRN request refused"),
        ("451 Unable now", PullResult.TEMPORARY, "refuses ATRN: 451 Unable now"),
        ("502 what?", PullResult.UNAVAILABLE, "refuses ATRN: 502 what?"),
        ("530 who are you?", PullResult.DENIED, "refuses ATRN: 530 who are you?"),
        ("554 never", PullResult.UNAVAILABLE, "refuses ATRN: 554 never"),
    ],
)
def test_answers_to_atrn(answer, result, text, cut):
    end = hold(
        UP + STARTTLS,
        f"{SECURED}{LOGGED_IN}\nC: ATRN a.example,b.example\nS: {answer}\n{BYE}",
        domains=("a.example", "b.example"),
        cut=cut,
        **LOGIN,
    )
    assert (end.stage, end.result) == (PullStage.ASKING, result)
    assert text in end.text
    assert end.reply.code == int(answer[:3])
    assert (end.messages, end.octets) == (0, 0)


def test_a_bare_atrn_asks_for_all():
    assert hold(UP + "C: ATRN\nS: 453 no mail\n" + BYE, tls="none").result is PullResult.NO_MAIL


@pytest.mark.parametrize("tls", ["required", "verified"])
def test_tls_that_is_demanded_and_not_offered_ends_the_pull_before_anything_is_told(tls):
    end = hold(UP.replace("S: 250-STARTTLS\n", "") + BYE, tls=tls, **LOGIN)
    assert (end.stage, end.result) == (PullStage.STARTTLS, PullResult.UNAVAILABLE)
    assert end.text == "TLS is required, and odmr.example.net does not offer STARTTLS"


@pytest.mark.parametrize(("code", "result"), [("454", PullResult.TEMPORARY), ("502", PullResult.UNAVAILABLE)])
def test_starttls_that_is_refused(code, result):
    end = hold(f"{UP}C: STARTTLS\nS: {code} no\n{BYE}", **LOGIN)
    assert (end.stage, end.result) == (PullStage.STARTTLS, result)


def test_a_handshake_that_fails_is_the_end_that_is_told():
    session = session_for(**LOGIN)
    conversation = ScriptedConversation(session.core(), UP + STARTTLS)
    assert finish(session(conversation)).tls == "options"
    assert session.end.text == "the TLS handshake with odmr.example.net has failed"
    assert not session.end.result.is_success


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
def test_credentials_never_go_without_tls(tls):
    script = UP if tls == "none" else UP.replace("S: 250-STARTTLS\n", "")
    end = hold(script + BYE, tls=tls, **LOGIN)
    assert (end.stage, end.result) == (PullStage.AUTH, PullResult.DENIED)
    assert "over TLS only" in end.text


def test_opportunistic_tls_goes_on_without_where_there_is_nothing_to_hide():
    script = f"{UP}C: STARTTLS\nS: 454 not now\nC: ATRN\nS: 453 no\n{BYE}"
    assert hold(script, tls="opportunistic").result is PullResult.NO_MAIL


def test_implicit_tls_says_no_starttls():
    script = f"{UP}{LOGGED_IN}C: ATRN\nS: 453 no\n{BYE}"
    assert hold(script, secure=True, tls="implicit", **LOGIN).result is PullResult.NO_MAIL
    end = hold(UP + BYE, tls="implicit", **LOGIN)
    assert (end.stage, end.result) == (PullStage.STARTTLS, PullResult.UNAVAILABLE)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ("535 5.7.8 no", PullResult.DENIED),
        ("454 4.7.0 later", PullResult.TEMPORARY),
        ("421 4.7.0 too many guesses", PullResult.TEMPORARY),
    ],
)
def test_a_login_that_fails(answer, result):
    bye = "" if answer.startswith("421") else BYE
    end = hold(f"{UP}{AUTH}S: {answer}\n{bye}", secure=True, **LOGIN)
    assert (end.stage, end.result) == (PullStage.AUTH, result)
    assert end.reply.code == int(answer[:3])
    assert "secret" not in f"{end}"


def test_no_mechanism_that_fits():
    end = hold(UP.replace("CRAM-MD5", "GSSAPI") + BYE, secure=True, **LOGIN)
    assert (end.stage, end.result) == (PullStage.AUTH, PullResult.DENIED)
    assert "no mechanism" in end.text


def test_atrn_that_is_not_offered_is_looked_for_again_after_the_login():
    unknown = UP.replace("S: 250 ATRN\n", "S: 250 HELP\n")
    known = SECURED.replace("S: 250-AUTH CRAM-MD5\n", "")
    end = hold(f"{unknown}{LOGGED_IN}{known}C: ATRN\nS: 453 no\n{BYE}", secure=True, **LOGIN)
    assert end.result is PullResult.NO_MAIL
    end = hold(f"{unknown}{LOGGED_IN}C: EHLO ship.example.org\nS: 250 bare\n{BYE}", secure=True, **LOGIN)
    assert (end.stage, end.result) == (PullStage.ASKING, PullResult.UNAVAILABLE)
    assert end.text == "odmr.example.net does not offer ATRN"


@pytest.mark.parametrize(
    ("script", "stage", "result"),
    [
        ("X: close", PullStage.GREETING, PullResult.TEMPORARY),
        ("X: slow", PullStage.GREETING, PullResult.TEMPORARY),
        ("S: 421 busy", PullStage.GREETING, PullResult.TEMPORARY),
        ("S: what?", PullStage.GREETING, PullResult.TEMPORARY),
        ("S: 450 later" + BYE, PullStage.GREETING, PullResult.TEMPORARY),
        ("S: 554 no" + BYE, PullStage.GREETING, PullResult.UNAVAILABLE),
        # There is no use in HELO: neither AUTH nor ATRN would be known.
        ("S: 220 hi\nC: EHLO ship.example.org\nS: 502 what?" + BYE, PullStage.HELLO, PullResult.UNAVAILABLE),
        ("S: 220 hi\nC: EHLO ship.example.org\nX: close", PullStage.HELLO, PullResult.TEMPORARY),
        (UP + "C: ATRN\nX: close", PullStage.ASKING, PullResult.TEMPORARY),
        (UP + "C: ATRN\nX: slow", PullStage.ASKING, PullResult.TEMPORARY),
        (UP + "C: ATRN\nS: 421 4.3.2 going down", PullStage.ASKING, PullResult.TEMPORARY),
        (UP + "C: ATRN\nS: 354 go", PullStage.ASKING, PullResult.TEMPORARY),
    ],
)
def test_ends_on_the_way(script, stage, result):
    end = hold(script, tls="none")
    assert (end.stage, end.result) == (stage, result)
    assert end.text


def test_a_dry_run_logs_in_and_leaves():
    end = hold(UP + STARTTLS, SECURED + LOGGED_IN + BYE, domains=("a.example",), dry_run=True, turn=None, **LOGIN)
    assert end.result is PullResult.CHECKED
    assert end.text == "the login as ship works; ATRN would be said for a.example"
    end = hold(UP + BYE, etrn=True, dry_run=True, tls="none")
    assert end.text == "it answers; ETRN would be said for all domains"


def test_progress_is_told_at_each_stage():
    told: list[PullProgress] = []
    hold(UP + STARTTLS, f"{SECURED}{LOGGED_IN}C: ATRN\nS: 453 no\n{BYE}", progress=told.append, **LOGIN)
    stages = [progress.stage for progress in told]
    assert list(dict.fromkeys(stages)) == ["greeting", "hello", "starttls", "auth", "asking"]


def test_what_cannot_work_is_refused_at_once():
    with pytest.raises(ValueError, match="in_thread"):
        PullSession(PullSettings("a", "b", username="ship"), turn=no_turn)
    with pytest.raises(ValueError, match="turn"):
        PullSession(PullSettings("a", "b"))
    assert "secret" not in repr(PullSettings("a", "b", **LOGIN))


PIECES = [
    *(b"220 a\r\n", b"250 a\r\n", b"250-a\r\n", b"354 a\r\n", b"334 YQ==\r\n", b"334 !\r\n", b"235 ok\r\n"),
    *(b"250-a\r\n250-AUTH CRAM-MD5 PLAIN\r\n250-ETRN\r\n250 ATRN\r\n", b"250-a\r\n250 AUTH LOGIN\r\n"),
    *(b"421 a\r\n", b"453 a\r\n", b"550 a\n", b"\r\n", b"2", b"\xff\n", b"a" * 13_000),
]


@given(st.booleans(), st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=25))
def test_no_provider_can_make_the_session_raise(etrn, pieces):
    session = session_for(tls="none", etrn=etrn, domains=("a.example",), turn=lambda: (SmtpClientCore(), None), **LOGIN)
    conversation = JoinedConversation(session.core(), Babbler([b"220 hi\r\n", *pieces]), whole)
    conversation.tls = TLS
    handover = finish(session(conversation))
    assert (handover is not None) == (session.end.stage is PullStage.RECEIVING)
    assert session.end.text


# ------------------------------------------------------------------------------------------------ ETRN


def ask(*answers, domains=None):
    """ETRN for as many nodes as there are answers."""
    nodes = domains or [f"n{number}.example" for number in range(len(answers))]
    lines = "".join(f"C: ETRN {node}\nS: {answer}\n" for node, answer in zip(nodes, answers, strict=True))
    return hold(UP + lines + BYE, etrn=True, tls="none", turn=None, domains=nodes)


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        (["250 OK, queuing for node started"], PullResult.STARTED),
        (["251 OK, no messages waiting"], PullResult.NO_MAIL),
        (["251 none", "251 none"], PullResult.NO_MAIL),
        (["251 none", "252 pending"], PullResult.STARTED),
        (["253 OK, 14 pending messages"], PullResult.STARTED),
        (["458 Unable to queue"], PullResult.TEMPORARY),
        (["250 ok", "458 Unable", "250 ok"], PullResult.TEMPORARY),
        (["458 Unable", "459 not allowed"], PullResult.DENIED),
        (["500 what?"], PullResult.UNAVAILABLE),
        (["250 ok", "501 what?"], PullResult.UNAVAILABLE),
        (["530 who?"], PullResult.DENIED),
    ],
)
def test_answers_to_etrn(answers, result):
    end = ask(*answers)
    assert end.result is result
    assert [answer.reply.code for answer in end.nodes] == [int(answer[:3]) for answer in answers]
    assert [answer.node for answer in end.nodes] == [f"n{number}.example" for number in range(len(answers))]


def test_a_refused_node_is_named():
    end = ask("250 ok", "459 not allowed: unknown", domains=["@a.example", "#night"])
    assert end.text == "1 of 2 nodes were taken; #night: 459 not allowed: unknown"


def test_nodes_that_were_answered_before_the_line_broke_are_told():
    script = f"{UP}C: ETRN a.example\nS: 250 ok\nC: ETRN b.example\nX: close"
    end = hold(script, etrn=True, tls="none", turn=None, domains=("a.example", "b.example"))
    assert end.result is PullResult.TEMPORARY
    assert [answer.node for answer in end.nodes] == ["a.example"]


def test_etrn_that_is_not_offered():
    end = hold(UP.replace("S: 250-ETRN\n", "") + BYE, etrn=True, tls="none", turn=None, domains=("a.example",))
    assert (end.result, end.text) == (PullResult.UNAVAILABLE, "odmr.example.net does not offer ETRN")


# ---------------------------------------------------------------------------------------------- the turn


class Turn:
    """A customer's side on a wire in memory, up to where the line has been turned."""

    def __init__(self, *, pace=None, behind=b"", asked=(), **offer):
        self.pace = pace or Pace()
        self.spool = FakeSpool(self.pace)
        self.told: list[PullProgress] = []
        router = FakeRouter(frozenset({"anna@example.net"}), self.pace)
        made = Offer("ship.example.org", **offer)
        self.door = Door("ship.example.org", made, made, router, self.spool, lambda: 1_700_000_000.0)
        self.session = session_for(
            turn=self.door.for_turn(frozenset({"example.net"}), HOST).open,
            tls="none",
            progress=self.told.append,
            domains=asked,
        )
        self.side = Side(self.session, self.session.core())
        self.say(b"220 hi\r\n")
        self.say(b"250-odmr.example.net\r\n250 ATRN\r\n")
        self.greeting = self.say(b"250 now reversing\r\n" + behind)

    def say(self, octets):
        """What is answered."""
        before = len(self.side.wire.sent)
        self.side.receive(octets)
        return self.side.wire.sent[before:]

    @property
    def end(self):
        return self.session.end


HELLO = b"EHLO odmr.example.net\r\n"
MAIL = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\n"
CONTENT = b"Subject: hello\r\n\r\n..dots\r\n.\r\n"
QUIT = b"QUIT\r\n"


@pytest.fixture
def turn():
    return Turn()


def test_after_the_250_we_greet_and_take_mail(turn):
    assert turn.greeting.startswith(b"220 ship.example.org ESMTP")
    assert not re.search(rb"AUTH|STARTTLS|ATRN|ETRN|TURN", turn.say(HELLO))
    for number in range(3):
        assert turn.say(MAIL).splitlines()[-1].startswith(b"354 ")
        assert turn.say(CONTENT).startswith(b"250 2.0.0 Queued")
        assert turn.end.messages == number + 1
    assert turn.say(QUIT).startswith(b"221")
    assert turn.side.is_closing
    assert (turn.end.stage, turn.end.result) == (PullStage.RECEIVING, PullResult.MAIL)
    assert (turn.end.messages, turn.end.octets, turn.end.refusals) == (3, 3 * 25, 0)
    assert len(turn.spool.messages) == 3
    assert turn.told[-1] == PullProgress(PullStage.RECEIVING, 3, 75)


def test_what_stands_behind_the_250_is_for_the_server_that_we_are_now():
    turn = Turn(behind=HELLO + QUIT)
    assert turn.greeting.startswith(b"220 ship")
    assert b"\r\n250-ship.example.org" in turn.greeting
    assert b"\r\n221 " in turn.greeting
    # RFC 2645 section 5.2.1: a provider without mail may turn the line and leave.
    assert turn.end.result is PullResult.NO_MAIL


def test_helo_will_do(turn):
    assert turn.say(b"HELO odmr.example.net\r\n") == b"250 ship.example.org\r\n"
    turn.say(MAIL)
    turn.say(CONTENT)
    turn.say(QUIT)
    assert (turn.end.result, turn.end.messages) == (PullResult.MAIL, 1)


@pytest.mark.parametrize("command", [b"ATRN\r\n", b"TURN\r\n", b"ETRN example.net\r\n", b"AUTH PLAIN AGEAYg==\r\n"])
def test_it_cannot_be_turned_again(turn, command):
    turn.say(HELLO)
    assert turn.say(command)[:3] in (b"502", b"500", b"503", b"530")


def test_chunks_are_counted_as_messages_once():
    turn = Turn()
    turn.say(HELLO)
    turn.say(MAIL.replace(b"DATA\r\n", b"") + b"BDAT 10\r\nSubject: a" + b"BDAT 5 LAST\r\n\r\n\r\nb")
    assert (turn.end.messages, turn.end.octets) == (1, 15)


def test_progress_is_told_within_a_message(turn):
    turn.say(HELLO)
    turn.say(MAIL)
    turn.say(b"Subject: hello\r\n")
    assert (turn.told[-1].messages, turn.told[-1].octets) == (0, 14)  # a CR LF may be the end's


@pytest.mark.parametrize("said", [b"", HELLO, HELLO + MAIL, HELLO + MAIL + CONTENT, HELLO + MAIL + CONTENT + MAIL])
def test_a_line_that_breaks_before_quit_is_a_temporary_failure(turn, said):
    turn.say(said)
    turn.side.lose(ConnectionLost())
    assert (turn.end.stage, turn.end.result) == (PullStage.RECEIVING, PullResult.TEMPORARY)
    assert turn.end.messages == said.count(CONTENT)
    assert turn.end.text == "the line broke (receiving)"
    assert turn.spool.open_drafts == 0


def test_a_session_that_is_cancelled_while_the_disk_works_is_a_line_that_broke():
    turn = Turn(pace=Pace(slow=True))
    turn.say(HELLO + MAIL)
    turn.pace.go_on()
    turn.side.lose(ConnectionLost())
    assert turn.end.result is PullResult.TEMPORARY


def test_what_we_refuse_is_told(turn):
    turn.say(HELLO)
    turn.say(MAIL + CONTENT)
    turn.say(b"MAIL FROM:<ann@example.org>\r\n")
    assert turn.say(b"RCPT TO:<anna@elsewhere.example>\r\n").startswith(b"450 4.7.1")
    turn.say(QUIT)
    assert (turn.end.result, turn.end.messages, turn.end.refusals) == (PullResult.MAIL, 1, 1)
    assert turn.end.text.startswith("we have refused 1 command, the last with 450 4.7.1")
    assert "; elsewhere.example is not ours here: add it by `mailsuite domain add elsewhere.example`" in turn.end.text
    assert turn.end.text.endswith(", or give it a [[route]]")


@pytest.mark.parametrize(
    ("recipients", "text"),
    [
        (["anna@new.example", "bob@other.example"], "new.example is not ours here: add it by `mailsuite domain add"),
        (["nobody@example.net", "anna@new.example"], "new.example is not ours here: add it by `mailsuite domain add"),
        (["nobody@example.net"], "the first recipient was at example.net: see who has mailboxes there"),
    ],
)
def test_a_turn_in_which_all_was_refused_is_not_one_without_mail(turn, recipients, text):
    turn.say(HELLO)
    for recipient in recipients:
        turn.say(b"MAIL FROM:<ann@example.org>\r\n")
        assert turn.say(b"RCPT TO:<%s>\r\n" % recipient.encode())[:3] in (b"450", b"550")
        turn.say(b"RSET\r\n")
    turn.say(QUIT)
    assert (turn.end.result, turn.end.messages, turn.end.refusals) == (PullResult.REFUSED, 0, len(recipients))
    assert not turn.end.result.is_success
    assert f"; {text}" in turn.end.text


def test_a_recipient_whose_domain_was_not_asked_for_is_told_as_such():
    turn = Turn(asked=("example.net",))
    turn.say(HELLO)
    turn.say(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<anna@new.example>\r\n")
    turn.say(QUIT)
    assert turn.end.text.endswith("; new.example was not asked for: add it to `domains` of the pull")


def test_each_refusal_is_progress(turn):
    turn.say(HELLO)
    turn.say(b"MAIL FROM:<ann@example.org>\r\n")
    before = len(turn.told)
    turn.say(b"RCPT TO:<anna@new.example>\r\n")
    assert len(turn.told) == before + 1
    turn.say(b"NOOP\r\n")
    assert len(turn.told) == before + 1


def test_a_full_disk_leaves_the_rest_there(turn):
    turn.say(HELLO)
    turn.spool.failures["draft"] = SpoolFull("full")
    assert turn.say(MAIL).splitlines()[-1].startswith(b"452 4.3.1")
    turn.say(QUIT)
    assert (turn.end.result, turn.end.messages) == (PullResult.TEMPORARY, 0)


def test_the_servers_session_is_given_a_conversation():
    given = []

    async def keep(conversation):
        given.append(conversation)
        await conversation.drain()

    core = Turn().door.open()[0]
    session = session_for(tls="none", turn=lambda: (core, keep))
    side = Side(session, session.core())
    for said in (b"220 hi\r\n", b"250-odmr.example.net\r\n250 ATRN\r\n", b"250 now reversing\r\n"):
        side.receive(said)
    assert verifyObject(IConversation, given[0])
    assert given[0].core is core
    # It has ended without a QUIT.
    assert session.end.result is PullResult.TEMPORARY


def test_settings_can_be_changed_as_a_value():
    settings = replace(PullSettings("a", "b"), dry_run=True)
    assert settings.dry_run
    assert isinstance(PullSession(settings).core(), SmtpClientCore)
