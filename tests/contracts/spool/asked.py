"""What is asked for messages and recipients: options, senders of their own, priorities, later times."""

from dataclasses import replace

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.options import ByMode, MessageOptions, Notify, RecipientOptions, Return
from mailsuite.mail.queue import Settlement
from mailsuite.mail.route import Target
from mailsuite.mail.selection import EVERYTHING, QueueAction
from tests.contracts.spool.kit import (
    DELIVERED,
    ENVELOPE,
    HOLD,
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

OPTIONS = MessageOptions(
    Return.HEADERS, "böses <envid>", require_tls=True, deliver_by=1.7e9 + 60, by_mode=ByMode.RETURN, by_trace=True
)
WISHES = RecipientOptions(Notify.SUCCESS | Notify.DELAY, "rfc822;joe@example.org")
OWNER = Address("owner-list", "example.com")


def urgent(priority: int) -> Envelope:
    return Envelope(SENDER, options=MessageOptions(priority=priority))


def test_options_come_back_as_they_were(kit: Kit) -> None:
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)
    envelope = replace(ENVELOPE, options=OPTIONS)
    asked = [replace(target(one, "a"), options=WISHES) for one in (RELAY, MAILDIR)]
    kit.put(*asked, replace(target(RELAY, "b"), options=RecipientOptions(Notify(0))), target(RELAY, "c"))
    kit.put(*asked, envelope=envelope)
    plain, other = kit.claim(RELAY)
    assert [one.options for one in plain.recipients] == [WISHES, RecipientOptions(Notify(0)), RecipientOptions()]
    assert [one.message.envelope for one in (plain, other)] == [ENVELOPE, envelope]
    assert [one.message.envelope for one in watcher.deliveries] == [ENVELOPE, envelope]
    assert {one.recipients[0].options for one in watcher.deliveries} == {WISHES}
    kit.reopen()
    again = kit.claim(RELAY)
    assert [one.message for one in again] == [plain.message, other.message]
    assert [one.recipients for one in again] == [plain.recipients, other.recipients]


def test_recipients_with_a_sender_of_their_own_are_a_delivery_of_their_own(kit: Kit) -> None:
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)

    def listed(destination: object, name: str) -> Target:
        return replace(target(destination, name), reverse_path=OWNER)  # type: ignore[arg-type]

    given = [
        kit.put(target(one, "a"), listed(one, "b"), target(one, "c"), listed(one, "d"), target(OTHER, "e"))
        for one in (RELAY, RELAY, MAILDIR)
    ]
    assert [(names(one), one.reverse_path) for one in watcher.deliveries] == [
        (["a", "c"], SENDER),
        (["b", "d"], OWNER),
    ]
    first = kit.claim(RELAY, 1)
    rest = kit.claim(RELAY)
    assert ids(first + rest) == [given[0], given[0], given[1], given[1]]
    assert sorted((names(one), one.reverse_path == OWNER) for one in first + rest) == [
        (["a", "c"], False),
        (["a", "c"], False),
        (["b", "d"], True),
        (["b", "d"], True),
    ]
    assert [names(one) for one in kit.claim(OTHER)] == [["e"]] * 3
    until = kit.clock.seconds() + 5
    kit.run(kit.spool.settle([Settlement(one, (deferred(until),) * 2) for one in first + rest]))
    kit.clock.advance(5)
    assert len(kit.claim(RELAY, 3)) == 3
    assert len(kit.claim(RELAY, 3)) == 1


def test_higher_priority_is_claimed_first(kit: Kit) -> None:
    given = {}
    for priority in (0, -9, 3, 9, 0, 3):
        given.setdefault(priority, []).append(kit.put(RELAY, envelope=urgent(priority)))
        kit.clock.advance(1)
    begin = kit.clock.seconds() - 6
    assert kit.destinations() == {RELAY: begin}
    assert ids(kit.claim(RELAY, 2)) == [given[9][0], given[3][0]]
    low = kit.claim(RELAY, 3)
    assert ids(low) == [given[3][1], *given[0]]
    assert kit.destinations() == {RELAY: begin + 1}
    kit.settle(low[0], deferred(kit.clock.seconds() + 100))
    # What is not due yet keeps nothing else from leaving.
    assert ids(kit.claim(RELAY)) == given[-9]
    assert kit.claim(RELAY) == []
    kit.clock.advance(50)
    assert kit.run(kit.spool.hurry([RELAY])) == 1
    assert ids(kit.claim(RELAY)) == [given[3][1]]


