"""What is held: what is there, who may look, and what is hurried along."""

import random

import pytest
from twisted.internet.defer import gatherResults

from mailsuite.mail.queue import HeldMail
from mailsuite.mail.route import Destination
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


def held(kit: Kit) -> list[HeldMail]:
    return sorted(kit.run(kit.spool.held()), key=lambda one: one.domain)


def test_held_tells_messages_octets_and_the_oldest_of_each_domain(kit: Kit) -> None:
    assert held(kit) == []
    begin = kit.clock.seconds()
    kit.put(target(HOLD, "a"), target(HOLD, "b"), target(RELAY, "c"), content=b"x" * 10)
    kit.clock.advance(1)
    kit.put(HOLD, HOLD2, content=b"x" * 2 * LARGE)
    kit.put(RELAY)
    assert held(kit) == [HeldMail("branch.example", 1, 2 * LARGE, begin + 1), HeldMail("ship.example", 2, 2010, begin)]


def test_held_counts_what_is_under_lease_until_it_leaves(kit: Kit) -> None:
    begin = kit.clock.seconds()
    kit.put(target(HOLD, "a"), target(HOLD, "b"), content=b"x" * 10)
    kit.clock.advance(1)
    kit.put(HOLD, content=b"x" * 5)
    both = [HeldMail("ship.example", 2, 15, begin)]
    first, second = kit.claim_held(HOLD)
    assert held(kit) == both
    kit.settle(first, DELIVERED, deferred(None))
    kit.run(kit.spool.release([second]))
    assert held(kit) == both
    (first, second) = kit.claim_held(HOLD)
    kit.settle(first, FAILED)
    assert held(kit) == [HeldMail("ship.example", 1, 5, begin + 1)]
    kit.settle(second, DELIVERED)
    assert held(kit) == []
    assert kit.count() == 0


def test_held_follows_what_is_moved_and_rerouted(kit: Kit) -> None:
    begin = kit.clock.seconds()
    kit.put(target(RELAY, "a"), target(RELAY, "b"), content=b"x" * 10)
    kit.clock.advance(5)
    (delivery,) = kit.claim(RELAY)
    kit.run(kit.spool.move(delivery, HOLD))
    assert held(kit) == [HeldMail("ship.example", 1, 10, begin)]
    kit.run(kit.spool.reroute(lambda address, *_: HOLD2 if address.local_part == "a" else HOLD))
    assert held(kit) == [HeldMail("branch.example", 1, 10, begin), HeldMail("ship.example", 1, 10, begin)]
    kit.run(kit.spool.reroute(lambda *_: HOLD2))
    assert held(kit) == [HeldMail("branch.example", 1, 10, begin)]
    kit.reopen()
    assert held(kit) == [HeldMail("branch.example", 1, 10, begin)]
    (delivery,) = kit.claim_held(HOLD2)
    kit.run(kit.spool.move(delivery, RELAY))
    assert held(kit) == []


def test_what_is_claimed_from_many_domains_is_the_oldest_of_all(kit: Kit) -> None:
    chance = random.Random(4)
    domains = [Destination("hold", f"{number}.example") for number in range(40)]
    given = []
    for _ in range(120):
        given.append(kit.put(chance.choice(domains[:30])))
        kit.clock.advance(chance.choice((0.0, 1.0)))
    taken: list[str] = []
    while some := ids(kit.claim_held(*domains, *domains, limit=7)):
        assert len(some) == 7 or len(taken) + len(some) == 120
        taken += some
    assert taken == given


def test_message_that_is_held_for_two_domains_is_two_deliveries(kit: Kit) -> None:
    queue_id = kit.put(target(HOLD, "a"), target(HOLD2, "b"), target(HOLD, "c"))
    taken = kit.claim_held(HOLD, HOLD2)
    assert ids(taken) == [queue_id] * 2
    assert {one.destination: names(one) for one in taken} == {HOLD: ["a", "c"], HOLD2: ["b"]}


def test_leases_of_turns_at_once_never_overlap(kit: Kit) -> None:
    given = [kit.put(HOLD if number % 3 else HOLD2) for number in range(60)]
    turns = [kit.spool.claim_held([HOLD, HOLD2][:: 1 - 2 * (number % 2)], 7) for number in range(12)]
    taken = [one for some in kit.run(gatherResults(turns)) for one in some]
    assert sorted(ids(taken)) == sorted(given)
    assert len({(one.message.queue_id, one.destination) for one in taken}) == 60
    assert kit.claim_held(HOLD, HOLD2) == []
    assert sum(one.messages for one in held(kit)) == 60


# ------------------------------------------------------------------------------------------ only a look


def test_held_messages_are_seen_without_a_lease(kit: Kit) -> None:
    first = kit.put(target(HOLD, "a"), target(HOLD, "b"), target(HOLD2, "c"), content=b"x" * 2 * LARGE)
    now = kit.clock.seconds()
    kit.clock.advance(10)
    second = kit.put(HOLD)
    kit.clock.advance(10)
    kit.put(HOLD)
    kit.put(RELAY)
    seen = kit.run(kit.spool.held_messages(HOLD, now + 10, 100))
    assert [one.queue_id for one in seen] == [first, second]
    assert [one.queue_id for one in kit.run(kit.spool.held_messages(HOLD, now + 10, 1))] == [first]
    assert [one.queue_id for one in kit.run(kit.spool.held_messages(HOLD, now + 10, 9, since=now))] == [second]
    (delivery,) = kit.claim_held(HOLD, limit=1)
    assert delivery.message == seen[0]
    assert [one.queue_id for one in kit.run(kit.spool.held_messages(HOLD, now + 10, 100))] == [second]
    assert len(kit.claim_held(HOLD)) == 2


@pytest.mark.parametrize(("destination", "limit"), [(RELAY, 10), (HOLD, 0), (HOLD, -1), (HOLD2, 10)])
def test_held_messages_are_of_a_held_domain_and_within_the_limit(
    kit: Kit, destination: Destination, limit: int
) -> None:
    kit.put(HOLD, RELAY)
    assert list(kit.run(kit.spool.held_messages(destination, 1e10, limit))) == []


# -------------------------------------------------------------------------------------------- at once


def test_hurry_makes_what_waits_due_now_and_tells_how_many_messages(kit: Kit) -> None:
    begin = kit.clock.seconds()
    kit.put(target(RELAY, "a"), target(RELAY, "b"), target(OTHER, "c"))
    for delivery in (*kit.claim(RELAY), *kit.claim(OTHER)):
        kit.settle(delivery, *[deferred(begin + 9000)] * len(delivery.recipients))
    kit.put(MAILDIR, HOLD)
    kit.put(RELAY)
    kit.put(RELAY)
    (leased,) = kit.claim(RELAY, 1)
    watcher = Watcher()
    kit.spool.watch(watcher)
    kit.clock.advance(10)
    asked = [RELAY, OTHER, HOLD, Destination("relay", "nothing.example"), RELAY]
    assert kit.run(kit.spool.hurry(asked)) == 2
    assert sorted(set(watcher.waiting)) == sorted([RELAY, OTHER])
    assert kit.destinations() == {MAILDIR: begin, RELAY: begin, OTHER: begin + 10}
    assert [names(one) for one in kit.claim(RELAY)] == [["fred"], ["a", "b"]]
    assert kit.run(kit.spool.hurry([HOLD])) == 0
    assert kit.claim(HOLD) == []
    assert kit.run(kit.spool.hurry([])) == 0
    kit.settle(leased, DELIVERED)
