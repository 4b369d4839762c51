"""The receive buffer: lines whole or in pieces, faults, and what it holds."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.wire.buffer import LineFault, ReceiveBuffer

LIMIT = 8
TOO_LONG, BARE = LineFault.TOO_LONG, LineFault.BARE_LINE_END


def lines_of(pieces: Iterable[bytes], limit: int = LIMIT) -> list[bytes | LineFault]:
    buffer = ReceiveBuffer()
    lines = []
    for piece in pieces:
        buffer.feed(piece)
        while (line := buffer.next_line(limit)) is not None:
            lines.append(line)
        assert len(buffer) <= limit
    return lines


def reference(octets: bytes, limit: int = LIMIT) -> list[bytes | LineFault]:
    """The same, said slowly."""
    *whole, rest = octets.split(b"\n")
    lines: list[bytes | LineFault] = []
    for text in whole:
        if len(text) + 1 > limit:
            lines.append(TOO_LONG)
        elif not text.endswith(b"\r") or b"\r" in text[:-1]:
            lines.append(BARE)
        else:
            lines.append(text[:-1])
    return [*lines, TOO_LONG] if len(rest) > limit else lines


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"\r\n", [b""]),
        (b"123456\r\n", [b"123456"]),
        (b"1234567\r\n", [TOO_LONG]),
        (b"12345678", []),
        (b"123456789", [TOO_LONG]),
        (b"123456789\r\na\r\n", [TOO_LONG, b"a"]),
        (b"1234567\n", [BARE]),
        (b"12345678\n", [TOO_LONG]),
        (b"\n", [BARE]),
        (b"a\n", [BARE]),
        (b"\r\r\n", [BARE]),
        (b"a\rb\r\n", [BARE]),
        (b"a\r\nb\r\nc", [b"a", b"b"]),
        (b"\x00\xff\r\n", [b"\x00\xff"]),
    ],
)
def test_lines(octets: bytes, expected: list[bytes | LineFault]) -> None:
    assert lines_of([octets]) == expected
    assert lines_of(octets[at : at + 1] for at in range(len(octets))) == expected
    assert reference(octets) == expected


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"bcd", b"\x00", b"123456789"])), st.data())
def test_lines_do_not_depend_on_packets(tokens: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(tokens)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(octets)))))
    pieces = [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    expected = reference(octets)
    assert lines_of([octets]) == expected
    assert lines_of(piece for piece in pieces if piece) == expected


def test_skipped_line_is_not_kept() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"x" * 100)
    assert buffer.next_line(LIMIT) is TOO_LONG
    for _ in range(10):
        buffer.feed(b"x" * 100)
        assert buffer.next_line(LIMIT) is None
        assert len(buffer) == 0
    buffer.feed(b"x\r\nnext\r\n")
    assert buffer.next_line(LIMIT) == b"next"


def test_octets_are_taken_in_order() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"a\r\nbcdef")
    assert buffer.next_line(LIMIT) == b"a"
    assert buffer.take(2) == b"bc"
    assert buffer.peek() == b"def"
    assert len(buffer) == 3
    buffer.feed(b"gh")
    assert buffer.take(0) == b""
    assert buffer.take_all() == b"defgh"
    assert buffer.take_all() == b""
    assert buffer.take(5) == b""
    buffer.put_back(b"xy")
    assert buffer.take(1) == b"x"
    assert buffer.peek() == b"y"
    assert len(buffer) == 1
