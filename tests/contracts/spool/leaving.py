"""How recipients leave the queue: claims, outcomes, and other ways."""

from dataclasses import replace

import pytest

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import EventKind
from mailsuite.mail.queue import Outcome, Report, Result, Settlement
from mailsuite.mail.route import Destination
from mailsuite.mail.status import EnhancedStatus
from tests.contracts.spool.kit import (
    DELIVERED,
    FAILED,
    HOLD,
    HOLD2,
    LARGE,
    MAILDIR,
    OTHER,
    RELAY,
    Kit,
    Watcher,
    deferred,
    ids,
    names,
    target,
)


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
    assert kit.run(kit.spool.reroute(lambda address, *_: routes[address.local_part])) == 4
    assert set(watcher.waiting) == {OTHER, RELAY, MAILDIR}
    now = kit.clock.seconds()
    # What is deferred stays so; what was held for a customer is due now.
    assert kit.destinations() == {OTHER: now - 6, RELAY: now, MAILDIR: now + 995}
    assert [names(one) for one in kit.claim(OTHER)] == [["a"]]
    assert [names(one) for one in kit.claim(RELAY)] == [["c"]]
    assert [names(one) for one in kit.claim_held(HOLD)] == [["b", "d"]]
    kit.clock.advance(995)
    (moved,) = kit.claim(MAILDIR)
    assert names(moved) == ["e"]
    assert moved.message.queue_id != leased
    assert kit.run(kit.spool.reroute(lambda address, *_: routes[address.local_part])) == 0


def test_address_whose_route_cannot_be_told_stays_and_stops_no_other(kit: Kit) -> None:
    kit.put(target(RELAY, "odd"), target(RELAY, "fine"))

    def choose(address: Address, *_: object) -> Destination:
        if address.local_part == "odd":
            raise ZeroDivisionError("a defect")
        return OTHER

    assert kit.run(kit.spool.reroute(choose)) == 1
    assert [names(one) for one in kit.claim(RELAY)] == [["odd"]]
    assert [names(one) for one in kit.claim(OTHER)] == [["fine"]]


def test_new_destinations_stand_in_the_history(kit: Kit) -> None:
    given = kit.put(target(RELAY, "a"), target(RELAY, "b"))
    kit.run(kit.spool.reroute(lambda address, *_: OTHER if address.local_part == "a" else RELAY))
    (delivery,) = kit.claim(RELAY)
    kit.run(kit.spool.move(delivery, HOLD))
    steps = kit.run(kit.spool.history(queue_id=given, kind=EventKind.ROUTED))
    assert [(step.subject, step.detail["old"], step.detail["recipients"]) for step in steps[::-1]] == [
        (str(OTHER), str(RELAY), ["a@example.com"]),
        (str(HOLD), str(RELAY), ["b@example.com"]),
    ]


def test_who_has_failed_stays_for_the_report_and_comes_back_with_the_failure(kit: Kit) -> None:
    kit.put(RELAY)
    kit.put(HOLD)
    later = kit.clock.seconds() + 100
    (relayed,), (held,) = kit.claim(RELAY), kit.claim_held(HOLD)
    failed = replace(FAILED, result=Result.DEFERRED, next_attempt=later)
    for one in (relayed, held):
        kit.run(kit.spool.settle([Settlement(one, (failed,), unreported=(one.recipients[0].key,))]))
    assert kit.claim_held(HOLD) == []
    assert kit.claim(RELAY) == []
    kit.clock.advance(100)
    for destination in (RELAY, Destination("expired", HOLD.name)):
        (again,) = kit.claim(destination)
        (recipient,) = again.recipients
        assert recipient.expired
        assert recipient.failure == FAILED
        kit.settle(again, recipient.failure)
    assert kit.count() == 0