def test_priority_means_nothing_under_hold_and_comes_back_after_it(kit: Kit) -> None:
    first = kit.put(HOLD)
    kit.clock.advance(1)
    second = kit.put(HOLD, envelope=urgent(9))
    third = kit.put(HOLD, envelope=urgent(5))
    fourth = kit.put(RELAY, envelope=urgent(7))
    held = kit.claim_held(HOLD)
    assert ids(held) == [first, second, third]
    kit.run(kit.spool.move(held[1], RELAY))
    kit.run(kit.spool.release([held[0], held[2]]))
    (gone,) = kit.claim(RELAY, 1)
    assert ids([gone]) == [second]
    kit.run(kit.spool.move(gone, HOLD))
    assert ids(kit.claim_held(HOLD, limit=2)) == [first, second]
    kit.run(kit.spool.reroute(lambda *_: RELAY))
    assert ids(kit.claim(RELAY)) == [fourth, third]


def test_message_for_later_is_not_due_before_its_time(kit: Kit) -> None:
    watcher = Watcher(MAILDIR)
    kit.spool.watch(watcher)
    until = kit.clock.seconds() + 1000
    later = Envelope(SENDER, options=MessageOptions(hold_until=until))
    kit.put(MAILDIR, RELAY, HOLD, envelope=later)
    assert watcher.deliveries == []
    assert set(watcher.waiting) == {MAILDIR, RELAY}  # so that somebody asks when it is due
    assert kit.destinations() == {MAILDIR: until, RELAY: until}
    assert kit.claim(RELAY) == []
    assert len(kit.claim_held(HOLD)) == 1
    kit.clock.advance(1000)
    assert len(kit.claim(RELAY)) == 1
    past = Envelope(SENDER, options=MessageOptions(hold_until=until - 500))
    kit.put(MAILDIR, envelope=past)
    assert len(watcher.deliveries) == 1
    kit.settle(watcher.deliveries[0], DELIVERED)


def test_options_of_a_part_come_back_with_it(kit: Kit) -> None:
    targets = [
        Target(Address("a", "example.com"), RELAY, None, WISHES, OWNER, "a rule"),
        Target(Address("b", "example.com"), RELAY, SENDER),
    ]
    envelope = replace(ENVELOPE, options=OPTIONS)
    draft = kit.spool.draft()
    draft.write(b"half")
    kit.run(kit.spool.keep(draft, "1 account joe", envelope, targets, 4))
    kit.reopen()
    part = kit.run(kit.spool.resume("1 account joe"))
    assert part.envelope == envelope
    assert list(part.targets) == targets
    assert [one.rule for one in part.targets] == ["a rule", ""]
    kit.run(part.draft.commit(part.envelope, part.targets, name="1 account joe", received=4))
    whole = kit.run(kit.spool.resume("1 account joe"))
    assert (whole.envelope, list(whole.targets)) == (envelope, targets)


def test_that_a_delay_was_told_is_kept(kit: Kit) -> None:
    kit.put(target(RELAY, "a"), target(RELAY, "b"))
    (delivery,) = kit.claim(RELAY)
    until = kit.clock.seconds() + 10
    told = (delivery.recipients[1].key,)
    kit.run(kit.spool.settle([Settlement(delivery, (deferred(until),) * 2, delay_told=told)]))
    # Without a lease it is not said.
    kit.run(kit.spool.settle([Settlement(delivery, (deferred(until),) * 2, delay_told=(delivery.recipients[0].key,))]))
    kit.clock.advance(10)
    (delivery,) = kit.claim(RELAY)
    assert [one.delay_told for one in delivery.recipients] == [False, True]
    kit.settle(delivery, deferred(until), DELIVERED)
    (delivery,) = kit.claim(RELAY)
    assert [one.delay_told for one in delivery.recipients] == [False]


def test_nothing_that_is_done_to_the_queue_sends_a_message_before_its_time(kit: Kit) -> None:
    until = kit.clock.seconds() + 1000
    later = Envelope(SENDER, options=MessageOptions(hold_until=until))
    kit.put(RELAY, HOLD, envelope=later)
    for action in (QueueAction.RETRY, QueueAction.REQUEUE, QueueAction.HOLD, QueueAction.RELEASE):
        kit.run(kit.spool.manage(action, EVERYTHING, by="root"))
        assert kit.destinations() == ({} if action is QueueAction.HOLD else {RELAY: until})
    kit.run(kit.spool.hurry([RELAY]))
    assert kit.destinations() == {RELAY: until}
    kit.run(kit.spool.reroute(lambda *_: OTHER))
    assert kit.destinations() == {OTHER: until}
    kit.clock.advance(1000)
    assert len(kit.claim(OTHER)) == 1


def test_what_is_moved_waits_for_its_time(kit: Kit) -> None:
    until = kit.clock.seconds() + 1000
    kit.put(HOLD, envelope=Envelope(SENDER, options=MessageOptions(hold_until=until)))
    (held,) = kit.claim_held(HOLD)
    kit.run(kit.spool.move(held, RELAY))
    assert kit.destinations() == {RELAY: until}
