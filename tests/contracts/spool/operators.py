"""What operators see of the queue, and do with it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import Outcome, Result, Settlement
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.selection import EVERYTHING, Managed, QueueAction, QueueState, Selection
from mailsuite.mail.status import EnhancedStatus
from tests.contracts.spool.kit import (
    DELIVERED,
    ENVELOPE,
    HOLD,
    LARGE,
    MAILDIR,
    OTHER,
    RELAY,
    SENDER,
    Kit,
    Watcher,
    deferred,
    ids,
    names,
    target,
)

GIVEN_UP = Destination("expired", "ship.example")
HELD = Outcome(Result.HELD, EnhancedStatus(4, 3, 0), "a defect was met")


def to(text: str, destination: Destination = RELAY, original: Address | None = None) -> Target:
    local_part, _, domain = text.partition("@")
    return Target(Address(local_part, domain), destination, original)


def select(kit: Kit, limit: int = 100, after: str = "", **conditions: object) -> list[tuple[str, list[str]]]:
    """The ids that are selected, each with the local parts of its recipients."""
    found = kit.run(kit.spool.select(Selection(**conditions), limit, after=after))  # type: ignore[arg-type]
    return [(one.message.queue_id, [each.address.local_part for each in one.recipients]) for one in found]


def manage(kit: Kit, action: QueueAction, **conditions: object) -> Managed:
    managed = kit.run(kit.spool.manage(action, Selection(**conditions), by="root"))  # type: ignore[arg-type]
    assert isinstance(managed, Managed)
    return managed


def steps(kit: Kit, queue_id: str) -> Sequence[Event]:
    return list(kit.run(kit.spool.history(queue_id=queue_id, kind=EventKind.MANAGED)))


# -------------------------------------------------------------------------------------------- to look


def test_queue_is_shown_by_id_and_in_pages(kit: Kit) -> None:
    given = [kit.put(RELAY, target(MAILDIR, "jim")) for _ in range(5)]
    assert select(kit) == [(queue_id, ["fred", "jim"]) for queue_id in given]
    assert [queue_id for queue_id, _ in select(kit, 2)] == given[:2]
    assert [queue_id for queue_id, _ in select(kit, 2, after=given[1])] == given[2:4]
    assert select(kit, after=given[-1]) == select(kit, 0) == select(kit, -1) == []


def test_recipient_is_shown_as_it_stands(kit: Kit) -> None:
    begin = kit.clock.seconds()
    original = Address("team", "example.com")
    kit.put(
        target(RELAY, "a", original), target(OTHER, "b"), target(HOLD, "c"), target(MAILDIR, "d"), target(HOLD, "e")
    )
    kit.clock.advance(3)
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, deferred(begin + 100))
    (delivery,) = kit.claim(OTHER)
    kit.settle(delivery, HELD)
    kit.claim(MAILDIR)
    manage(kit, QueueAction.HOLD, recipient="e@example.com")
    (found,) = kit.run(kit.spool.select(EVERYTHING, 10))
    a, b, c, d, e = found.recipients
    assert (a.state, a.due, a.attempts, a.original) == (QueueState.WAITING, begin + 100, 1, original)
    assert (a.last_attempt, a.last_status, a.last_text, a.last_remote) == (begin + 3, "4.4.1", "no answer", "mx")
    assert (b.state, b.attempts, b.last_text) == (QueueState.ON_HOLD, 0, "a defect was met")
    assert (c.state, c.due, c.last_attempt, c.destination) == (QueueState.FOR_CUSTOMER, begin, None, HOLD)
    assert (d.state, e.state) == (QueueState.ACTIVE, QueueState.ON_HOLD)
    assert found.message.arrived == begin
    for state, expected in (
        (QueueState.WAITING, ["a"]),
        (QueueState.DUE, []),
        (QueueState.ACTIVE, ["d"]),
        (QueueState.ON_HOLD, ["b", "e"]),
        (QueueState.FOR_CUSTOMER, ["c"]),
    ):
        assert [shown for _, shown in select(kit, state=state)] == ([expected] if expected else [])
    kit.clock.advance(100)
    assert [shown for _, shown in select(kit, state=QueueState.DUE)] == [["a"]]
    assert select(kit, state=QueueState.WAITING) == []


def test_selection_is_by_who_sends_and_who_receives(kit: Kit) -> None:
    owner = Address("owner-list", "lists.example")
    first = kit.put(to("Ann@Example.ORG"), to("bob@sub.example.org"))
    second = kit.put(to("ann@bücher.example", OTHER), envelope=Envelope(Address("50%_off!", "shop.example")))
    third = kit.put(to("ann@example.org", MAILDIR), envelope=Envelope(None))
    fourth = kit.put(replace(to("zoe@example.com"), reverse_path=owner), to("yan@example.com"))
    assert select(kit, recipient="ann@example.org") == [(first, ["Ann"]), (third, ["ann"])]
    assert select(kit, recipient="nn@example.org") == []
    assert select(kit, recipient="nn@EXAMPLE") == []
    assert [queue_id for queue_id, _ in select(kit, recipient="@example.org")] == [first, third]
    assert select(kit, recipient="*@*.org") == [(first, ["Ann", "bob"]), (third, ["ann"])]
    assert select(kit, recipient="a*e") == [(second, ["ann"])]
    assert select(kit, domain="example.org") == [(first, ["Ann"]), (third, ["ann"])]
    assert select(kit, domain=".example.org") == [(first, ["bob"])]
    assert select(kit, domain="xn--bcher-kva.example") == [(second, ["ann"])]
    assert select(kit, domain="example") == []
    assert select(kit, sender="<>") == [(third, ["ann"])]
    assert select(kit, sender="50%_off!@SHOP.example") == select(kit, sender="%_OFF!") == [(second, ["ann"])]
    assert select(kit, sender="5_%") == select(kit, sender="%")[1:] == []
    assert select(kit, sender=str(SENDER)) == [(first, ["Ann", "bob"]), (fourth, ["zoe", "yan"])]
    assert select(kit, sender="owner-*") == [(fourth, ["zoe"])]
    assert select(kit, destination=OTHER) == [(second, ["ann"])]
    assert select(kit, ids=(fourth, first, "nothing"), recipient="example") == [
        (first, ["Ann", "bob"]),
        (fourth, ["zoe", "yan"]),
    ]
    assert select(kit, ids=("nothing",)) == []


def test_selection_is_by_age_and_size_and_error(kit: Kit) -> None:
    old = kit.put(RELAY, content=b"x" * 2 * LARGE)
    kit.clock.advance(100)
    new = kit.put(target(OTHER, "a"), target(RELAY, "b"), content=b"y" * 10)
    kit.clock.advance(10)

    def ids_of(**conditions: object) -> list[str]:
        return [queue_id for queue_id, _ in select(kit, **conditions)]

    assert ids_of(older_than=110) == ids_of(younger_than=111)[:1] == ids_of(larger_than=2 * LARGE - 1) == [old]
    assert ids_of(older_than=10) == [old, new]
    assert ids_of(older_than=0) == [old, new]
    assert ids_of(older_than=111) == ids_of(larger_than=2 * LARGE) == ids_of(smaller_than=10) == []
    assert ids_of(younger_than=110) == ids_of(smaller_than=11) == [new]
    assert ids_of(error="o") == []
    (delivery,) = kit.claim(OTHER)
    kit.settle(delivery, deferred(kit.clock.seconds() + 10))
    assert select(kit, error="NO answer") == select(kit, error="4.4.1 mx no") == [(new, ["a"])]
    assert select(kit, error="%") == select(kit, error="mx.") == []


def test_loads_are_told_for_those_that_have_the_most(kit: Kit) -> None:
    assert list(kit.run(kit.spool.loads(10))) == []
    begin = kit.clock.seconds()
    kit.put(RELAY, RELAY, content=b"x" * 10)
    kit.clock.advance(1000)
    kit.put(RELAY, HOLD, content=b"x" * 30)
    kit.put(OTHER)
    kit.claim(OTHER)
    kit.clock.advance(7 * 86400)
    (one, _) = kit.claim(RELAY)
    kit.settle(one, replace(HELD, text="no answer"), deferred(kit.clock.seconds() + 60))
    relay, held, other = kit.run(kit.spool.loads(10))
    assert (relay.destination, relay.messages, relay.recipients, relay.octets) == (RELAY, 2, 3, 40)
    assert (relay.oldest, relay.next_due) == (begin, kit.clock.seconds() + 60)
    assert (relay.on_hold, relay.active, relay.error) == (1, 1, "no answer")
    assert list(relay.ages) == [0, 0, 0, 0, 0, 2]
    assert (held.destination, held.messages, held.next_due, held.error) == (HOLD, 1, begin + 1000, None)
    assert (other.destination, other.active, other.on_hold) == (OTHER, 1, 0)
    assert [load.destination for load in kit.run(kit.spool.loads(1))] == [RELAY]
    assert list(kit.run(kit.spool.loads(0))) == []


def test_ages_are_counted_in_steps(kit: Kit) -> None:
    now = kit.clock.seconds()
    for age in (6 * 86400, 5 * 86400, 7200, 3600, 300, 0):
        kit.clock.rightNow = now - age
        kit.put(RELAY)
    kit.clock.rightNow = now
    (load,) = kit.run(kit.spool.loads(10))
    assert list(load.ages) == [2, 1, 1, 0, 1, 1]


# ------------------------------------------------------------------------------------------ to act


def test_hold_keeps_mail_where_it_is_until_its_release(kit: Kit) -> None:
    watcher = Watcher()
    given = kit.put(target(RELAY, "a"), target(OTHER, "b"), target(HOLD, "c"))
    free = kit.put(RELAY)
    kit.spool.watch(watcher)
    assert manage(kit, QueueAction.HOLD, ids=(given,)) == Managed(1, 3)
    assert manage(kit, QueueAction.HOLD, ids=(given,)) == Managed(0, 0)
    kit.clock.advance(1e6)
    assert kit.run(kit.spool.hurry([RELAY, OTHER])) == 1
    assert manage(kit, QueueAction.RETRY, ids=(given,)) == Managed(0, 0)
    assert ids(kit.claim(RELAY)) == [free]
    assert kit.claim_held(HOLD) == []
    assert kit.destinations() == {}
    kit.reopen()
    assert kit.destinations() == {RELAY: kit.clock.seconds() - 1e6}
    assert ids(kit.claim(RELAY)) == [free]
    watcher.waiting.clear()
    kit.spool.watch(watcher)
    assert manage(kit, QueueAction.RELEASE) == Managed(1, 3, 1)
    assert sorted(watcher.waiting) == sorted([RELAY, OTHER])
    (delivery,) = kit.claim(RELAY)
    assert (names(delivery), delivery.replayed) == (["a"], False)
    assert [names(one) for one in kit.claim_held(HOLD)] == [["c"]]
    held, released = steps(kit, given)[::-1]
    assert (held.subject, held.detail["by"]) == ("hold", "root")
    assert sorted(held.detail["recipients"]) == ["a@example.com", "b@example.com", "c@example.com"]
    assert (released.subject, released.time) == ("release", kit.clock.seconds())
    assert steps(kit, free) == []


def test_routes_may_change_for_what_is_on_hold(kit: Kit) -> None:
    kit.put(RELAY)
    manage(kit, QueueAction.HOLD)
    assert kit.run(kit.spool.reroute(lambda *_: OTHER)) == 1
    assert kit.claim(OTHER) == []
    manage(kit, QueueAction.RELEASE)
    assert len(kit.claim(OTHER)) == 1


def test_retry_makes_mail_due(kit: Kit) -> None:
    watcher = Watcher()
    kit.put(target(RELAY, "a"), target(RELAY, "b"), target(HOLD, "c"))
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, deferred(kit.clock.seconds() + 1000), deferred(kit.clock.seconds() + 2000))
    kit.spool.watch(watcher)
    kit.clock.advance(1)
    assert manage(kit, QueueAction.RETRY, recipient="b@*") == Managed(1, 1)
    assert watcher.waiting == [RELAY]
    (delivery,) = kit.claim(RELAY)
    assert names(delivery) == ["b"]
    assert delivery.recipients[0].attempts == 0
    assert manage(kit, QueueAction.RETRY) == Managed(1, 1, 1)


def test_retry_does_not_lengthen_the_waits(kit: Kit) -> None:
    kit.put(RELAY)
    for attempts in range(3):
        (delivery,) = kit.claim(RELAY)
        assert delivery.recipients[0].attempts == attempts
        kit.settle(delivery, deferred(kit.clock.seconds() + 1000))
        kit.clock.advance(1000)
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, deferred(kit.clock.seconds() + 1000))
    for _ in range(3):  # said twice before it is tried, it is one attempt
        assert manage(kit, QueueAction.RETRY) == Managed(1, 1)
        assert manage(kit, QueueAction.RETRY) == Managed(1, 1)
        (delivery,) = kit.claim(RELAY)
        assert delivery.recipients[0].attempts == 3
        kit.settle(delivery, deferred(kit.clock.seconds() + 1000))


def test_expired_mail_is_due_at_once_and_marked(kit: Kit) -> None:
    watcher = Watcher()
    given = kit.put(target(RELAY, "a"), target(RELAY, "b"), target(HOLD, "c"))
    kit.put(HOLD)
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, *[deferred(kit.clock.seconds() + 1000)] * 2)
    kit.spool.watch(watcher)
    kit.clock.advance(1)
    assert manage(kit, QueueAction.EXPIRE, ids=(given,), recipient="a@*") == Managed(1, 1)
    assert manage(
        kit, QueueAction.EXPIRE, ids=(given,), domain="example.com", state=QueueState.FOR_CUSTOMER
    ) == Managed(1, 1)
    assert watcher.waiting == [RELAY, GIVEN_UP]
    assert [(one.domain, one.messages) for one in kit.run(kit.spool.held())] == [("ship.example", 1)]
    assert kit.run(kit.spool.reroute(lambda *_: OTHER)) == 2
    for destination, name in ((RELAY, "a"), (GIVEN_UP, "c")):
        (delivery,) = kit.claim(destination)
        assert names(delivery) == [name]
        assert delivery.recipients[0].expired
    kit.clock.advance(1000)
    assert not any(one.expired for delivery in kit.claim(OTHER) for one in delivery.recipients)


def test_requeued_mail_begins_anew(kit: Kit) -> None:
    begin = kit.clock.seconds()
    kit.put(target(RELAY, "a"), target(HOLD, "b"), target(OTHER, "c"))
    kit.clock.advance(5)
    for destination, outcome in ((RELAY, deferred(begin + 1000)), (OTHER, HELD)):
        (delivery,) = kit.claim(destination)
        kit.settle(delivery, outcome)
    manage(kit, QueueAction.EXPIRE)
    assert manage(kit, QueueAction.REQUEUE) == Managed(1, 3)
    assert [(one.domain, one.oldest) for one in kit.run(kit.spool.held())] == [("ship.example", begin)]
    assert kit.destinations() == {RELAY: begin + 5, OTHER: begin}
    for delivery in (*kit.claim(RELAY), *kit.claim(OTHER), *kit.claim_held(HOLD)):
        (recipient,) = delivery.recipients
        assert (recipient.attempts, recipient.expired) == (0, False)
    (found,) = kit.run(kit.spool.select(EVERYTHING, 10))
    assert {one.last_text for one in found.recipients} == {None}


def test_deleted_mail_is_gone_with_its_content(kit: Kit) -> None:
    given = [kit.put(target(RELAY, "a"), target(OTHER, "b"), content=b"x" * 2 * LARGE) for _ in range(3)]
    held = kit.put(HOLD, content=b"y" * 2 * LARGE)
    (taken,) = kit.claim(RELAY, 1)
    assert manage(kit, QueueAction.DELETE, recipient="a@*") == Managed(2, 2, 1)
    assert kit.count() == 4
    assert manage(kit, QueueAction.DELETE, ids=tuple(given)) == Managed(3, 3, 1)
    assert select(kit) == [(given[0], ["a"]), (held, ["fred"])]
    kit.settle(taken, DELIVERED)
    assert manage(kit, QueueAction.DELETE) == Managed(1, 1)
    assert kit.count() == 0
    assert list(kit.run(kit.spool.held())) == []
    assert [event.subject for event in steps(kit, given[1])] == ["delete", "delete"]


def test_action_goes_through_the_queue_in_pieces(kit: Kit) -> None:
    for number in range(25):
        kit.put(*(target(RELAY, f"{number}-{at}") for at in range(100)))
    assert manage(kit, QueueAction.HOLD) == Managed(25, 2500)
    assert manage(kit, QueueAction.RELEASE, recipient="7-*@*") == Managed(1, 100)
    assert manage(kit, QueueAction.DELETE, state=QueueState.ON_HOLD) == Managed(24, 2400)
    assert kit.count() == 1


def test_defect_sets_a_recipient_aside(kit: Kit) -> None:
    kit.put(target(RELAY, "a"), target(RELAY, "b"), target(RELAY, "c"))
    kit.put(HOLD)
    (delivery,) = kit.claim(RELAY)
    kit.settle(delivery, HELD, DELIVERED, deferred(kit.clock.seconds()))
    (held,) = kit.claim_held(HOLD)
    kit.settle(held, HELD)
    (delivery,) = kit.claim(RELAY)
    assert names(delivery) == ["c"]
    assert kit.claim_held(HOLD) == []
    kit.run(kit.spool.release([delivery]))
    kit.reopen()
    assert [names(one) for one in kit.claim(RELAY)] == [["c"]]
    manage(kit, QueueAction.RELEASE)
    (delivery,) = kit.claim(RELAY)
    # Nobody knows whether it had been delivered.
    assert (names(delivery), delivery.replayed, delivery.recipients[0].attempts) == (["a"], True, 0)
    assert [one.replayed for one in kit.claim_held(HOLD)] == [True]


def test_settlement_of_what_was_lost_to_a_hold_is_no_settlement(kit: Kit) -> None:
    kit.put(RELAY)
    (delivery,) = kit.claim(RELAY)
    kit.run(kit.spool.release([delivery]))
    manage(kit, QueueAction.HOLD)
    kit.run(kit.spool.settle([Settlement(delivery, (DELIVERED,))]))
    kit.run(kit.spool.release([delivery]))
    assert kit.claim(RELAY) == []
    assert select(kit, state=QueueState.ON_HOLD) != []


@pytest.mark.parametrize("action", list(QueueAction))
def test_what_nothing_fits_changes_nothing(kit: Kit, action: QueueAction) -> None:
    kit.put(RELAY, envelope=ENVELOPE)
    assert manage(kit, action, domain="nowhere.example") == Managed(0, 0)
    assert len(kit.claim(RELAY)) == 1


def test_what_is_under_lease_and_whom_a_selection_means(kit: Kit) -> None:
    first = kit.put(target(RELAY, "a"), target(OTHER, "b"))
    kit.put(target(MAILDIR, "c"), target(RELAY, "a"))
    kit.claim(OTHER)
    leased = kit.run(kit.spool.leased(EVERYTHING))
    assert [queue_id for _, queue_id in leased] == [first]
    assert kit.run(kit.spool.leased(Selection((first,), destination=RELAY))) == []
    keys = tuple(key for key, _ in leased)
    assert select(kit, keys=keys) == [(first, ["b"])]
    assert select(kit, keys=()) == []
    met = kit.run(kit.spool.met(EVERYTHING))
    assert (met.destinations, met.addresses) == ({RELAY, OTHER, MAILDIR}, frozenset())
    met = kit.run(kit.spool.met(Selection((first,)), addresses=True))
    assert (met.destinations, {who.local_part for who in met.addresses}) == ({RELAY, OTHER}, {"a", "b"})
