"""How content leaves: in blocks, with the transport's consent, and never cut short into a message."""

import pytest

from mailsuite.mail.queue import Result
from mailsuite.wire.core import Event
from mailsuite.wire.smtp.client import Replied
from tests.session.relaying import BYE, HELLO, converse, relay
from tests.session.scripted import ScriptedConversation, make_delivery, read_script

BLOCK = 256 * 1024
LINE = b"." + b"x" * 61 + b"\r\n"  # a block ends where a line does
OPENED = """
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 354 go
"""
OPENED_FOR_CHUNKS = """
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<bob@example.net>
S: 250 ok
S: 250 ok
"""


class StoredContent:
    """Content that lies elsewhere; `fails_at` is an offset that cannot be read, `missing` how much has gone."""

    def __init__(self, octets: bytes, *, fails_at: int | None = None, missing: int = 0, block: int = BLOCK) -> None:
        self.size = len(octets)
        self.reads: list[int] = []
        self._octets = octets[: len(octets) - missing]
        self._fails_at = fails_at
        self._block = block

    def in_memory(self) -> None:
        return None

    async def read(self, offset: int, limit: int) -> bytes:
        self.reads.append(offset)
        if self._fails_at is not None and offset >= self._fails_at:
            raise OSError(5, "Input/output error")
        return self._octets[offset : offset + min(limit, self._block)]

    def open(self):
        raise AssertionError("nobody blocks here")


def spoken(octets: bytes, *, stuffed: bool = False) -> list[tuple[str, bytes]]:
    """Script steps for content."""
    return [("C", b"." + line if stuffed and line.startswith(b".") else line) for line in octets.splitlines(True)]


def test_large_content_goes_in_blocks_and_waits_for_the_transport():
    octets = LINE * 10_000
    content = StoredContent(octets)
    run, _, conversation = converse(
        [
            *read_script(f"{HELLO}S: 250 PIPELINING\n{OPENED}"),
            *spoken(octets, stuffed=True),
            *read_script(f"C: .\nS: 250 ok\n{BYE}"),
        ],
        make_delivery("q1", content=content),
    )
    conversation.check()
    assert run.results("q1") == ["relayed"]
    assert content.reads == [0, BLOCK, 2 * BLOCK]
    assert conversation.drained == 3


@pytest.mark.parametrize("block", [1000, BLOCK])
def test_short_reads_are_no_end(block):
    octets = LINE * 100
    run, _ = relay(
        [
            *read_script(f"{HELLO}S: 250 PIPELINING\n{OPENED}"),
            *spoken(octets, stuffed=True),
            *read_script(f"C: .\nS: 250 ok\n{BYE}"),
        ],
        make_delivery("q1", content=StoredContent(octets, block=block)),
    )
    assert run.results("q1") == ["relayed"]


def test_large_content_goes_in_chunks_some_ahead_of_their_replies():
    octets = LINE * 4096 * 7 + b"the end"
    steps = read_script(f"{HELLO}S: 250-CHUNKING\nS: 250 PIPELINING\n{OPENED_FOR_CHUNKS}")
    block = spoken(LINE * 4096)
    for number in range(7):
        steps += [("C", f"BDAT {BLOCK}\r\n".encode()), *block]
        if number >= 4:  # four may be without their reply
            steps += read_script("S: 250 ok")
    steps += [("C", b"BDAT 7 LAST\r\nthe end"), *read_script("S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok")]
    steps += read_script(f"S: 250 2.0.0 All of it\n{BYE}")
    run, _, conversation = converse(steps, make_delivery("q1", content=octets))
    conversation.check()
    assert run.settled["q1"][0].text == "All of it"
    assert conversation.drained == 7


def test_refused_chunk_is_the_last_one():
    octets = LINE * 4096 * 3
    steps = read_script(f"{HELLO}S: 250 CHUNKING\n")
    steps += read_script("C: MAIL FROM:<ann@example.org>\nS: 250 ok\nC: RCPT TO:<bob@example.net>\nS: 250 ok\n")
    steps += [("C", f"BDAT {BLOCK}\r\n".encode()), *spoken(LINE * 4096)]
    steps += read_script(f"S: 452 4.3.1 Full\nC: RSET\nS: 250 ok\n{BYE}")
    run, _ = relay(steps, make_delivery("q1", content=octets))
    assert [str(outcome.status) for outcome in run.settled["q1"]] == ["4.3.1"]


def test_refusal_of_a_chunk_that_is_seen_late_still_counts():
    octets = LINE * 4096 * 2
    steps = read_script(f"{HELLO}S: 250-PIPELINING\nS: 250 CHUNKING\n{OPENED_FOR_CHUNKS}")
    steps += [("C", f"BDAT {BLOCK}\r\n".encode()), *spoken(LINE * 4096)]
    steps += [("C", f"BDAT {BLOCK} LAST\r\n".encode()), *spoken(LINE * 4096)]
    # Whatever the server says of the last chunk: the first is not in what it has.
    steps += read_script(f"S: 552 5.3.4 Too big\nS: 250 ok\n{BYE}")
    run, _ = relay(steps, make_delivery("q1", content=octets))
    assert [str(outcome.status) for outcome in run.settled["q1"]] == ["5.3.4"]


