"""Whatever a client says, in whatever packets: the core never raises, never stalls, and hands out what is legal."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, Event, Phase, Signal
from mailsuite.wire.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Helo,
    Mail,
    Quit,
    Rcpt,
    StartTls,
)
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import LEGAL, SmtpServerCore, State
from tests.wire.smtp.server_core import GREETING

HELLO = Reply(250, None, ("mx.example.net",))
CHALLENGE = Reply(334, None, ("",))

GOOD_LINES = [
    b"EHLO client.example.org",
    b"LHLO client.example.org",
    b"HELO client.example.org",
    b"MAIL FROM:<fred@example.org>",
    b"MAIL FROM:<> SIZE=10 BODY=8BITMIME",
    b"MAIL FROM:<j\xc3\xbcrgen@example.org> SMTPUTF8",
    b"RCPT TO:<anna@example.net>",
    b"RCPT TO:<gr\xc3\xb6\xc3\x9fe@example.net>",
    b"RCPT TO:<postmaster>",
    b"DATA",
    b"RSET",
    b"NOOP",
    b"HELP",
    b"VRFY anna",
    b"AUTH PLAIN",
    b"AUTH PLAIN AGZyZWQAc2VjcmV0",
    b"AGZyZWQAc2VjcmV0",
    b"*",
    b"QUIT",
    b".",
]
BAD_LINES = [
    b"",
    b"SPIN",
    b"MAIL FROM:<fred",
    b"MAIL FROM:<fred@example.org> SIZE=x",
    b"MAIL FROM:<fred@example.org> SIZE=99999",
    b"RCPT TO:<@>",
    b"BDAT x",
    b"BDAT 3 FIRST",
    b"AUTH PLAIN ===",
    b"EHLO a b",
    b"NOOP \x00",
    b"\xff\xfe",
    b"x" * 150,
    b"..",
    b"text",
]
LINE_ENDS = [b"\r\n"] * 12 + [b"\n", b"\r", b"", b"\r\r\n", b"\n\r\n"]


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    octets = draw(st.binary(max_size=30) | st.sampled_from([b"\r\n.\r\n", b"QUIT\r\n", b"A: b\r\n\r\n"]))
    said = draw(st.sampled_from([0, 0, 0, 0, 1, -1])) + len(octets)
    return b"BDAT %d%b\r\n%b" % (max(said, 0), draw(st.sampled_from([b"", b" LAST"])), octets)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A whole transaction with content of any kind, in one group."""
    tokens = st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"\r\n.", b"A: b\r\n", b"\x00", b"text", b"x" * 30])
    body = b"".join(draw(st.lists(tokens, max_size=12)))
    return b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + body + b"\r\n.\r\n"


