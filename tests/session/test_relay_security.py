"""STARTTLS and AUTH of the relay session: when they are said, what they lead to, and what never leaves in plaintext."""

import hmac
from base64 import b64encode
from collections.abc import Sequence

import pytest

from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.session.handover import Handover
from mailsuite.session.relay import RelayEnd, RelaySession, RelaySettings, Stage
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.client_states import State
from tests.session.relaying import AGAIN, BYE, GOOD_MORNING, HELLO
from tests.session.scripted import TLS, ListedRun, ScriptedConversation, finish, make_delivery

OPTIONS = object()
MAIL = f"""
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
"""
MAIL_AUTHENTICATED = MAIL.replace("<ann@example.org>", "<ann@example.org> AUTH=<>")


async def in_thread(function, *args):
    return function(*args)


def encoded(text: bytes) -> str:
    return b64encode(text).decode()


PLAIN = "C: AUTH PLAIN " + encoded(b"\0relay\0secret") + "\n"
CHALLENGE = b"<42@mx.example.net>"


def exchange(command: str, *turns: bytes) -> str:
    """An AUTH command, then challenges and responses in turn."""
    sides = ["S: 334 ", "C: "] * (len(turns) // 2)
    return "\n".join([command, *(side + encoded(turn) for side, turn in zip(sides, turns, strict=True)), ""])


def relay(hop: NextHop, *scripts: str, tls=lambda: OPTIONS, secure: bool = False) -> tuple[ListedRun, RelayEnd, bytes]:
    """Hold a session; each script after the first is for the conversation behind a handshake."""
    run = ListedRun(make_delivery())
    session = RelaySession(run, RelaySettings("relay.example.org", hop), tls=tls, in_thread=in_thread)
    core, talk = SmtpClientCore(), session
    said = b""
    for number, script in enumerate(scripts):
        conversation = ScriptedConversation(core, script, tls=TLS if secure or number else None)
        handover = finish(talk(conversation))
        conversation.check()
        said += conversation.said
        if number + 1 < len(scripts):
            assert isinstance(handover, Handover)
            assert handover.tls is OPTIONS
            assert handover.core is not core
            assert handover.core.state is State.INITIAL
            assert core.state is State.DONE
            core, talk = handover.core, handover.session
        else:
            assert handover is None
    run.check_accounts()
    return run, session.end, said


def hop(tls: str, **more: str) -> NextHop:
    return NextHop("mx.example.net", tls=tls, **more)


def with_credentials(tls: str = "required", password: str = "secret") -> NextHop:
    return hop(tls, username="relay", password=password)


# ------------------------------------------------------------------------------------------------- STARTTLS


@pytest.mark.parametrize("tls", ["opportunistic", "required", "verified"])
def test_starttls_hands_over_and_begins_anew(tls):
    run, end, _ = relay(
        hop(tls),
        f"{HELLO}S: 250-SIZE\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n",
        # What was offered before does not count any more; STARTTLS, which must not be offered again, is passed over.
        f"{AGAIN}S: 250-STARTTLS\nS: 250 HELP\n{MAIL}{BYE}",
    )
    assert run.results("q1") == ["relayed"]
    assert end == RelayEnd(Stage.READY, None, 1)


def test_tls_none_does_not_ask():
    run, _, _ = relay(hop("none"), f"{HELLO}S: 250 STARTTLS\n{MAIL}{BYE}")
    assert run.results("q1") == ["relayed"]


@pytest.mark.parametrize("offer", ["S: 250 HELP\n", "S: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 no\n"])
def test_opportunistic_tls_goes_on_without(offer):
    run, _, _ = relay(hop("opportunistic"), f"{HELLO}{offer}{MAIL}{BYE}")
    assert run.results("q1") == ["relayed"]


def test_opportunistic_tls_needs_options():
    run, _, _ = relay(hop("opportunistic"), f"{HELLO}S: 250 STARTTLS\n{MAIL}{BYE}", tls=None)
    assert run.results("q1") == ["relayed"]


@pytest.mark.parametrize("tls", ["required", "verified"])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        (f"{HELLO}S: 250 SIZE\n{BYE}", "4.7.4"),
        (f"{HELLO}S: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\n{BYE}", "4.7.0"),
        (f"{HELLO}S: 250 STARTTLS\nC: STARTTLS\nS: 554 5.7.3 never\n{BYE}", "4.7.3"),
        (f"{HELLO}S: 250 STARTTLS\nC: STARTTLS\nX: close\n", "4.4.2"),
        (
            "S: 220 hello\nC: EHLO relay.example.org\nS: 500 no\nC: HELO relay.example.org\nS: 250 mx.example.net\n"
            + BYE,
            "4.7.4",
        ),
    ],
)
def test_required_tls_defers_without(tls, script, status):
    run, end, said = relay(hop(tls), script)
    assert run.taken == []
    assert (end.stage, end.reached, end.tls_failed) == (Stage.STARTTLS, False, True)
    assert end.outcome is not None
    assert (end.outcome.result, str(end.outcome.status)) == (Result.DEFERRED, status)
    assert b"MAIL" not in said


