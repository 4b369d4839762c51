"""The contract of ISpool: every spool passes these tests, which a test module takes over with `import *`.

The module gives a fixture `kit`, a `Kit` around a spool that was started: contents above 1,000 octets are large to it.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mailsuite.interfaces import IDraft, ISpool, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.queue import Delivery, Outcome, Report, Result, Settlement
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.status import EnhancedStatus

LARGE = 1000
MAILDIR = Destination("maildir")
RELAY = Destination("relay", "example.org")
OTHER = Destination("relay", "[192.0.2.1]:25")
HOLD = Destination("hold", "ship.example")
HOLD2 = Destination("hold", "branch.example")
SENDER = Address("joe", "example.net")
ENVELOPE = Envelope(SENDER)

DELIVERED = Outcome(Result.DELIVERED, EnhancedStatus(2, 0, 0), "done")
FAILED = Outcome(Result.FAILED, EnhancedStatus(5, 1, 1), "no such user", remote="mx.example.org")


def deferred(until: float | None) -> Outcome:
    return Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 1), "no answer", remote="mx", next_attempt=until)


def target(destination: Destination, name: str = "fred", original: Address | None = None) -> Target:
    return Target(Address(name, "example.com"), destination, original)


class Watcher:
    """Takes what there is room for, and notes what it is told."""

    def __init__(self, *room: Destination) -> None:
        self.room = room
        self.asked: list[tuple[Destination, int]] = []
        self.deliveries: list[Delivery] = []
        self.groups: list[int] = []
        self.waiting: list[Destination] = []

    def has_room(self, destination: Destination, size: int) -> bool:
        self.asked.append((destination, size))
        return destination in self.room

    def committed(self, deliveries: Any) -> None:
        self.groups.append(len(deliveries))
        self.deliveries += deliveries

    def due(self, destinations: Any) -> None:
        self.waiting += destinations


class Kit:
    """A spool, its clock, and a way to wait. `reopen` ends this run without settling anything, and begins another."""

    def __init__(
        self, spool: Any, clock: Clock, run: Callable[[Awaitable[Any]], Any], begin: Callable[[], Any]
    ) -> None:
        self.spool = spool
        self.clock = clock
        self.run = run
        self._begin = begin

    def put(self, *targets: Target | Destination, content: bytes = b"Hello\r\n", envelope: Envelope = ENVELOPE) -> str:
        """Commit a message; its queue id."""
        draft = self.spool.draft()
        self.run(self._write(draft, content))
        whole = [one if isinstance(one, Target) else target(one) for one in targets]
        self.run(draft.commit(envelope, whole))
        return str(draft.queue_id)

    def claim(self, destination: Destination, limit: int = 100) -> list[Delivery]:
        return list(self.run(self.spool.claim(destination, limit)))

    def claim_held(self, *destinations: Destination, limit: int = 100) -> list[Delivery]:
        return list(self.run(self.spool.claim_held(destinations, limit)))

    def settle(self, delivery: Delivery, *outcomes: Outcome, reports: tuple[Report, ...] = ()) -> None:
        self.run(self.spool.settle([Settlement(delivery, outcomes, reports)]))

    def count(self) -> int:
        return int(self.run(self.spool.count()))

    def destinations(self) -> dict[Destination, float]:
        return dict(self.run(self.spool.destinations()))

    def content(self, delivery: Delivery) -> bytes:
        return bytes(self.run(delivery.content.read(0, delivery.content.size + 1)))

    def reopen(self) -> None:
        self.run(self.spool.stop())
        self.spool = self._begin()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "it never came"

    async def _write(self, draft: Any, content: bytes) -> None:
        for at in range(0, len(content), 400):
            waiting = draft.write(content[at : at + 400])
            if waiting is not None:
                await waiting


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.queue_id for delivery in deliveries]


def names(delivery: Delivery) -> list[str]:
    return [recipient.address.local_part for recipient in delivery.recipients]


# -------------------------------------------------------------------------------------------- drafts


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


# -------------------------------------------------------------------------------------------- claims


def test_recipients_with_one_destination_are_one_delivery(kit: Kit) -> None:
    kit.put(target(RELAY, "a"), target(MAILDIR, "b"), target(RELAY, "c"), target(MAILDIR, "d"))
    assert [names(one) for one in kit.claim(RELAY)] == [["a", "c"]]
    assert [names(one) for one in kit.claim(MAILDIR)] == [["b", "d"]]
    assert kit.count() == 1


def test_what_is_leased_is_not_claimed_again(kit: Kit) -> None:
    kit.put(RELAY)
    (delivery,) = kit.claim(RELAY)
    assert kit.claim(RELAY) == []
    assert kit.destinations() == {}
    assert kit.count() == 1
    kit.clock.advance(1_000_000)  # the spool renews it
    assert kit.claim(RELAY) == []
    kit.settle(delivery, DELIVERED)
    assert kit.count() == 0


def test_released_delivery_is_due_as_it_was(kit: Kit) -> None:
    kit.put(RELAY)
    taken = kit.claim(RELAY)
    kit.clock.advance(5)
    kit.run(kit.spool.release(taken))
    assert kit.destinations() == {RELAY: kit.clock.seconds() - 5}
    again = kit.claim(RELAY)
    assert ids(again) == ids(taken)
    assert [one.recipients for one in again] == [one.recipients for one in taken]
    assert not again[0].replayed


def test_the_longest_due_is_claimed_first_and_no_more_than_asked(kit: Kit) -> None:
    given = []
    for _ in range(5):
        given.append(kit.put(target(RELAY, "a"), target(RELAY, "b")))
        kit.clock.advance(1)
    assert kit.claim(RELAY, 0) == []
    assert kit.claim(RELAY, -1) == []
    assert ids(kit.claim(RELAY, 2)) == given[:2]
    assert ids(kit.claim(RELAY, 10)) == given[2:]


def test_held_is_never_due(kit: Kit) -> None:
    kit.put(HOLD)
    assert kit.claim(HOLD) == []
    assert kit.destinations() == {}
    kit.clock.advance(1e9)
    assert kit.claim(HOLD) == []
    assert kit.count() == 1


def test_held_is_claimed_the_oldest_first_whatever_its_times(kit: Kit) -> None:
    given = []
    for destination in (HOLD, HOLD2, HOLD, HOLD2, HOLD):
        given.append(kit.put(destination))
        kit.clock.advance(1)
    kit.put(RELAY)
    assert kit.claim_held() == []
    assert kit.claim_held(RELAY) == []
    assert ids(kit.claim_held(HOLD, limit=1)) == given[:1]
    taken = kit.claim_held(HOLD2, HOLD, limit=3)
    assert ids(taken) == given[1:4]
    assert {one.destination for one in taken} == {HOLD, HOLD2}
    kit.settle(taken[0], deferred(kit.clock.seconds() + 1000))
    kit.settle(taken[1], deferred(None))
    assert ids(kit.claim_held(HOLD, HOLD2)) == [given[1], given[2], given[4]]


def test_destinations_have_the_earliest_time(kit: Kit) -> None:
    begin = kit.clock.seconds()
    for destination in (RELAY, HOLD, OTHER, MAILDIR):
        kit.put(destination)
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, deferred(begin + 900))
    kit.claim(MAILDIR)
    assert kit.destinations() == {RELAY: begin + 900, OTHER: begin}
    kit.clock.advance(10)
    kit.put(RELAY, OTHER)
    assert kit.destinations() == {RELAY: begin + 10, OTHER: begin}


# -------------------------------------------------------------------------------------------- outcomes


def test_recipients_leave_one_by_one_and_the_message_with_the_last(kit: Kit) -> None:
    kit.put(target(RELAY, "a"), target(RELAY, "b"), target(OTHER, "c"), content=b"x" * 2 * LARGE)
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, DELIVERED, FAILED)
    assert kit.count() == 1
    assert kit.claim(RELAY) == []
    (delivery,) = kit.claim(OTHER)
    assert kit.content(delivery) == b"x" * 2 * LARGE
    kit.settle(delivery, Outcome(Result.RELAYED, EnhancedStatus(2, 0, 0), "ok"))
    assert kit.count() == 0


def test_deferred_recipients_come_back_at_their_times(kit: Kit) -> None:
    begin = kit.clock.seconds()
    kit.put(target(RELAY, "a"), target(RELAY, "b"), target(RELAY, "c"))
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, deferred(begin + 60), DELIVERED, deferred(begin + 90))
    assert kit.destinations() == {RELAY: begin + 60}
    kit.clock.advance(59)
    assert kit.claim(RELAY) == []
    kit.clock.advance(1)
    (delivery,) = kit.claim(RELAY)
    assert [(one.address.local_part, one.attempts) for one in delivery.recipients] == [("a", 1)]
    assert not delivery.replayed
    kit.settle(delivery, deferred(begin + 80))
    kit.clock.advance(30)
    (delivery,) = kit.claim(RELAY)
    assert [(one.address.local_part, one.attempts) for one in delivery.recipients] == [("a", 2), ("c", 1)]


def test_report_enters_with_the_settlement(kit: Kit) -> None:
    kit.put(target(RELAY, "a"), target(RELAY, "b"))
    (delivery,) = kit.claim(RELAY)
    report = Report(Envelope(None), b"it failed\r\n", (target(MAILDIR, "joe"),))
    held = Report(Envelope(None), b"it waits\r\n", (target(HOLD, "jim"),))
    kit.settle(delivery, FAILED, FAILED, reports=(report, held))
    assert kit.count() == 2
    (bounce,) = kit.claim(MAILDIR)
    assert (bounce.message.envelope, names(bounce)) == (Envelope(None), ["joe"])
    assert bounce.message.arrived == kit.clock.seconds()
    assert kit.content(bounce) == b"it failed\r\n"
    assert [names(one) for one in kit.claim_held(HOLD)] == [["jim"]]


def test_settling_without_a_lease_changes_nothing(kit: Kit) -> None:
    report = Report(Envelope(None), b"it failed\r\n", (target(MAILDIR, "joe"),))
    kit.put(RELAY)
    (delivery,) = kit.claim(RELAY)
    kit.run(kit.spool.release([delivery]))
    kit.settle(delivery, FAILED, reports=(report,))
    assert kit.count() == 1
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, FAILED, reports=(report,))
    kit.settle(delivery, FAILED, reports=(report,))
    assert kit.count() == 1
    kit.run(kit.spool.release([delivery]))
    kit.run(kit.spool.move(delivery, OTHER))
    assert kit.destinations() == {MAILDIR: kit.clock.seconds()}


def test_settlement_that_is_not_whole_is_a_defect_and_changes_nothing(kit: Kit) -> None:
    kit.put(RELAY)
    kit.put(RELAY)
    good, bad = kit.claim(RELAY)
    for settlement in (
        Settlement(bad, (DELIVERED, DELIVERED)),
        Settlement(bad, ()),
        Settlement(bad, (deferred(None),)),
        Settlement(bad, (FAILED,), (Report(Envelope(None), b"x", ()),)),
    ):
        with pytest.raises(ValueError, match=r"zip|next attempt|recipients"):
            kit.run(kit.spool.settle([Settlement(good, (DELIVERED,)), settlement]))
    assert kit.count() == 2
    kit.settle(good, DELIVERED)
    kit.settle(bad, DELIVERED)
    assert kit.count() == 0


def test_several_settlements_at_once(kit: Kit) -> None:
    for _ in range(30):
        kit.put(target(RELAY, "a"), target(RELAY, "b"), content=b"x" * LARGE)
        kit.put(RELAY, content=b"y" * 2 * LARGE)
    taken = kit.claim(RELAY)
    assert len(taken) == 60
    until = kit.clock.seconds() + 60
    kit.run(
        kit.spool.settle(
            [Settlement(one, (DELIVERED, deferred(until))[: len(one.recipients)]) for one in taken if one != taken[0]]
        )
    )
    assert kit.count() == 30
    assert kit.destinations() == {RELAY: until}
    kit.run(kit.spool.settle([]))
    kit.settle(taken[0], DELIVERED, DELIVERED)
    assert kit.count() == 29


# ------------------------------------------------------------------------------------------- new ways


def test_moved_delivery_is_due_at_once_elsewhere(kit: Kit) -> None:
    watcher = Watcher()
    kit.spool.watch(watcher)
    kit.put(target(HOLD, "a"), target(HOLD, "b"))
    (delivery,) = kit.claim_held(HOLD)
    kit.clock.advance(100)
    kit.run(kit.spool.move(delivery, RELAY))
    assert watcher.waiting == [RELAY]
    assert kit.destinations() == {RELAY: kit.clock.seconds()}
    assert kit.claim_held(HOLD) == []
    assert [names(one) for one in kit.claim(RELAY)] == [["a", "b"]]


def test_moving_to_hold_keeps_the_order_of_arrival(kit: Kit) -> None:
    watcher = Watcher()
    first = kit.put(RELAY)
    kit.clock.advance(1)
    second = kit.put(HOLD)
    kit.clock.advance(1)
    kit.spool.watch(watcher)
    (delivery,) = kit.claim(RELAY)
    kit.run(kit.spool.move(delivery, HOLD))
    assert watcher.waiting == []
    assert ids(kit.claim_held(HOLD)) == [first, second]


def test_reroute_moves_what_waits_and_has_another_destination_now(kit: Kit) -> None:
    kit.put(target(RELAY, "a"), target(RELAY, "b"), target(HOLD, "c"), target(HOLD, "d"), target(OTHER, "e"))
    kit.clock.advance(1)
    leased = kit.put(target(MAILDIR, "a"))
    kit.claim(MAILDIR)
    (later,) = kit.claim(OTHER)
    kit.settle(later, deferred(kit.clock.seconds() + 1000))
    watcher = Watcher(*(routes := {"a": OTHER, "b": HOLD, "c": RELAY, "d": HOLD, "e": MAILDIR}).values())
    kit.spool.watch(watcher)
    kit.clock.advance(5)
    assert kit.run(kit.spool.reroute(lambda address: routes[address.local_part])) == 4
    assert set(watcher.waiting) == {OTHER, RELAY, MAILDIR}
    now = kit.clock.seconds()
    assert kit.destinations() == {OTHER: now, RELAY: now, MAILDIR: now}
    assert [names(one) for one in kit.claim(OTHER)] == [["a"]]
    assert [names(one) for one in kit.claim(RELAY)] == [["c"]]
    assert [names(one) for one in kit.claim_held(HOLD)] == [["b", "d"]]
    (moved,) = kit.claim(MAILDIR)
    assert names(moved) == ["e"]
    assert moved.message.queue_id != leased
    assert kit.run(kit.spool.reroute(lambda address: routes[address.local_part])) == 0


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
        lambda: spool.reroute(lambda _: OTHER),
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
