"""Content on its way into DATA: whatever it is and however it is cut, a server reads back the same lines."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.wire.smtp.stuffing import DotStuffer


def sent(*chunks: bytes) -> bytes:
    stuffer = DotStuffer()
    return b"".join([stuffer.stuff(chunk) for chunk in chunks]) + stuffer.finish()


def unstuffed(octets: bytes) -> bytes:
    """What a strict server makes of it; fails where the content would end too early."""
    lines = octets.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2]
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])


@pytest.mark.parametrize(
    ("chunks", "octets"),
    [
        ((), b".\r\n"),
        ((b"",), b".\r\n"),
        ((b"one\r\n",), b"one\r\n.\r\n"),
        ((b"one",), b"one\r\n.\r\n"),
        ((b"one\r",), b"one\r\n.\r\n"),
        ((b"one\r", b"\n"), b"one\r\n.\r\n"),
        ((b".\r\n",), b"..\r\n.\r\n"),
        ((b".",), b"..\r\n.\r\n"),
        ((b"one\r\n", b".two\r\n"), b"one\r\n..two\r\n.\r\n"),
        ((b"one\r", b"\n.two\r\n"), b"one\r\n..two\r\n.\r\n"),
        ((b"one\r\n.", b".two\r\n"), b"one\r\n...two\r\n.\r\n"),
        ((b"one", b".two\r\n"), b"one.two\r\n.\r\n"),
        ((b"one\n.\ntwo\n",), b"one\r\n..\r\ntwo\r\n.\r\n"),
        ((b"one\r.\rtwo",), b"one\r\n..\r\ntwo\r\n.\r\n"),
        ((b"one\r", b"\r", b"\n"), b"one\r\n\r\n.\r\n"),
        ((b"one\r", b".\r", b"\r\n"), b"one\r\n..\r\n\r\n.\r\n"),
        ((b"\r",), b"\r\n.\r\n"),
        ((b"\n.\r\n",), b"\r\n..\r\n.\r\n"),
    ],
)
def test_line_ends_dots_and_the_end(chunks, octets):
    assert sent(*chunks) == octets


def test_clean_content_is_not_copied():
    content = b"one\r\ntwo. .\r\n" * 1000
    assert DotStuffer().stuff(content) is content


octets = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"x", b"\r\n.\r\n", b"\0", b"\xff"])).map(b"".join)


@given(octets, st.lists(st.integers(0, 60), max_size=6))
def test_any_content_in_any_cuts(content, cuts):
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = [content[a:b] for a, b in pairwise(edges)]
    wire = sent(*chunks)
    assert wire == sent(content)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
    meant = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    if meant and not meant.endswith(b"\r\n"):
        meant += b"\r\n"
    assert unstuffed(wire) == meant