@pytest.mark.parametrize(
    "content",
    [
        StoredContent(LINE * 10_000, fails_at=BLOCK),
        StoredContent(LINE * 10_000, missing=len(LINE)),
        StoredContent(LINE, fails_at=0),
        StoredContent(LINE, missing=len(LINE)),
    ],
)
def test_unreadable_content_is_never_ended(content):
    steps = [*read_script(f"{HELLO}S: 250 PIPELINING\n{OPENED}")]
    run, end, conversation = converse(steps, make_delivery("q1", content=content), make_delivery("q2"))
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.3.0")
    _, data, content_said = conversation.all_said.partition(b"DATA\r\n")
    assert data
    assert content_said.replace(b"." + LINE, b"") == b""  # whole lines of it, and neither a dot nor QUIT
    assert run.released == ["q2"]
    assert end.outcome is not None
    assert end.outcome.status == outcome.status


def test_unreadable_content_between_chunks_is_taken_back():
    content = StoredContent(LINE * 10_000, fails_at=BLOCK)
    steps = read_script(f"{HELLO}S: 250-CHUNKING\nS: 250 PIPELINING\n{OPENED_FOR_CHUNKS}")
    steps += [("C", f"BDAT {BLOCK}\r\n".encode()), *spoken(LINE * 4096)]
    steps += read_script("S: 250 ok\nC: RSET\n")
    steps += read_script(
        "C: MAIL FROM:<ann@example.org>\nC: RCPT TO:<bob@example.net>\nS: 250 ok\nS: 250 ok\nS: 250 ok\n"
    )
    steps += read_script(f"C: BDAT 4 LAST\nC: hi\nS: 250 ok\n{BYE}")
    run, _ = relay(steps, make_delivery("q1", content=content), make_delivery("q2", content=b"hi\r\n"))
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.3.0")
    assert run.results("q2") == ["relayed"]


def test_header_that_cannot_be_read_defers_one_message():
    content = StoredContent(LINE, fails_at=0)
    steps = read_script(f"{HELLO}S: 250 PIPELINING\n{OPENED}")
    steps += read_script(f"C: hi\nC: .\nS: 250 ok\n{BYE}")
    deliveries = make_delivery("q1", content=content, smtputf8=True), make_delivery("q2", content=b"hi\r\n")
    run, _ = relay(steps, *deliveries)
    assert [str(outcome.status) for outcome in run.settled["q1"]] == ["4.3.0"]
    assert run.results("q2") == ["relayed"]


class RefusingConversation(ScriptedConversation):
    """Its peer says 552 while content flows, and hangs up."""

    async def drain(self) -> None:
        self.core.receive_data(b"552 5.3.4 Enough\r\n")
        self.core.receive_data(b"")
        await super().drain()


def test_last_words_of_a_peer_that_hangs_up_within_the_content_count():
    steps = [*read_script(f"{HELLO}S: 250 PIPELINING\n{OPENED}"), ("X", b"close\r\n")]
    content = StoredContent(LINE * 10_000)
    run, _, _ = converse(steps, make_delivery("q1", content=content), kind=RefusingConversation)
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status)) == (Result.FAILED, "5.3.4")


class EagerConversation(ScriptedConversation):
    """It takes the core's events out as they come; its peer says 552 while content flows."""

    early: Event | None = None

    async def receive(self) -> Event:
        early, self.early = self.early, None
        return early or await super().receive()

    async def drain(self) -> None:
        if self.drained == 0:
            self.core.receive_data(b"552 5.3.4 Enough\r\n")
            event = self.core.next_event()
            assert isinstance(event, Replied)
            self.early = event
        await super().drain()


def test_connection_is_of_no_more_use_after_an_early_refusal():
    deliveries = make_delivery("q1", content=StoredContent(LINE * 10_000)), make_delivery("q2")
    run, end, conversation = converse(f"{HELLO}S: 250 PIPELINING\n{OPENED}", *deliveries, kind=EagerConversation)
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status)) == (Result.FAILED, "5.3.4")
    assert run.released == ["q2"]
    assert end.outcome is not None
    assert not conversation.all_said.endswith(b".\r\n")


def test_bare_line_ends_do_not_go_into_data():
    # What came by BDAT may hold anything; in DATA a line end is CR LF and nothing else.
    octets = b"one\n.\ntwo\r.\rthree"
    steps = read_script(f"{HELLO}S: 250 PIPELINING\n{OPENED}")
    steps += read_script(f"C: one\nC: ..\nC: two\nC: ..\nC: three\nC: .\nS: 250 ok\n{BYE}")
    run, _ = relay(steps, make_delivery("q1", content=octets))
    assert run.results("q1") == ["relayed"]
