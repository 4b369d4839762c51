"""Holds one relay session by a script, with the words that scripts are made of."""

from mailsuite.mail.route import NextHop
from mailsuite.session.relay import RelayEnd, RelaySession, RelaySettings
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.session.scripted import ListedRun, ScriptedConversation, finish, make_delivery
from tests.wire.smtp.client_dialogue import whole

HOP = NextHop("mx.example.net")
HELLO = """
S: 220 mx.example.net ESMTP
C: EHLO relay.example.org
S: 250-mx.example.net
"""
AGAIN = """
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


def converse(
    script: str | list[tuple[str, bytes]],
    *deliveries,
    hop: NextHop = HOP,
    cut=whole,
    kind: type[ScriptedConversation] = ScriptedConversation,
    **settings,
) -> tuple[ListedRun, RelayEnd, ScriptedConversation]:
    """Hold one session by the script, as far as it goes; every delivery that was taken is accounted for."""
    run = ListedRun(*(deliveries or (make_delivery(),)))
    session = RelaySession(run, RelaySettings("relay.example.org", hop, **settings))
    conversation = kind(SmtpClientCore(lmtp=hop.lmtp), script, cut=cut)
    assert finish(session(conversation)) is None
    run.check_accounts()
    return run, session.end, conversation


def relay(script: str | list[tuple[str, bytes]], *deliveries, **options) -> tuple[ListedRun, RelayEnd]:
    """Hold one session by the script, to its end; the options are those of `converse`."""
    run, end, conversation = converse(script, *deliveries, **options)
    conversation.check()
    return run, end


def names(count: int) -> list[str]:
    return [f"user{number}@example.net" for number in range(count)]


def lines(side: str, texts) -> str:
    return "\n".join(f"{side}: {text}" for text in texts)
