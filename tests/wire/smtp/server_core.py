"""A server's core for tests: brought into any state, answered as a session that agrees to everything would answer."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, EndOfFile, Event, Phase
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    AuthResponse,
    Bdat,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Turn,
    Vrfy,
)
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore
from mailsuite.wire.smtp.server_states import State

OFFER = Offer("mx.example.net", starttls=True, mechanisms=(b"PLAIN",), max_size=100, max_errors=1000)
RELAYING_OFFER = replace(OFFER, etrn=True, atrn=True, turn=True, checkpoint=True)
ODMR_OFFER = replace(OFFER, odmr=True)
LMTP_OFFER = replace(OFFER, lmtp=True)
GREETING = Reply(220, None, ("mx.example.net ESMTP",))
CHALLENGE = Reply(334, None, ("",))

CONSENT: dict[type[Event], Reply] = {
    Ehlo: Reply(250, None, ("mx.example.net",)),
    Helo: Reply(250, None, ("mx.example.net",)),
    Mail: replies.SENDER_OK,
    Rcpt: replies.RECIPIENT_OK,
    Data: replies.START_CONTENT,
    ContentEnd: replies.QUEUED,
    Rset: replies.RESET,
    Noop: replies.OK,
    Help: replies.HELP,
    Vrfy: replies.CANNOT_VRFY,
    Quit: replies.BYE,
    StartTls: replies.READY_FOR_TLS,
    Auth: CHALLENGE,
    AuthResponse: replies.AUTHENTICATED,
    Etrn: replies.ETRN_STARTED,
    Atrn: replies.TURNING,
    Turn: replies.TURNING,
}
"""What says yes to each event; what is not here wants no answer."""

_EHLO = b"EHLO client.example.org\r\n"
_MAIL = _EHLO + b"MAIL FROM:<fred@example.org>\r\n"
_RCPT = _MAIL + b"RCPT TO:<anna@example.net>\r\n"
WAYS: dict[State, bytes] = {
    State.INITIAL: b"",
    State.READY: _EHLO,
    State.SENDER: _MAIL,
    State.RECIPIENTS: _RCPT,
    State.CONTENT: _RCPT + b"DATA\r\n",
    State.CHUNKS: _RCPT + b"BDAT 3\r\nabc",
    State.BROKEN: _RCPT + b"BDAT 101\r\n" + b"x" * 101,
    State.AUTH: _EHLO + b"AUTH PLAIN\r\n",
    State.DONE: b"QUIT\r\n",
}
"""What a client says to bring a core that was just greeted into a state."""


_LOGIN = b"EHLO client.example.org\r\nAUTH PLAIN AGEAYg==\r\n"


def core_in(state: State, offer: Offer = OFFER, *, authenticated: bool = False) -> SmtpServerCore:
    """A core that has come into this state by the ways of the protocol; `authenticated` needs one that is greeted."""
    core = SmtpServerCore(offer)
    if state is State.CONNECTED:
        return core
    if state is State.REFUSING:
        core.send(Reply(554, None, ("No SMTP service here",)))
        return core
    core.send(GREETING)
    if authenticated:
        talk(core, _LOGIN, consent={**CONSENT, Auth: replies.AUTHENTICATED})
    if WAYS[state]:
        talk(core, WAYS[state].replace(b"EHLO", b"LHLO") if offer.lmtp else WAYS[state])
    assert core.state is state
    return core


def answer(core: SmtpServerCore, event: Event, consent: dict[type[Event], Reply] | None = None) -> bytes:
    """Say yes to one event, as often as it wants to hear it; but repeat a refusal that stands in it."""
    fault = getattr(event, "fault", None)
    reply = (consent or CONSENT).get(type(event)) if fault is None else fault
    said = b""
    while reply is not None and core.timeout is Phase.WORKING and core.state is not State.DONE:
        said += core.send(reply)
    return said


def talk(
    core: SmtpServerCore,
    octets: bytes,
    cut: Callable[[bytes], Iterable[bytes]] = lambda octets: [octets],
    consent: dict[type[Event], Reply] | None = None,
) -> tuple[list[Event], bytes]:
    """Feed octets and say yes to everything: the events, pieces of content joined, and all that was said."""
    events: list[Event] = []
    said = b""
    for piece in cut(octets):
        core.receive_data(piece)
        while True:
            event = core.next_event()
            if event is NEED_DATA or event is PAUSED:
                break
            assert isinstance(event, Event)
            if isinstance(event, Content) and events and isinstance(events[-1], Content):
                events[-1] = Content(events[-1].data + event.data)
            else:
                events.append(event)
            if isinstance(event, EndOfFile):
                break
            if isinstance(event, Answer):
                said += event.data
            elif not isinstance(event, Bdat | Content):
                said += answer(core, event, consent)
    return events, said