LINES = st.builds(bytes.__add__, st.sampled_from(GOOD_LINES + GOOD_LINES + BAD_LINES), st.sampled_from(LINE_ENDS))
SOUPS = st.lists(LINES | chunks() | messages() | st.binary(max_size=8), max_size=40).map(b"".join)
OFFERS = st.builds(
    Offer,
    st.just("mx.example.net"),
    lmtp=st.booleans(),
    max_size=st.sampled_from([None, 40, 1000]),
    mechanisms=st.sampled_from([(), (b"PLAIN",)]),
    require_auth=st.sampled_from([False, False, True]),
    chunking=st.sampled_from([True, True, False]),
    smtputf8=st.booleans(),
    line_ends=st.sampled_from(LineEndRule),
    max_line=st.just(100),
    max_response=st.just(60),
    max_errors=st.sampled_from([3, 1000]),
)
ANSWERS: dict[type[Event], list[Reply]] = {
    Ehlo: [HELLO, HELLO, replies.SHUTTING_DOWN, replies.LOCAL_ERROR],
    Helo: [HELLO],
    Mail: [replies.SENDER_OK, replies.SENDER_OK, replies.LOCAL_ERROR, replies.NOT_YOUR_ADDRESS],
    Rcpt: [replies.RECIPIENT_OK, replies.RECIPIENT_OK, replies.MAILBOX_FULL, replies.NO_SUCH_USER],
    Data: [replies.START_CONTENT, replies.START_CONTENT, replies.STORAGE_FULL],
    ContentEnd: [replies.QUEUED, replies.QUEUED, replies.STORAGE_FULL, replies.ROUTING_LOOP],
    Auth: [replies.AUTHENTICATED, CHALLENGE, replies.AUTH_REFUSED, replies.AUTH_TEMPORARY],
    AuthResponse: [replies.AUTHENTICATED, CHALLENGE, replies.AUTH_REFUSED],
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
        """Where content is refused, how much of it came before that depends on the packets."""
        kept: list[object] = []
        for event in self.events:
            if event == "content refused" and kept and isinstance(kept[-1], Content):
                kept.pop()
            kept.append(event)
        return kept

    def __repr__(self) -> str:
        return f"{self.events_that_matter()}\n{self.said!r}"


def check_event(core: SmtpServerCore, event: Event) -> None:
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
    choose = iter_choices(choices)
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
            check_event(core, event)
            trace.note(event)
            if isinstance(event, Answer):
                trace.said += event.data
            elif not isinstance(event, Content | Bdat):
                assert core.next_event() is PAUSED
                assert core.timeout is Phase.WORKING
                trace.said += respond(core, event, next(choose))
        assert event is (PAUSED if core.state is State.DONE else NEED_DATA)
        if core.state is State.DONE:
            break
        assert core.buffered <= max(offer.max_line, offer.max_response)
    return trace


def iter_choices(choices: list[int]) -> Iterator[int]:
    while True:
        yield from choices


def respond(core: SmtpServerCore, event: Event, choice: int) -> bytes:
    if getattr(event, "fault", None) is not None:
        reply = replies.BAD_SEQUENCE  # one for all: which fault it is may depend on the packets
    else:
        options = ANSWERS.get(type(event), [replies.OK])
        reply = options[choice % len(options)]
    said = b""
    while core.timeout is Phase.WORKING and core.state is not State.DONE:
        said += core.send(reply)
    return said


@settings(max_examples=300)
@given(OFFERS, SOUPS, st.lists(st.integers(0, 11), min_size=1, max_size=20), st.data())
def test_soup_comes_to_the_same_in_any_packets(
    offer: Offer, soup: bytes, choices: list[int], data: st.DataObject
) -> None:
    soup = (b"LHLO a\r\n" if offer.lmtp else b"EHLO a\r\n") + soup
    once = converse(offer, [soup], choices)
    assert once.events
    assert once == converse(offer, [soup[at : at + 1] for at in range(len(soup))], choices)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(soup) - 1))))
    pieces = [soup[start:end] for start, end in zip([0, *cuts], [*cuts, len(soup)], strict=True)]
    assert once == converse(offer, pieces, choices)


@given(OFFERS, SOUPS, st.lists(st.integers(0, 11), min_size=1, max_size=20), st.booleans())
def test_soup_with_starttls_in_it(offer: Offer, soup: bytes, choices: list[int], require_tls: bool) -> None:
    offer = replace(offer, starttls=True, require_tls=require_tls)
    soup = b"%bHLO a\r\nSTARTTLS\r\n%bSTARTTLS\r\n" % (b"L" if offer.lmtp else b"E", soup)
    # In one packet the first STARTTLS is refused together with what stands behind it.
    trace = converse(offer, [soup], choices)
    assert trace.events
    if isinstance(trace.events[0], Ehlo) and choices[0] % 4 < 2:
        assert trace.said.endswith(replies.BEHIND_STARTTLS.encoded)
        assert not [event for event in trace.events if isinstance(event, StartTls)]
    assert converse(offer, [soup[at : at + 1] for at in range(len(soup))], choices).events


@given(st.binary(min_size=1, max_size=400))
def test_noise(noise: bytes) -> None:
    once = converse(Offer("mx.example.net"), [noise], [0])
    assert once == converse(Offer("mx.example.net"), [noise[at : at + 1] for at in range(len(noise))], [0])
    assert all(isinstance(event, Answer) for event in once.events)
