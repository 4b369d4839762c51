"""How messages enter the queue: drafts, contents, the watcher; and what is left of them when a spool stops."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from zope.interface.verify import verifyObject

from mailsuite.interfaces import IDraft, ISpool, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.queue import Report, Settlement
from tests.contracts.spool.kit import (
    DELIVERED,
    ENVELOPE,
    FAILED,
    HOLD,
    LARGE,
    MAILDIR,
    OTHER,
    RELAY,
    Kit,
    Target,
    Watcher,
    deferred,
    ids,
    names,
    target,
)


def test_spool_and_draft_provide_their_interfaces(kit: Kit) -> None:
    assert verifyObject(ISpool, kit.spool)
    draft = kit.spool.draft()
    assert verifyObject(IDraft, draft)
    draft.abort()


def test_queue_ids_are_short_unique_and_sort_by_time(kit: Kit) -> None:
    given = []
    for step in (0, 0, 0.001, 5, 3600, -7200, 0):
        kit.clock.rightNow += step
        given.append(kit.spool.draft().queue_id)
    assert given == sorted(set(given))
    assert all(name.isascii() and name.isalnum() and len(name) <= 16 for name in given)
    kit.clock.rightNow -= 10_000
    kit.reopen()
    assert kit.spool.draft().queue_id not in given


@pytest.mark.parametrize("size", [10, LARGE + 1, 100 * LARGE])
def test_nothing_is_visible_before_commit(kit: Kit, size: int) -> None:
    draft = kit.spool.draft()
    draft.write(b"x" * size)
    assert draft.size == size
    assert kit.count() == 0
    assert kit.claim(RELAY) == []
    kit.run(draft.commit(ENVELOPE, [target(RELAY)]))
    assert kit.count() == 1
    assert ids(kit.claim(RELAY)) == [draft.queue_id]


@pytest.mark.parametrize("size", [0, 10, LARGE + 1, 100 * LARGE])
def test_abort_leaves_nothing(kit: Kit, size: int) -> None:
    draft = kit.spool.draft()
    draft.write(b"x" * size)
    draft.abort()
    draft.abort()
    with pytest.raises(SpoolError):
        draft.write(b"more")
    with pytest.raises(SpoolError):
        kit.run(draft.commit(ENVELOPE, [target(RELAY)]))
    kit.reopen()
    assert kit.count() == 0


@pytest.mark.parametrize("size", [10, 3 * LARGE])
def test_abort_after_commit_was_called_does_nothing(kit: Kit, size: int) -> None:
    draft = kit.spool.draft()
    draft.write(b"x" * size)
    committing = draft.commit(ENVELOPE, [target(RELAY)])
    draft.abort()
    kit.run(committing)
    draft.abort()
    with pytest.raises(SpoolError):
        draft.write(b"more")
    with pytest.raises(SpoolError):
        kit.run(draft.commit(ENVELOPE, [target(RELAY)]))
    (delivery,) = kit.claim(RELAY)
    assert kit.content(delivery) == b"x" * size


@pytest.mark.parametrize("size", [10, 3 * LARGE])
def test_cancelling_a_commit_takes_nothing_back(kit: Kit, size: int) -> None:
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)

    async def deliver() -> None:
        draft = kit.spool.draft()
        draft.write(b"x" * size)
        await draft.commit(ENVELOPE, [target(MAILDIR), target(RELAY)])

    session = ensureDeferred(deliver())
    session.addErrback(lambda _: None)
    session.cancel()
    kit.put(OTHER)  # behind it
    kit.until(lambda: kit.count() == 2 and bool(watcher.deliveries))  # a large message comes by way of a thread
    assert [names(delivery) for delivery in watcher.deliveries] == [["fred"]]
    assert RELAY in watcher.waiting
    (delivery,) = kit.claim(RELAY)
    assert kit.content(delivery) == b"x" * size


def test_message_without_recipients_is_a_defect(kit: Kit) -> None:
    draft = kit.spool.draft()
    with pytest.raises(ValueError, match="recipients"):
        kit.run(draft.commit(ENVELOPE, []))
    assert kit.count() == 0


def test_message_comes_back_as_it_was_committed(kit: Kit) -> None:
    envelope = Envelope(Address("jürgen q", "bücher.example"), Body.EIGHT_BIT, smtputf8=True, submitter="joe")
    original = Address("team", "example.com")
    queue_id = kit.put(
        target(RELAY, "fred", original), target(RELAY, "Ünal"), content=b"8\xff\x00\r\n", envelope=envelope
    )
    (delivery,) = kit.claim(RELAY)
    message = delivery.message
    assert (message.queue_id, message.size, message.arrived) == (queue_id, 5, kit.clock.seconds())
    assert message.envelope == envelope
    assert delivery.destination == RELAY
    assert [(one.address, one.original, one.attempts) for one in delivery.recipients] == [
        (Address("fred", "example.com"), original, 0),
        (Address("Ünal", "example.com"), None, 0),
    ]
    assert not delivery.replayed
    assert kit.content(delivery) == b"8\xff\x00\r\n"


def test_null_sender_and_postmaster_come_back(kit: Kit) -> None:
    kit.put(Target(Address("Postmaster", ""), RELAY), envelope=Envelope(None))
    (delivery,) = kit.claim(RELAY)
    assert delivery.message.envelope == Envelope(None)
    assert delivery.recipients[0].address == Address("Postmaster", "")


@pytest.mark.parametrize("size", [0, 1, LARGE, LARGE + 1, 3_000_000])
def test_content_is_read_in_pieces_and_as_a_file(kit: Kit, size: int) -> None:
    octets = bytes(range(256)) * (size // 256 + 1)
    octets = octets[:size]
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)
    kit.put(MAILDIR, RELAY, content=octets)
    for content in (watcher.deliveries[0].content, kit.claim(RELAY)[0].content):
        assert content.size == size
        assert content.in_memory() in (octets, None)
        assert kit.run(content.read(0, 700)) == octets[:700]
        assert kit.run(content.read(700, 2_000_000)) == octets[700:2_000_700]
        assert kit.run(content.read(size, 10)) == b""
        with content.open() as file:
            assert file.read() == octets


def test_many_commits_at_once_are_all_there(kit: Kit) -> None:
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)

    async def deliver(number: int) -> str:
        draft = kit.spool.draft()
        draft.write(b"%d" % number * (1 if number % 5 else 2 * LARGE))
        await draft.commit(ENVELOPE, [target(MAILDIR if number % 2 else RELAY, str(number))])
        return str(draft.queue_id)

    given = kit.run(gatherResults([ensureDeferred(deliver(number)) for number in range(200)]))
    taken = watcher.deliveries + kit.claim(RELAY, 500)
    assert sorted(ids(taken)) == sorted(given)
    for delivery in taken:
        number = int(names(delivery)[0])
        assert kit.content(delivery) == b"%d" % number * (1 if number % 5 else 2 * LARGE)


# ------------------------------------------------------------------------------------------ the watcher


def test_watcher_with_room_gets_the_delivery_under_lease(kit: Kit) -> None:
    watcher = Watcher(MAILDIR, HOLD)
    kit.spool.watch(watcher)
    queue_id = kit.put(target(MAILDIR, "a"), target(RELAY, "b"), target(HOLD, "c"), target(MAILDIR, "d"))
    assert watcher.asked == [(MAILDIR, 7), (RELAY, 7)]
    assert watcher.waiting == [RELAY]
    (delivery,) = watcher.deliveries
    assert (delivery.message.queue_id, names(delivery)) == (queue_id, ["a", "d"])
    assert (delivery.message.envelope, delivery.message.arrived) == (ENVELOPE, kit.clock.seconds())
    assert delivery.content.in_memory() == b"Hello\r\n"
    assert not delivery.replayed
    assert kit.claim(MAILDIR) == []
    kit.settle(delivery, DELIVERED, deferred(kit.clock.seconds() + 60))
    kit.clock.advance(60)
    assert [names(one) for one in kit.claim(MAILDIR)] == [["d"]]


def test_watcher_is_told_of_reports(kit: Kit) -> None:
    kit.put(RELAY)
    (delivery,) = kit.claim(RELAY)
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)
    targets = (target(MAILDIR, "joe"), target(OTHER, "jim"))
    kit.settle(delivery, FAILED, reports=(Report(Envelope(None), b"it failed\r\n", targets),))
    (bounce,) = watcher.deliveries
    assert names(bounce) == ["joe"]
    assert kit.content(bounce) == b"it failed\r\n"
    assert watcher.waiting == [OTHER]
    kit.settle(bounce, DELIVERED)
    assert [names(one) for one in kit.claim(OTHER)] == [["jim"]]


def test_later_watcher_takes_the_place_of_an_earlier_one(kit: Kit) -> None:
    first, second = Watcher(MAILDIR), Watcher()
    kit.spool.watch(first)
    kit.spool.watch(second)
    kit.put(MAILDIR)
    assert (first.asked, second.waiting) == ([], [MAILDIR])


# ----------------------------------------------------------------------------------------- start, stop


def test_leases_of_an_earlier_run_are_void_and_their_deliveries_replayed(kit: Kit) -> None:
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)
    kit.put(MAILDIR, content=b"x" * 2 * LARGE)
    kit.put(RELAY)
    kit.clock.advance(1)
    kit.put(RELAY)
    kit.claim(RELAY, 1)
    kit.reopen()
    assert kit.count() == 3
    (delivery,) = kit.claim(MAILDIR)
    assert delivery.replayed
    assert kit.content(delivery) == b"x" * 2 * LARGE
    taken = kit.claim(RELAY)
    assert [one.replayed for one in taken] == [True, False]
    # What was released was not tried either, so nobody knows more; an outcome is known.
    kit.run(kit.spool.release(taken[:1]))
    (again,) = kit.claim(RELAY)
    assert again.replayed
    kit.settle(again, deferred(kit.clock.seconds()))
    (again,) = kit.claim(RELAY)
    assert not again.replayed


def test_everything_is_refused_after_stop(kit: Kit) -> None:
    kit.put(RELAY)
    kit.put(RELAY)
    (delivery, _) = kit.claim(RELAY)
    draft = kit.spool.draft()
    spool = kit.spool
    kit.run(spool.stop())
    with pytest.raises(SpoolError):
        spool.draft()
    asked: list[Callable[[], Deferred[Any]]] = [
        lambda: draft.commit(ENVELOPE, [target(RELAY)]),
        lambda: spool.claim(RELAY, 1),
        lambda: spool.claim_held([HOLD], 1),
        spool.destinations,
        spool.count,
        lambda: spool.settle([Settlement(delivery, (DELIVERED,))]),
        lambda: spool.release([delivery]),
        lambda: spool.move(delivery, OTHER),
        lambda: spool.reroute(lambda *_: OTHER),
        spool.held,
        lambda: spool.held_messages(HOLD, 1e10, 1),
        lambda: spool.hurry([RELAY]),
        lambda: spool.record([]),
        spool.history,
        lambda: spool.keep(draft, "name", ENVELOPE, [target(RELAY)], 0),
        lambda: spool.resume("name"),
        lambda: spool.forget("name"),
    ]
    for ask in asked:
        with pytest.raises(SpoolError):
            kit.run(ask())
    kit.run(spool.stop())
    kit.reopen()
    assert kit.count() == 2


def test_what_was_asked_before_stop_is_finished(kit: Kit) -> None:
    spool = kit.spool
    small, large = spool.draft(), spool.draft()
    small.write(b"x")
    large.write(b"y" * 3_000_000)
    asked = [one.commit(ENVELOPE, [target(RELAY)]) for one in (small, large)]
    kit.reopen()
    kit.run(gatherResults(asked))
    taken = kit.claim(RELAY)
    assert sorted(ids(taken)) == sorted([small.queue_id, large.queue_id])
    assert sorted(len(kit.content(one)) for one in taken) == [1, 3_000_000]
