"""Replies on the wire, and the constants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.mail.status import EnhancedStatus

CONSTANTS = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (Reply.make(250, "2.0.0", "OK"), b"250 2.0.0 OK\r\n"),
        (Reply.make(250, None, "mx.example.net"), b"250 mx.example.net\r\n"),
        (Reply.make(250, None, "a", "b", "c"), b"250-a\r\n250-b\r\n250 c\r\n"),
        (Reply.make(550, "5.1.1", "a", "b"), b"550-5.1.1 a\r\n550 5.1.1 b\r\n"),
        (Reply.make(250, "2.0.0"), b"250 2.0.0\r\n"),
        (Reply.make(250, None), b"250\r\n"),
        (Reply.make(250, None, "", ""), b"250-\r\n250\r\n"),
        (Reply.make(334, None, ""), b"334 \r\n"),
        (Reply.make(334, None, "AAAA" * 1000), b"334 " + b"AAAA" * 1000 + b"\r\n"),
        (Reply.make(451, "4.3.0", "größe\u2028"), b"451 4.3.0 gr??e?\r\n"),
        (Reply.make(451, "4.3.0", "a\r\n250 b\x00\x1b\tc"), b"451 4.3.0 a 250 b \tc\r\n"),
        (Reply.make(451, "4.3.0", "\r\n"), b"451 4.3.0\r\n"),
    ],
)
def test_encoded(reply: Reply, wire: bytes) -> None:
    assert reply.encoded == wire


@given(st.integers(200, 599), st.lists(st.text(max_size=1200), min_size=1, max_size=3))
def test_no_text_breaks_out_of_its_line(code: int, lines: list[str]) -> None:
    reply = Reply(code, EnhancedStatus(5, 123, 123), tuple(lines))
    *whole, rest = reply.encoded.split(b"\r\n")
    assert rest == b""
    for line in whole:
        assert line[:3] == str(code).encode()
        assert b"\r" not in line
        assert b"\n" not in line
        assert b"\x00" not in line
        if code != 334:
            assert len(line) + 2 <= 512  # RFC 5321 section 4.5.3.1.5
    assert [line[3:4] for line in whole[:-1]] == [b"-"] * (len(whole) - 1)
    assert whole[-1][3:4] in {b" ", b""}


def test_classes() -> None:
    kinds = ("is_positive", "is_intermediate", "is_transient", "is_permanent")
    for code, expected in ((250, 0), (299, 0), (354, 1), (421, 2), (500, 3), (599, 3)):
        reply = Reply(code, None, ("",))
        assert [getattr(reply, kind) for kind in kinds] == [position == expected for position in range(4)]


def test_text_and_str() -> None:
    reply = Reply.make(550, "5.1.1", "No such", "user")
    assert reply.text == "No such user"
    assert str(reply) == "550 5.1.1 No such user"
    assert str(Reply.make(250, None)) == "250"


def test_saying_keeps_code_and_status() -> None:
    assert replies.QUEUED.saying("Queued as 1").encoded == b"250 2.0.0 Queued as 1\r\n"
    assert replies.QUEUED.encoded == b"250 2.0.0 Queued\r\n"


def test_encoding_is_kept() -> None:
    reply = Reply.make(250, "2.0.0", "OK")
    assert reply.encoded is reply.encoded


@pytest.mark.parametrize("status", ["", "2", "2.0", "3.0.0", "2.0.0.0", "2.0.x"])
def test_make_refuses_what_is_no_status(status: str) -> None:
    with pytest.raises(ValueError, match="not an enhanced status"):
        Reply.make(250, status, "OK")


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant(name: str) -> None:
    reply = CONSTANTS[name]
    # RFC 2034 section 4: a status for 2yz, 4yz and 5yz, of the same class; none for 3yz.
    if reply.is_intermediate:
        assert reply.status is None
    else:
        assert reply.status is not None
        assert reply.status.class_ == reply.code // 100
        assert reply.status.meaning
    assert reply.text.isascii()
    assert len(reply.lines) == 1
