"""Replies as servers really send them, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.reply import Reply
from mailsuite.mail.status import EnhancedStatus
from mailsuite.wire.core import RemoteProtocolError
from mailsuite.wire.smtp.response import ReplyLimits, ReplyReader


def read(octets: bytes, limits: ReplyLimits | None = None, *, status_in_positive: bool = True) -> list[Reply]:
    reader = ReplyReader(limits or ReplyLimits())
    reader.feed(octets)
    replies = []
    while (reply := reader.next_reply(status_in_positive=status_in_positive)) is not None:
        replies.append(reply)
    return replies


@pytest.mark.parametrize(
    ("octets", "code", "lines"),
    [
        (b"250 OK\r\n", 250, ("OK",)),
        (b"250\r\n", 250, ("",)),
        (b"250 \r\n", 250, ("",)),
        (b"250 OK\n", 250, ("OK",)),
        (b"250OK\r\n", 250, ("OK",)),
        (b"250-one\r\n250-\r\n250 three\r\n", 250, ("one", "", "three")),
        (b"250-one\n250\n", 250, ("one", "")),
        (b"354 Go\ton  \r\n", 354, ("Go\ton  ",)),
        (b"599 What?\r\n", 599, ("What?",)),
        (b"550 caf\xc3\xa9\r\n", 550, ("caf\xe9",)),
        (b"550 caf\xe9\r\n", 550, ("caf\ufffd",)),
        (b"550 \x1b[2Jgone\r \x00\x9b\r\n", 550, (" [2Jgone   \ufffd",)),
        (b"550 \xc2\x9bcsi\r\n", 550, (" csi",)),
        (b"550 \xe2\x80\xaetlu\xe2\x81\xa9\r\n", 550, (" tlu ",)),
        (b"250-234 Text beginning with numbers\r\n250 The last line\r\n", 250, None),
    ],
)
def test_reply_is_taken(octets, code, lines):
    [reply] = read(octets)
    assert reply.code == code
    assert lines is None or reply.lines == lines


@pytest.mark.parametrize(
    ("octets", "status", "lines"),
    [
        (b"550 5.1.1 Nobody\r\n", (5, 1, 1), ("Nobody",)),
        (b"550-5.1.1 Nobody,\r\n550-5.1.1  really\r\n550 5.1.1\r\n", (5, 1, 1), ("Nobody,", "really", "")),
        (b"550-Nobody\r\n550 5.1.1 here\r\n", (5, 1, 1), ("Nobody", "here")),
        (b"550-5.1.1 Nobody\r\n550 5.1.2 elsewhere\r\n", (5, 1, 1), ("Nobody", "5.1.2 elsewhere")),
        (b"550 4.7.1 The classes differ\r\n", (4, 7, 1), ("The classes differ",)),
        (b"354 3.0.0 is no status\r\n", None, ("3.0.0 is no status",)),
        (b"334 2.0.0 base64\r\n", None, ("2.0.0 base64",)),
        (b"250 5.1.1x is none\r\n", None, ("5.1.1x is none",)),
    ],
)
def test_enhanced_status_is_split_off(octets, status, lines):
    [reply] = read(octets)
    assert reply.status == (status and EnhancedStatus(*status))
    assert reply.lines == lines


def test_positive_greeting_has_no_status_but_a_refusal_has():
    [greeting] = read(b"220 2.0.0 is my name\r\n", status_in_positive=False)
    assert (greeting.status, greeting.lines) == (None, ("2.0.0 is my name",))
    [refusal] = read(b"554 5.7.1 Go away\r\n", status_in_positive=False)
    assert (refusal.status, refusal.lines) == (EnhancedStatus(5, 7, 1), ("Go away",))


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"OK\r\n",
        b"25 OK\r\n",
        b"2500 OK\r\n",
        b"150 Wait\r\n",
        b"650 What?\r\n",
        b"099 What?\r\n",
        b" 250 OK\r\n",
        b"250-one\r\n550 two\r\n",
        b"250-one\r\ntwo\r\n250 three\r\n",
        "\uff12\uff15\uff10 OK\r\n".encode(),
    ],
)
def test_what_is_no_reply(octets):
    with pytest.raises(RemoteProtocolError):
        read(octets)


def test_reply_that_is_not_whole_waits():
    for octets in (b"", b"2", b"250", b"250 OK\r", b"250-one\r\n", b"250-one\r\n250"):
        assert read(octets) == []


def test_limits_hold_at_the_octet():
    limits = ReplyLimits(line=12, lines=3, size=20)
    assert read(b"250 123456\r\n", limits)
    with pytest.raises(RemoteProtocolError, match="reply line"):
        read(b"250 1234567\r\n", limits)
    with pytest.raises(RemoteProtocolError, match="reply line"):
        read(b"250 123456789", limits)  # though its end has not come
    assert read(b"250-\r\n250-\r\n250 \r\n", limits)
    with pytest.raises(RemoteProtocolError, match="lines or"):
        read(b"250-\r\n250-\r\n250-\r\n250 \r\n", limits)
    with pytest.raises(RemoteProtocolError, match="lines or"):
        read(b"250-123456\r\n250-12345\r\n250-1\r\n", limits)


def test_long_challenge_of_sasl_fits():
    challenge = "A" * 12_288  # RFC 4954 section 4
    [reply] = read(f"334 {challenge}\r\n".encode())
    assert reply.text == challenge


def test_errors_do_not_carry_control_characters():
    with pytest.raises(RemoteProtocolError) as caught:
        read(b"\x1b[2J\x07 evil\r\n")
    assert str(caught.value).isprintable()


texts = st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40), min_size=1, max_size=5)


@given(st.integers(200, 599), texts, st.sampled_from([b"\r\n", b"\n"]), st.integers(1, 9))
def test_any_reply_in_any_cuts(code, lines, end, step):
    octets = b"".join(f"{code}-{line}".encode() + end for line in lines[:-1]) + f"{code} {lines[-1]}".encode() + end
    reader = ReplyReader(ReplyLimits())
    heard = []
    for at in range(0, len(octets), step):
        reader.feed(octets[at : at + step])
        reply = reader.next_reply()
        if reply is not None:
            heard.append(reply)
    assert heard == read(octets)
    assert len(reader) == 0
    if heard[0].status is None:
        assert heard == [Reply(code, None, tuple(lines))]


@given(st.binary(max_size=200))
def test_garbage_is_a_reply_or_an_error(octets):
    try:
        replies = read(octets)
    except RemoteProtocolError:
        return
    assert all(200 <= reply.code <= 599 and reply.lines for reply in replies)
