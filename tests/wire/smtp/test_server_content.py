"""Content by DATA and by BDAT against a slow reference, and the smuggling family in full."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.buffer import ReceiveBuffer
from mailsuite.wire.smtp.commands import Bdat, Content, ContentEnd, Mail, Noop
from mailsuite.wire.smtp.content import ChunkReader, DotReader, LineEndRule
from mailsuite.wire.smtp.server_states import State
from tests.wire.smtp.server_core import OFFER, core_in, talk

NORMALIZE, REJECT = LineEndRule.NORMALIZE, LineEndRule.REJECT
Pieces = Callable[[bytes], Iterable[bytes]]


def whole(octets: bytes) -> Iterable[bytes]:
    return [octets]


def one_by_one(octets: bytes) -> Iterable[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def read(
    octets: bytes, rule: LineEndRule, pieces: Pieces = whole, max_size: int | None = None
) -> tuple[bytes | Reply, bytes] | None:
    """Content or refusal, and what stands behind the end; None where the end has not come."""
    reader = DotReader(rule, max_size)
    buffer = ReceiveBuffer()
    content = b""
    for piece in pieces(octets):
        buffer.feed(piece)
        if not reader.ended:
            content += reader.read(buffer)
    if not reader.ended:
        return None
    return reader.fault or content, buffer.peek()


def reference(octets: bytes, rule: LineEndRule) -> tuple[bytes | Reply, bytes] | None:
    """The same line by line, as RFC 5321 section 4.5.2 tells it. Only CR LF separates lines."""
    lines = octets.split(b"\r\n")
    if b"." not in lines[:-1]:
        return None
    end = lines.index(b".")
    unstuffed = [line[1:] if line.startswith(b".") else line for line in lines[:end]]
    rest = b"\r\n".join(lines[end + 1 :])
    without_pairs = b"".join(lines[:end])
    if b"\r" in without_pairs:
        return replies.BARE_CR_IN_CONTENT, rest
    if b"\n" in without_pairs and rule is REJECT:
        return replies.BARE_LF_IN_CONTENT, rest
    return b"".join(re.sub(b"\n", b"\r\n", line) + b"\r\n" for line in unstuffed), rest


def check_agreement(octets: bytes, rule: LineEndRule, *ways: Pieces) -> None:
    """Assert that the reader reads this as the reference does, cut in these ways."""
    expected = reference(octets, rule)
    for pieces in (whole, *ways):
        found = read(octets, rule, pieces)
        # A message with a bare CR and a bare LF in different pieces is refused for whichever came first.
        if expected is not None and found is not None and isinstance(expected[0], Reply):
            assert isinstance(found[0], Reply)
            assert found[1] == expected[1]
        else:
            assert found == expected


@pytest.mark.parametrize("rule", LineEndRule)
@pytest.mark.parametrize("before", [b"", b"a", b"a\r\n", b"a\r"])
def test_every_mixture_of_line_ends_and_dots(rule: LineEndRule, before: bytes) -> None:
    count = 0
    for length in range(6):
        for mixture in product((b"\r", b"\n", b".", b"a"), repeat=length):
            check_agreement(before + b"".join(mixture) + b"\r\n.\r\nNOOP\r\n", rule, one_by_one)
            count += 1
    assert count == sum(4**length for length in range(6))


@pytest.mark.parametrize("rule", LineEndRule)
def test_every_mixture_with_nul_and_longer_tokens(rule: LineEndRule) -> None:
    tokens = (b"\r\n", b"\n", b".", b"..", b"\x00", b"\r")
    mixtures = list(product(tokens, repeat=4))
    for mixture in mixtures:
        check_agreement(b"".join(mixture) + b"\r\n.\r\n", rule, one_by_one)
    assert len(mixtures) == 6**4


@given(
    st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"\r\n.", b"\r\n.\r\n", b"text", b"\x00", b"\xff"])),
    st.data(),
)
def test_content_does_not_depend_on_packets(tokens: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(tokens) + b"\r\n.\r\nMAIL"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(octets)))))
    pieces = [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    check_agreement(
        octets, data.draw(st.sampled_from(LineEndRule)), one_by_one, lambda _: [piece for piece in pieces if piece]
    )


def stuff(content: bytes) -> bytes:
    """Dot-stuffing as a client does it, line by line."""
    return b"".join(b"." + line if line.startswith(b".") else line for line in content.splitlines(keepends=True))


@given(st.lists(st.text("ab. \x00\xff\t", max_size=5)), st.data())
def test_stuffed_content_comes_out_as_it_was(lines: list[str], data: st.DataObject) -> None:
    content = b"".join(line.encode("latin-1") + b"\r\n" for line in lines)
    size = data.draw(st.integers(1, 20))
    octets = stuff(content) + b".\r\n"

    def in_pieces(octets: bytes) -> Iterable[bytes]:
        return [octets[at : at + size] for at in range(0, len(octets), size)]

    assert read(octets, REJECT, in_pieces) == (content, b"")


@pytest.mark.parametrize("pieces", [whole, one_by_one])
@pytest.mark.parametrize(
    ("content", "max_size", "expected"),
    [
        (b"", 0, b""),
        (b"\r\n", 2, b"\r\n"),
        (b"\r\n", 1, replies.TOO_BIG),
        (b"12345678\r\n", 10, b"12345678\r\n"),
        (b"123456789\r\n", 10, replies.TOO_BIG),
        (b"..2345678\r\n", 10, b".2345678\r\n"),
        (b"1\n2\n3\r\n", 9, b"1\r\n2\r\n3\r\n"),
        (b"1\n2\n3\r\n", 8, replies.TOO_BIG),
    ],
)
def test_size_counts_content_as_it_is_stored(
    pieces: Pieces, content: bytes, max_size: int, expected: bytes | Reply
) -> None:
    # RFC 1870 section 6: neither the dot at the end nor doubled ones
    assert read(content + b".\r\nNOOP\r\n", NORMALIZE, pieces, max_size) == (expected, b"NOOP\r\n")


def test_nothing_is_given_after_a_fault() -> None:
    reader = DotReader(NORMALIZE, 10)
    buffer = ReceiveBuffer()
    for _ in range(100):
        buffer.feed(b"0123456789\r\n")
        given_out = reader.read(buffer)
        assert given_out in {b"", b"0123456789"}
        assert len(buffer) == 0
    assert reader.fault is replies.TOO_BIG
    assert not reader.ended
    buffer.feed(b".\r\n")
    assert reader.read(buffer) == b""
    assert reader.ended


@pytest.mark.parametrize("pieces", [whole, one_by_one])
@pytest.mark.parametrize("fault", [None, replies.TOO_BIG])
def test_chunk_takes_its_octets_and_no_more(pieces: Pieces, fault: Reply | None) -> None:
    octets = b"\r\n.\r\n\x00\xffQUIT\r\nNOOP\r\n"
    reader = ChunkReader(len(octets) - 6, fault)
    buffer = ReceiveBuffer()
    content = b""
    for piece in pieces(octets):
        buffer.feed(piece)
        if not reader.ended:
            content += reader.read(buffer)
    assert reader.ended
    assert content == (octets[:-6] if fault is None else b"")
    assert buffer.peek() == b"NOOP\r\n"


# ------------------------------------------------------------------------------- the smuggling family

# What stands where the end of the data might be taken to be. None of these is <CR><LF>.<CR><LF>.
_LINE_ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n\r", b"\n\r", b"\x00\r\n", b"\r\x00\n", b"\r\n\x00", b" \r\n")
_DOTS = (b".", b"..", b"\x00.", b".\x00", b"\n.", b".\n", b"\r.", b".\r", b". ", b" .")
FALSE_ENDS = sorted(
    {
        first + dot + last
        for first, dot, last in product(_LINE_ENDS, _DOTS, _LINE_ENDS)
        if b"\r\n.\r\n" not in first + dot + last
    }
)
SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\nSubject: smuggled\r\n"


def test_family_is_large() -> None:
    assert len(FALSE_ENDS) > 700


@pytest.mark.parametrize("pieces", [whole, one_by_one])
@pytest.mark.parametrize("rule", LineEndRule)
def test_no_false_end_makes_two_messages_of_one(rule: LineEndRule, pieces: Pieces) -> None:
    offer = replace(OFFER, line_ends=rule, max_size=10_000)
    for false_end in FALSE_ENDS:
        core = core_in(State.CONTENT, offer)
        events, said = talk(core, b"Subject: one" + false_end + SMUGGLED + b"\r\n.\r\nNOOP\r\n", pieces)
        assert not [event for event in events if isinstance(event, Mail)], false_end
        *content, end, noop = events
        assert noop == Noop()
        assert isinstance(end, ContentEnd)
        assert said.count(b"\r\n") == 2
        if end.fault is None:
            assert b"Subject: smuggled\r\n" in b"".join(part.data for part in content if isinstance(part, Content))
        else:
            assert end.fault in {replies.BARE_CR_IN_CONTENT, replies.BARE_LF_IN_CONTENT}
        assert core.state is State.READY


@pytest.mark.parametrize("pieces", [whole, one_by_one])
def test_no_end_of_data_counts_in_chunks(pieces: Pieces) -> None:
    offer = replace(OFFER, max_size=10_000)
    for end in (b"\r\n.\r\n", *FALSE_ENDS[::7]):
        content = b"Subject: one" + end + SMUGGLED
        for border in range(len(b"Subject: one"), len(b"Subject: one") + len(end) + 1):
            first, second = content[:border], content[border:]
            core = core_in(State.RECIPIENTS, offer)
            octets = b"BDAT %d\r\n%bBDAT %d LAST\r\n%bNOOP\r\n" % (len(first), first, len(second), second)
            events, _ = talk(core, octets, pieces)
            assert events == [
                Bdat(len(first), last=False),
                Content(first),
                ContentEnd(last=False),
                Bdat(len(second), last=True),
                Content(second),
                ContentEnd(),
                Noop(),
            ]


@pytest.mark.parametrize("false_end", [b"\r\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\r", b"\r\n.\x00\r\n"])
def test_data_that_follows_a_chunk_ends_at_its_own_end(false_end: bytes) -> None:
    """What ended a chunk is no beginning of an end for the DATA of the next message."""
    core = core_in(State.RECIPIENTS)
    talk(core, b"BDAT 2 LAST\r\n\r\n")
    talk(core, b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
    events, _ = talk(core, false_end[2:] if false_end.startswith(b"\r\n") else false_end)
    assert not [event for event in events if isinstance(event, ContentEnd)]
    assert core.state is State.CONTENT
