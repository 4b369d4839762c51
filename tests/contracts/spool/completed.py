"""Transactions with a name that were completed: known until their end was heard, or for a time."""

import pytest

from mailsuite.interfaces import SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.partial import Completed
from tests.contracts.spool.kit import ENVELOPE, HOLD, KEPT, LARGE, RELAY, Kit, target
from tests.contracts.spool.parts import OCTETS, begin, resume


def complete(kit: Kit, name: str, size: int = 10, received: int = 7) -> str:
    """Commit a message with a name; its queue id."""
    draft = begin(kit, OCTETS[:size])
    kit.run(draft.commit(ENVELOPE, [target(RELAY)], name=name, received=received))
    return str(draft.queue_id)


def known(kit: Kit, name: str) -> Completed | None:
    found = kit.run(kit.spool.resume(name))
    assert found is None or isinstance(found, Completed)
    return found


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("size", [0, 10, 50 * LARGE])
def test_completed_transaction_is_known(kit: Kit, size: int, *, reopened: bool) -> None:
    envelope = Envelope(Address("jürgen q", "bücher.example"), Body.EIGHT_BIT, smtputf8=True, submitter="joe")
    targets = (target(RELAY, "fred", Address("team", "example.com")), target(HOLD, "Ünal"))
    draft = begin(kit, OCTETS[:size])
    kit.run(draft.commit(envelope, targets, name="a", received=5))
    null = begin(kit, b"x")
    kit.run(null.commit(Envelope(None), targets, name="b", received=1))
    if reopened:
        kit.reopen()
    for _ in range(2):  # it stays
        assert known(kit, "a") == Completed(draft.queue_id, envelope, targets, 5)
    assert known(kit, "b") == Completed(null.queue_id, Envelope(None), targets, 1)
    assert known(kit, "c") is None
    assert kit.count() == 2
    (delivery, _) = kit.claim(RELAY)
    assert kit.content(delivery) == OCTETS[:size]


def test_message_without_a_name_is_not_known(kit: Kit) -> None:
    kit.put(RELAY)
    assert known(kit, "") is None


@pytest.mark.parametrize("reopened", [False, True])
def test_what_was_heard_is_forgotten(kit: Kit, *, reopened: bool) -> None:
    for name in "abc":
        complete(kit, name)
    kit.run(kit.spool.heard(["a", "b", "nobody"]))
    kit.run(kit.spool.heard([]))
    if reopened:
        kit.reopen()
    assert [known(kit, name) is None for name in "abc"] == [True, True, False]
    assert kit.count() == 3


def test_message_that_could_not_be_committed_is_not_complete(kit: Kit) -> None:
    draft = begin(kit, b"Hello")
    draft.abort()
    with pytest.raises(SpoolError):
        kit.run(draft.commit(ENVELOPE, [target(RELAY)], name="a", received=5))
    draft = begin(kit, b"Hello")
    with pytest.raises(ValueError, match="recipients"):
        kit.run(draft.commit(ENVELOPE, [], name="a", received=5))
    assert known(kit, "a") is None


@pytest.mark.parametrize("size", [10, 50 * LARGE])
def test_part_that_was_finished_is_complete(kit: Kit, size: int) -> None:
    draft = begin(kit, OCTETS[:size])
    kit.run(kit.spool.keep(draft, "a", ENVELOPE, [target(RELAY)], size))
    part = resume(kit, "a")
    assert part is not None
    kit.run(part.draft.commit(part.envelope, part.targets, name="a", received=part.received))
    kit.reopen()
    assert known(kit, "a") == Completed(draft.queue_id, ENVELOPE, (target(RELAY),), size)
    kit.run(kit.spool.forget("a"))  # that is for parts
    assert known(kit, "a") is not None


def test_name_that_is_used_again_is_the_last_one(kit: Kit) -> None:
    complete(kit, "a", received=1)
    last = complete(kit, "a", received=2)
    kit.reopen()
    found = known(kit, "a")
    assert found is not None
    assert (found.queue_id, found.received) == (last, 2)
    kit.run(kit.spool.heard(["a"]))
    kit.reopen()
    assert known(kit, "a") is None


@pytest.mark.parametrize("reopened", [False, True])
def test_completed_transactions_are_known_for_a_set_time(kit: Kit, *, reopened: bool) -> None:
    complete(kit, "a")
    kit.clock.advance(KEPT["partials_time"] - 1)
    complete(kit, "b")
    assert known(kit, "a") is not None
    kit.clock.advance(2)
    if reopened:
        kit.reopen()
    assert known(kit, "a") is None
    assert known(kit, "b") is not None


@pytest.mark.parametrize("reopened", [False, True])
def test_oldest_of_too_many_goes(kit: Kit, *, reopened: bool) -> None:
    for number in range(7):
        complete(kit, str(number))
        kit.clock.advance(1)
    if reopened:
        kit.reopen()
    assert [known(kit, str(number)) is None for number in range(7)] == [True, True, *[False] * 5]
    assert kit.count() == 7


def test_completed_transactions_and_parts_are_bounded_apart(kit: Kit) -> None:
    for number in range(5):
        complete(kit, str(number))
        kit.run(kit.spool.keep(begin(kit, b"part"), f"part {number}", ENVELOPE, [target(RELAY)], 4))
    for number in range(5):
        assert known(kit, str(number)) is not None
        part = resume(kit, f"part {number}")
        assert part is not None
        part.draft.abort()