def test_failed_handshake_is_known_by_its_stage():
    session = RelaySession(
        ListedRun(make_delivery()), RelaySettings("relay.example.org", hop("opportunistic")), tls=list
    )
    conversation = ScriptedConversation(SmtpClientCore(), f"{HELLO}S: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n")
    assert isinstance(finish(session(conversation)), Handover)
    # The driver drops the connection when the handshake fails, and never calls the session that was handed over.
    assert session.end.tls_failed
    assert session.end.outcome is not None
    assert session.end.outcome.result is Result.DEFERRED
    assert "handshake" in session.end.outcome.text


def test_plaintext_behind_the_220_is_left_to_whoever_hands_over():
    session = RelaySession(ListedRun(make_delivery()), RelaySettings("relay.example.org", hop("required")), tls=list)
    core = SmtpClientCore()
    conversation = ScriptedConversation(core, f"{HELLO}S: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nS: 250 injected\n")
    handover = finish(session(conversation))
    assert core.trailing_data == b"250 injected\r\n"
    assert handover.core.next_event() is not None
    assert not handover.core.capabilities.keywords


def test_implicit_tls_does_not_say_starttls():
    run, _, _ = relay(hop("implicit"), f"{HELLO}S: 250 STARTTLS\n{MAIL}{BYE}", secure=True)
    assert run.results("q1") == ["relayed"]


def test_implicit_tls_that_is_not_there_defers():
    run, end, _ = relay(hop("implicit"), f"{HELLO}S: 250 STARTTLS\n{BYE}")
    assert run.taken == []
    assert end.outcome is not None
    assert str(end.outcome.status) == "4.7.4"


# ----------------------------------------------------------------------------------------------------- AUTH


def behind_tls(script: str) -> Sequence[str]:
    return f"{HELLO}S: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n", script


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        ("AUTH PLAIN LOGIN", PLAIN),
        (
            "AUTH=LOGIN",
            exchange("C: AUTH LOGIN", b"Username:", b"relay", b"Password:", b"secret"),
        ),
        (
            "AUTH LOGIN CRAM-MD5",
            exchange(
                "C: AUTH CRAM-MD5", CHALLENGE, b"relay " + hmac.new(b"secret", CHALLENGE, "md5").hexdigest().encode()
            ),
        ),
    ],
)
def test_authentication_over_tls(offer, said):
    run, end, _ = relay(
        with_credentials(),
        *behind_tls(f"{AGAIN}S: 250 {offer}\n{said}S: 235 2.7.0 Welcome\n{MAIL_AUTHENTICATED}{BYE}"),
    )
    assert run.results("q1") == ["relayed"]
    assert end.reached


@pytest.mark.parametrize("tls", ["none", "opportunistic", "required", "verified"])
@pytest.mark.parametrize("mechanisms", ["PLAIN", "CRAM-MD5", "SCRAM-SHA-256"])
def test_no_credentials_leave_in_plaintext(tls, mechanisms):
    run, end, said = relay(with_credentials(tls), f"{HELLO}S: 250 AUTH {mechanisms}\n{BYE}")
    assert run.taken == []
    assert b"AUTH" not in said
    assert end.outcome is not None
    assert (end.outcome.result, str(end.outcome.status)) == (Result.DEFERRED, "4.7.4")


