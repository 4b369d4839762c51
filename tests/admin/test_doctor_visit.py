"""A visit to a server, by scripts: how far it comes, what it has seen, and why it ended."""

import pytest

from mailsuite.admin.doctor.visit import Place, Reached, VisitSession
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.session.scripted import TLS, ScriptedConversation, finish

GREETED = """
S: 220 mx.example.net ESMTP
C: EHLO doctor.example.org
"""
OFFERED = f"""{GREETED}
S: 250-mx.example.net
S: 250-ATRN
S: 250 STARTTLS
"""
BYE = """
C: QUIT
S: 221 2.0.0 Bye
"""
SECURED = f"""{OFFERED}
C: STARTTLS
S: 220 2.0.0 Ready
"""
AGAIN = """
C: EHLO doctor.example.org
S: 250-mx.example.net
S: 250 AUTH PLAIN
"""
LOGIN = """
C: AUTH PLAIN AGhvbWUAc2VzYW1l
"""


async def in_thread(function, *arguments):
    return function(*arguments)


def visit(script, *secured, tls="required", facts=None, **login):
    """What is seen of a server that follows the script, and the second one behind STARTTLS."""
    place = Place("mx.example.net", 366, tls, **login)
    session = VisitSession(place, "doctor.example.org", tls=object(), in_thread=in_thread)
    conversation = ScriptedConversation(SmtpClientCore(), script, tls=facts)
    handover = finish(session(conversation))
    conversation.check()
    for further in secured:
        conversation = ScriptedConversation(handover.core, further, tls=TLS)
        assert finish(handover.session(conversation)) is None
        conversation.check()
    return session.seen


def test_visit_goes_through_tls_to_its_end():
    seen = visit(SECURED, AGAIN + BYE)
    assert (seen.reached, seen.trouble) == (Reached.DONE, None)
    assert seen.greeting == "220 mx.example.net ESMTP"
    assert seen.plain.atrn
    assert seen.secure.auth
    assert seen.offered is seen.secure
    assert seen.protocol == "TLSv1.3"


def test_visit_logs_in_where_it_is_told_to():
    seen = visit(SECURED, f"{AGAIN}{LOGIN}S: 235 2.7.0 Welcome{BYE}", username="home", password="sesame")
    assert seen.reached is Reached.DONE


def test_visit_under_tls_from_the_first_octet_says_no_starttls():
    seen = visit(OFFERED + BYE, facts=TLS)
    assert (seen.reached, seen.protocol) == (Reached.DONE, "TLSv1.3")


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
def test_visit_goes_without_tls_where_it_may(tls):
    seen = visit(f"{GREETED}S: 250 mx.example.net{BYE}", tls=tls)
    assert (seen.reached, seen.secure) == (Reached.DONE, None)


@pytest.mark.parametrize(
    ("script", "reached", "trouble"),
    [
        (f"S: 554 5.3.2 No{BYE}", Reached.CONNECTED, "it does not serve us: 554 5.3.2 No"),
        ("S: 421 4.3.2 Busy", Reached.CONNECTED, "it hangs up: 421 4.3.2 Busy"),
        ("X: close", Reached.CONNECTED, "the connection was lost"),
        ("X: slow", Reached.CONNECTED, "the connection was lost"),
        (f"{GREETED}S: 502 5.5.1 No{BYE}", Reached.GREETED, "it refuses EHLO: 502 5.5.1 No"),
        (f"{GREETED}S: 250 mx.example.net{BYE}", Reached.HEARD, "it does not offer STARTTLS"),
        (f"{OFFERED}C: STARTTLS\nS: 454 4.7.0 No{BYE}", Reached.HEARD, "it refuses STARTTLS: 454 4.7.0 No"),
        (SECURED, Reached.HEARD, "the TLS handshake has failed"),
    ],
)
def test_visit_tells_how_far_it_came(script, reached, trouble):
    seen = visit(script)
    assert seen.reached is reached
    assert seen.trouble.startswith(trouble)


def test_login_that_is_refused_is_the_end():
    seen = visit(SECURED, f"{AGAIN}{LOGIN}S: 535 5.7.8 No{BYE}", username="home", password="sesame")
    assert seen.reached is Reached.SECURED
    assert seen.reply.code == 535
    assert "No" in seen.trouble


def test_password_never_goes_in_plaintext():
    script = f"{GREETED}S: 250-mx.example.net\nS: 250 AUTH PLAIN{BYE}"
    seen = visit(script, tls="opportunistic", username="home", password="sesame")
    assert "over TLS only" in seen.trouble


def test_password_is_not_shown():
    assert "sesame" not in repr(Place("mx.example.net", 366, username="home", password="sesame"))
