"""A conversation with a server's core, checked at every step, and what it came to.

The session's answers are chosen by numbers, so that the same numbers and octets come to the same, in any packets.
"""

from collections.abc import Iterable
from itertools import cycle

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, Event, Phase, Signal
from mailsuite.wire.smtp.checkpoint import resuming
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Mail,
    Quit,
    Rcpt,
    StartTls,
    Turn,
)
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore
from mailsuite.wire.smtp.server_states import LEGAL, State
from tests.wire.smtp.server_core import GREETING

_HELLO = Reply(250, None, ("mx.example.net",))
_CHALLENGE = Reply(334, None, ("",))

ANSWERS: dict[type[Event], list[Reply]] = {
    Ehlo: [_HELLO, _HELLO, replies.SHUTTING_DOWN, replies.LOCAL_ERROR],
    Helo: [_HELLO],
    Mail: [replies.SENDER_OK, replies.SENDER_OK, replies.LOCAL_ERROR, replies.NOT_YOUR_ADDRESS],
    Rcpt: [replies.RECIPIENT_OK, replies.RECIPIENT_OK, replies.MAILBOX_FULL, replies.NO_SUCH_USER],
    Data: [replies.START_CONTENT, replies.START_CONTENT, replies.STORAGE_FULL],
    ContentEnd: [replies.QUEUED, replies.QUEUED, replies.STORAGE_FULL, replies.ROUTING_LOOP],
    Auth: [replies.AUTHENTICATED, _CHALLENGE, replies.AUTH_REFUSED, replies.AUTH_TEMPORARY],
    AuthResponse: [replies.AUTHENTICATED, _CHALLENGE, replies.AUTH_REFUSED],
    Etrn: [replies.ETRN_STARTED, replies.ETRN_NOT_ALLOWED],
    Atrn: [replies.NO_MAIL, replies.ATRN_REFUSED, replies.TURNING],
    Turn: [replies.NOT_IMPLEMENTED, replies.TURNING],
    StartTls: [replies.READY_FOR_TLS, replies.TLS_UNAVAILABLE],
    Quit: [replies.BYE],
}
"""What a session may say; to anything else it says 250."""


class Trace:
    """What a conversation came to: events, and what was said, in order."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.said = b""

    def note(self, event: Event) -> None:
        if isinstance(event, Content) and self.events and isinstance(self.events[-1], Content):
            event = Content(self.events.pop().data + event.data)  # type: ignore[attr-defined]
        # With several faults in one content, the packets decide which of them is seen first.
        self.events.append("content refused" if isinstance(event, ContentEnd) and event.fault else event)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return (self.events_that_matter(), self.said) == (other.events_that_matter(), other.said)

    __hash__ = None  # type: ignore[assignment]

    def events_that_matter(self) -> list[object]:
        """Where content is refused, or has no end, how much of it was handed out depends on the packets."""
        kept: list[object] = []
        for event in [*self.events, "content refused"]:
            if event == "content refused" and kept and isinstance(kept[-1], Content):
                kept.pop()
            kept.append(event)
        return kept

    def __repr__(self) -> str:
        return f"{self.events_that_matter()}\n{self.said!r}"


def _check_event(core: SmtpServerCore, event: Event) -> None:
    """Assert that an event may be seen now."""
    if isinstance(event, Answer):
        assert event.data.endswith(b"\r\n")
        assert event.closing is (core.state is State.DONE)
    elif isinstance(event, Bdat | Content | ContentEnd):
        assert core.state is State.CONTENT
        assert core.in_transaction
    elif isinstance(event, AuthResponse):
        assert core.state is State.AUTH
    else:
        assert isinstance(event, Command)
        assert core.state in LEGAL[type(event)]


def converse(offer: Offer, pieces: Iterable[bytes], choices: list[int]) -> Trace:
    core = SmtpServerCore(offer)
    core.send(GREETING)
    trace = Trace()
    choose = cycle(choices)
    total = 0
    steps = 0
    for piece in pieces:
        core.receive_data(piece)
        total += len(piece)
        while True:
            event = core.next_event()
            steps += 1
            assert steps <= 4 * total + 4, "the core does not come to rest"
            if isinstance(event, Signal):
                break
            _check_event(core, event)
            trace.note(event)
            if isinstance(event, Answer):
                trace.said += event.data
            elif not isinstance(event, Content | Bdat):
                assert core.next_event() is PAUSED
                assert core.timeout is Phase.WORKING
                trace.said += _respond(core, event, next(choose))
        assert event is (PAUSED if core.state is State.DONE else NEED_DATA)
        if core.state is State.DONE:
            break
        assert core.buffered <= max(offer.line_limit, offer.max_response)
    return trace


def _respond(core: SmtpServerCore, event: Event, choice: int) -> bytes:
    if getattr(event, "fault", None) is not None:
        reply = replies.BAD_SEQUENCE  # one for all: which fault it is may depend on the packets
    else:
        options = ANSWERS.get(type(event), [replies.OK])
        if isinstance(event, Mail) and event.transid is not None:
            options = [resuming(10), *options]
        reply = options[choice % len(options)]
    said = b""
    while core.timeout is Phase.WORKING and core.state is not State.DONE:
        said += core.send(reply)
    return said