@pytest.mark.parametrize(
    ("answers", "status", "text"),
    [
        ("S: 250 SIZE\n", "4.7.8", "no mechanism"),
        ("S: 250 AUTH XOAUTH2 GSSAPI\n", "4.7.8", "no mechanism"),
        (f"S: 250 AUTH PLAIN\n{PLAIN}S: 535 5.7.8 Wrong\n", "4.7.8", "Wrong"),
        (f"S: 250 AUTH PLAIN\n{PLAIN}S: 535 Wrong\n", "4.7.8", "Wrong"),
        (f"S: 250 AUTH PLAIN LOGIN\n{PLAIN}S: 454 4.7.0 Later\n", "4.7.0", "Later"),
        (f"S: 250 AUTH PLAIN\n{PLAIN}S: 334 more\nC: *\nS: 501 5.7.0 Cancelled\n", "4.7.0", "challenge too many"),
        ("S: 250 AUTH CRAM-MD5\nC: AUTH CRAM-MD5\nS: 334 ****\nC: *\nS: 501 Cancelled\n", "4.7.8", "cancelled"),
        (
            "S: 250 AUTH CRAM-MD5\nC: AUTH CRAM-MD5\nS: 334 gr\u00fc\u00dfe\nC: *\nS: 501 Cancelled\n",
            "4.7.8",
            "cancelled",
        ),
        ("S: 250 AUTH CRAM-MD5\nC: AUTH CRAM-MD5\nS: 235 2.7.0 Whoever you are\n", "4.7.0", "not complete"),
        # Two tries at the most: accounts get locked.
        (
            f"S: 250 AUTH CRAM-MD5 PLAIN LOGIN\nC: AUTH CRAM-MD5\nS: 504 5.5.4 What?\n{PLAIN}S: 535 5.7.8 Wrong\n",
            "4.7.8",
            "Wrong",
        ),
    ],
)
def test_failed_authentication_defers_whatever_the_code(answers, status, text):
    run, end, _ = relay(with_credentials(), *behind_tls(f"{AGAIN}{answers}{BYE}"))
    assert run.taken == []
    assert (end.stage, end.reached) == (Stage.AUTH, False)
    assert end.outcome is not None
    assert (end.outcome.result, str(end.outcome.status)) == (Result.DEFERRED, status)
    assert text in end.outcome.text
    assert "secret" not in repr(end)


def test_second_mechanism_may_succeed_where_the_first_is_refused():
    run, _, _ = relay(
        with_credentials(),
        *behind_tls(
            f"{AGAIN}S: 250 AUTH CRAM-MD5 PLAIN\nC: AUTH CRAM-MD5\nS: 535 5.7.8 No such secret\n"
            f"{PLAIN}S: 235 2.7.0 Welcome\n{MAIL_AUTHENTICATED}{BYE}"
        ),
    )
    assert run.results("q1") == ["relayed"]


def test_server_that_goes_on_asking_gets_no_quit_within_the_exchange():
    _, end, _ = relay(
        with_credentials(),
        *behind_tls(f"{AGAIN}S: 250 AUTH PLAIN\n{PLAIN}S: 334 bW9yZQ==\nC: *\nS: 334 bW9yZQ==\n"),
    )
    assert end.stage is Stage.AUTH


def test_long_initial_response_goes_without_the_command():
    # RFC 4954 section 4: the AUTH command keeps to the length of a command line
    password = "x" * 400
    response = encoded(b"\0relay\0" + password.encode())
    run, _, _ = relay(
        with_credentials(password=password),
        *behind_tls(
            f"{AGAIN}S: 250 AUTH PLAIN\nC: AUTH PLAIN\nS: 334 \nC: {response}\nS: 235 ok\n{MAIL_AUTHENTICATED}{BYE}"
        ),
    )
    assert run.results("q1") == ["relayed"]


def test_credentials_need_a_thread_for_slow_mechanisms():
    with pytest.raises(ValueError, match="in_thread"):
        RelaySession(ListedRun(), RelaySettings("relay.example.org", with_credentials()))


def test_settings_and_sessions_do_not_show_the_password():
    settings = RelaySettings("relay.example.org", with_credentials(password="hunter2"))
    assert "hunter2" not in repr(settings)
