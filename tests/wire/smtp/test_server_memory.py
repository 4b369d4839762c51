"""What a client sends without end does not add up: not in lines, not in chunks, not in content."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mailsuite.mail import replies
from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, Event
from mailsuite.wire.smtp.commands import AuthResponse, Bdat, Content, ContentEnd
from mailsuite.wire.smtp.server import SmtpServerCore
from mailsuite.wire.smtp.server_states import State
from tests.memory import peak_of
from tests.wire.smtp.server_core import OFFER, core_in

PACKET = 64 * 1024
MIB = 1024 * 1024
BOUND = 6 * PACKET  # some copies of a packet; what is fed is hundreds of times as much


def events_of(core: SmtpServerCore, octets: bytes, times: int) -> Iterator[Event]:
    """Feed the same packet again and again, and take out what comes of it."""
    for _ in range(times):
        core.receive_data(octets)
        while (event := core.next_event()) is not NEED_DATA:
            assert event is not PAUSED
            assert isinstance(event, Event)
            yield event
        assert core.buffered <= core.offer.max_line


def count(events: Iterator[Event]) -> dict[type[Event], int]:
    counts: dict[type[Event], int] = {}
    for event in events:
        counts[type(event)] = counts.get(type(event), 0) + 1
    return counts


def test_100_megabytes_without_a_line_end() -> None:
    core = core_in(State.READY)
    counts: dict[type[Event], int] = {}
    peak = peak_of(lambda: counts.update(count(events_of(core, b"x" * PACKET, 100 * MIB // PACKET))))
    assert counts == {Answer: 1}
    assert peak < BOUND
    assert core.buffered == 0
    core.receive_data(b"\r\nNOOP\r\n")
    assert not isinstance(core.next_event(), Answer)


def test_auth_response_without_an_end() -> None:
    core = core_in(State.AUTH)

    def feed() -> None:
        core.receive_data(b"A" * PACKET)
        assert core.next_event() == AuthResponse(None, replies.AUTH_LINE_TOO_LONG)
        core.send(replies.AUTH_LINE_TOO_LONG)
        assert count(events_of(core, b"A" * PACKET, 20 * MIB // PACKET)) == {}

    assert peak_of(feed) < BOUND
    assert core.state is State.READY


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"", b"\r\n..", b"\r"])
def test_content_without_an_end(line_end: bytes) -> None:
    core = core_in(State.CONTENT, replace(OFFER, max_size=MIB))
    line = b"x" * 70 + line_end
    octets = line * (PACKET // len(line))
    handed_out = 0

    def feed() -> None:
        nonlocal handed_out
        for event in events_of(core, octets, 20 * MIB // PACKET):
            assert isinstance(event, Content)
            handed_out += len(event.data)

    assert peak_of(feed) < BOUND
    assert handed_out <= MIB
    core.receive_data(b"\r\n.\r\n")
    event = core.next_event()
    assert isinstance(event, ContentEnd)
    assert event.fault in {replies.TOO_BIG, replies.BARE_CR_IN_CONTENT}


def test_chunk_without_an_end() -> None:
    core = core_in(State.RECIPIENTS)
    core.receive_data(b"BDAT 99999999999999999999 LAST\r\n")
    assert isinstance(core.next_event(), Bdat)
    peak = peak_of(lambda: count(events_of(core, b"x" * PACKET, 100 * MIB // PACKET)))
    assert peak < BOUND
    assert core.state is State.CONTENT


def test_chunks_without_an_end() -> None:
    """Many small ones, each over the limit that is left: nothing of them is handed out."""
    core = core_in(State.BROKEN, replace(OFFER, max_errors=10**9))
    counts: dict[type[Event], int] = {}
    octets = (b"BDAT 100\r\n" + b"x" * 100) * 500
    peak = peak_of(lambda: counts.update(count(events_of(core, octets, 100))))
    assert counts == {Answer: 50_000}
    assert peak < BOUND


def test_last_chunks_nobody_is_told_of_make_no_deep_stack() -> None:
    """In LMTP a last chunk without recipients has no reply: thousands of them in one packet are one step each."""
    offer = replace(OFFER, lmtp=True, max_errors=10**9)
    core = core_in(State.SENDER, offer)
    core.receive_data(b"BDAT 0 LAST\r\n" * 5000 + b"NOOP\r\n")
    answers = 0
    while isinstance(core.next_event(), Answer):
        answers += 1
    assert answers == 4999


def test_waiting_commands_are_all_that_is_kept_while_one_is_answered() -> None:
    """The driver pauses the transport by `buffered`; the core counts honestly."""
    core = core_in(State.READY)
    core.receive_data(b"NOOP\r\n")
    core.next_event()
    for packets in range(1, 11):
        core.receive_data(b"NOOP\r\n" * 1000)
        assert core.next_event() is PAUSED
        assert core.buffered == packets * 6000
