"""A message on its way in: where its header ends, what is put before it, what it may hold."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsuite.interfaces import Refused, SpoolFull
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.route import Destination, Target
from mailsuite.session.reception import Amendments, Reception
from tests.dialogues.house import NOW, FakeSpool, Pace
from tests.memory import peak_of

TRACE = b"Received: by us\r\n"
ENVELOPE = Envelope(Address("fred", "example.org"))
PACKET = 64 * 1024


def succeeded(coroutine: Any) -> Any:
    """What a coroutine that need not wait comes to."""
    results: list[Any] = []
    failures: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    return results[0]


def begin(amendments: Amendments | None = None) -> tuple[Reception, FakeSpool]:
    spool = FakeSpool(Pace())
    reception = Reception(ENVELOPE, amendments)
    reception.accept(Address("anna", "example.net"), [Target(Address("anna", "example.net"), Destination("maildir"))])
    reception.begin(spool, lambda _queue_id: TRACE)  # type: ignore[arg-type]
    return reception, spool


def received(content: bytes, sizes: list[int] | None = None, amendments: Amendments | None = None) -> bytes:
    """What stands in the queue of content that came in pieces of these sizes."""
    reception, spool = begin(amendments)
    at = 0
    for size in sizes or [len(content)]:
        if content[at : at + size]:
            succeeded(reception.write(content[at : at + size]))
        at += size
    if content[at:]:
        succeeded(reception.write(content[at:]))
    size = succeeded(reception.commit())
    assert size == len(spool.messages[0].content)
    return spool.messages[0].content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"A: b\r\n\r\nbody\r\n", TRACE + b"A: b\r\n\r\nbody\r\n"),
        (b"A: b\r\n", TRACE + b"A: b\r\n"),
        (b"A: b", TRACE + b"A: b"),
        (b"\r\nbody\r\n", TRACE + b"\r\nbody\r\n"),
        (b"body\r\n", TRACE + b"\r\nbody\r\n"),
        (b"", TRACE + b"\r\n"),
        (b" folded\r\n", TRACE + b"\r\n folded\r\n"),
        (b"A: b\n\nbody", TRACE + b"A: b\n\nbody"),
    ],
)
def test_trace_stands_first(content: bytes, expected: bytes) -> None:
    assert received(content) == expected
    assert received(content, [1] * len(content)) == expected


@given(st.lists(st.sampled_from([b"A: b\r\n", b"Date: x\r\n", b"\r\n", b"body\r\n", b"\n"]), max_size=6), st.data())
def test_result_does_not_depend_on_pieces(parts: list[bytes], data: st.DataObject) -> None:
    content = b"".join(parts)
    sizes = data.draw(st.lists(st.integers(1, 9), max_size=10))
    assert received(content, sizes) == received(content)


@pytest.mark.parametrize(
    ("header", "added"),
    [
        (b"", [b"Date", b"Message-ID"]),
        (b"Subject: x\r\n", [b"Date", b"Message-ID"]),
        (b"date: x\r\n", [b"Message-ID"]),
        (b"MESSAGE-ID: <x>\r\n", [b"Date"]),
        (b"Message-Id : <x>\r\nDate:\r\n", []),
        (b"Resent-Date: x\r\nX-Message-ID: <x>\r\n", [b"Date", b"Message-ID"]),
    ],
)
def test_amendments_add_what_is_missing(header: bytes, added: list[bytes]) -> None:
    # RFC 6409 sections 8.2 and 8.3
    amendments = Amendments("mx.example.net", lambda: NOW)
    content = received(header + b"\r\nDate: in the body\r\nMessage-ID: also\r\n", [1, 1, 1], amendments)
    assert content.startswith(TRACE)
    assert content.endswith(header + b"\r\nDate: in the body\r\nMessage-ID: also\r\n")
    between = content.removeprefix(TRACE).partition(header + b"\r\nDate: in the body")[0]
    assert re.findall(rb"^([^:\r\n]+):", between, re.MULTILINE) == added
    assert re.fullmatch(
        rb"(Date: \w{3}, \d\d \w{3} 2023 [^\r\n]+\r\n)?(Message-ID: <[^\r\n]+@mx\.example\.net>\r\n)?", between
    )


@pytest.mark.parametrize(("hops", "refused"), [(99, False), (100, False), (101, True), (500, True)])
def test_loops(hops: int, refused: bool) -> None:
    content = b"Received: x\r\n" * hops + b"\r\n" + b"Received: x\r\n" * 200
    if refused:
        with pytest.raises(Refused) as caught:
            received(content)
        assert caught.value.reply is replies.ROUTING_LOOP
    else:
        assert received(content) == TRACE + content


def test_header_without_an_end_is_not_held_back() -> None:
    """Some 256 KiB of header are looked at; what follows goes into the draft unseen."""
    reception, spool = begin()
    line = b"X-Endless: " + b"x" * 50 + b"\r\n"
    packet = line * (PACKET // len(line))

    class Hole:
        """A draft that keeps nothing."""

        queue_id = "Q1"
        size = 0

        def write(self, data: bytes) -> None:
            self.size += len(data)

        def abort(self) -> None:
            """Nothing to forget."""

    hole = Hole()
    reception._draft = hole  # type: ignore[assignment]  # noqa: SLF001 - what is measured is what is held beside it

    def feed() -> None:
        for _ in range(500):
            succeeded(reception.write(packet))

    assert peak_of(feed) < 2 * 1024 * 1024
    assert hole.size == 500 * len(packet) + len(TRACE)
    assert spool.messages == []


def test_fault_gives_the_draft_up_at_once() -> None:
    reception, spool = begin()
    succeeded(reception.write(b"A: b\r\n\r\n"))
    spool.failures["write"] = SpoolFull("no room")
    succeeded(reception.write(b"body"))
    assert spool.drafts[0].state == "aborted"
    assert reception.fault is replies.STORAGE_FULL
    assert reception.begun
    succeeded(reception.write(b"more"))  # goes nowhere
    with pytest.raises(Refused) as caught:
        succeeded(reception.commit())
    assert caught.value.reply is replies.STORAGE_FULL
    assert spool.messages == []


def test_abort_is_harmless_at_any_time() -> None:
    reception = Reception(ENVELOPE)
    reception.abort()
    assert not reception.begun
    assert reception.queue_id == ""
    reception, spool = begin()
    assert reception.queue_id == "Q1"
    reception.abort()
    reception.abort()
    assert spool.drafts[0].state == "aborted"
    reception, spool = begin()
    succeeded(reception.commit())
    reception.abort()
    assert spool.drafts[0].state == "committed"


def test_only_recipient_is_known_while_there_is_one() -> None:
    reception = Reception(ENVELOPE)
    assert reception.only_recipient is None
    anna, bob = Address("anna", "example.net"), Address("bob", "example.net")
    reception.accept(anna, [Target(anna, Destination("maildir"))])
    assert reception.only_recipient == anna
    reception.accept(bob, [Target(anna, Destination("maildir"), bob), Target(bob, Destination("maildir"))])
    assert reception.only_recipient is None
    assert reception.recipients == 2
    assert [target.address for target in reception.targets] == [anna, bob]  # once each, however often named
