"""Whatever a client says, in whatever packets: the core never raises, never stalls, and hands out what is legal."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsuite.mail import replies
from mailsuite.wire.core import Answer
from mailsuite.wire.smtp.commands import Ehlo, StartTls
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.offer import Offer
from tests.wire.smtp.server_trace import converse

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
    b"ETRN @example.org",
    b"ATRN example.org, example.com",
    b"ATRN",
    b"TURN",
    b"MAIL FROM:<fred@example.org> TRANSID=<1@example.org>",
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
    b"ETRN",
    b"ETRN here",
    b"ATRN ,",
    b"MAIL FROM:<fred@example.org> TRANSID=1",
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
    etrn=st.booleans(),
    atrn=st.booleans(),
    turn=st.booleans(),
    checkpoint=st.booleans(),
    odmr=st.sampled_from([False, False, False, True]),
    line_ends=st.sampled_from(LineEndRule),
    max_line=st.just(100),
    max_response=st.just(60),
    max_errors=st.sampled_from([3, 1000]),
)


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
