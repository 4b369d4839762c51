"""How held mail ends that nobody collects, and who is warned before."""

from email import message_from_bytes

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.on_demand.holding import Holding
from mailsuite.interfaces import DirectoryUnavailable, SpoolError
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.history import EventKind
from tests.delivery.on_demand.conftest import held, result

DAY = 86400.0
SENDER = Address("someone", "far.example")
CONTACT = parse_mailbox("owner@far.example")


@pytest.fixture
def begin(provider, clock):
    begun = []

    def begin():
        holding = Holding(
            provider.customers,
            provider.router,
            provider.spool,
            provider.settlements,
            clock,
            hostname="mx.here.example",
        )
        holding.startService()
        clock.turn()
        begun.append(holding)
        return holding

    yield begin
    for holding in begun:
        if holding.running:
            assert holding.stopService().called


def wait(clock, seconds):
    """Let time pass in steps of an hour."""
    clock.pump([3600.0] * round(seconds / 3600))
    clock.turn()


def test_mail_goes_back_when_its_time_is_over(provider, begin, clock) -> None:
    provider.store("captain@ship.example", sender=SENDER)
    begin()
    wait(clock, 20.9 * DAY)
    assert len(provider.waiting()) == 1
    wait(clock, DAY / 4)
    assert provider.waiting() == []
    [report] = provider.queued_elsewhere("far.example")
    status = list(message_from_bytes(report.content.in_memory()).walk())[2].get_payload()[1]
    assert (status["Action"], status["Status"]) == ("failed", "4.4.7")
    assert b"Held for 21 days and not collected" in report.content.in_memory()
    [event] = provider.events(EventKind.EXPIRED)
    assert (event.subject, event.detail["domain"]) == ("ship", "ship.example")
    assert event.queue_id is not None


def test_it_goes_back_on_time(provider, begin, clock) -> None:
    provider.change("ship", hold_time=100)
    provider.store("captain@ship.example", sender=None)
    clock.advance(10)
    begin()
    clock.advance(89)
    assert len(provider.waiting()) == 1
    clock.advance(2)
    clock.turn()
    assert provider.waiting() == []


def test_each_customer_has_its_own_time(provider, begin, clock) -> None:
    provider.change("ship", hold_time=2 * DAY)
    provider.store("captain@ship.example")
    cow = provider.store("cow@farm.example")
    provider.store("x@orphan.example")
    begin()
    wait(clock, 3 * DAY)
    assert provider.waiting() == [cow]
    assert len(provider.waiting("orphan.example")) == 1
    wait(clock, 19 * DAY)
    assert provider.waiting("farm.example", "orphan.example") == []


def test_a_null_sender_is_told_nothing(provider, begin, clock) -> None:
    provider.change("ship", hold_time=DAY)
    provider.store("captain@ship.example", sender=None)
    begin()
    wait(clock, 2 * DAY)
    assert result(provider.spool.count()) == 0


def test_many_expire_and_the_young_stay(provider, begin, clock) -> None:
    provider.change("ship", hold_time=DAY)
    for _ in range(45):
        provider.store("captain@ship.example", sender=None)
    clock.advance(DAY - 100)
    young = [provider.store("captain@ship.example") for _ in range(3)]
    clock.advance(200)
    begin()
    wait(clock, 3600)
    assert provider.waiting() == young
    assert len(provider.events(EventKind.EXPIRED)) == 45


def test_what_cannot_be_reported_now_stays_for_the_next_look(provider, begin, clock) -> None:
    provider.change("ship", hold_time=DAY)
    provider.store("captain@ship.example", sender=SENDER)
    clock.advance(2 * DAY)
    resolve = provider.router.resolve

    async def unavailable(*_args, **_how):
        raise DirectoryUnavailable("locked")

    provider.router.resolve = unavailable
    begin()
    assert len(provider.waiting()) == 1
    provider.router.resolve = resolve
    wait(clock, 3600)
    assert provider.waiting() == []
    assert len(provider.queued_elsewhere("far.example")) == 1


def test_mail_on_its_way_is_left_alone(provider, begin, clock) -> None:
    provider.change("ship", hold_time=DAY)
    provider.store("captain@ship.example", sender=None)
    turn = provider.begin()
    clock.advance(2 * DAY)
    begin()
    assert result(provider.spool.count()) == 1
    turn.ended("the line broke")
    wait(clock, 3600)
    assert result(provider.spool.count()) == 0


def letters(provider):
    return result(provider.spool.claim(provider.router.destination(CONTACT), 100))


def test_the_contact_is_warned_once_for_each_message(provider, begin, clock) -> None:
    provider.change("ship", contact=CONTACT)
    first = provider.store("captain@ship.example", sender=SENDER)
    provider.store("cow@farm.example")
    begin()
    wait(clock, 17.9 * DAY)
    second = provider.store("captain@ship.example", sender=SENDER)
    assert letters(provider) == []
    wait(clock, DAY)
    [letter] = letters(provider)
    content = letter.content.in_memory()
    head = message_from_bytes(content)
    assert letter.message.envelope.reverse_path is None
    assert (head["To"], head["Auto-Submitted"]) == ("<owner@far.example>", "auto-generated")
    assert "1 message for ship" in head["Subject"]
    assert first.encode() in content
    assert second.encode() not in content
    wait(clock, DAY)
    assert letters(provider) == []
    [event] = provider.events(EventKind.WARNED)
    assert (event.subject, event.detail["messages"]) == ("ship", 1)


def test_a_restart_does_not_warn_twice(provider, begin, clock) -> None:
    provider.change("ship", contact=CONTACT)
    provider.store("captain@ship.example")
    clock.advance(19 * DAY)
    begin().stopService()
    assert len(letters(provider)) == 1
    late = provider.store("captain@ship.example")
    begin()
    assert letters(provider) == []
    wait(clock, 19 * DAY)
    [letter] = letters(provider)
    assert late.encode() in letter.content.in_memory()


def test_one_letter_tells_of_all_and_lists_some(provider, begin, clock) -> None:
    provider.change("ship", contact=CONTACT)
    for number in range(600):
        provider.store(f"user{number}@{'crew.' if number % 2 else ''}ship.example", sender=None)
        clock.advance(0.01)
    clock.advance(19 * DAY)
    begin()
    [letter] = letters(provider)
    content = letter.content.in_memory()
    assert b"Subject: 600 messages for ship" in content
    assert b"and 550 more" in content
    assert content.count(b"is held until") == 50


@pytest.mark.parametrize("fields", [{}, {"contact": CONTACT, "warning_time": 0.0}])
def test_without_a_contact_or_a_time_nobody_is_warned(provider, begin, clock, fields) -> None:
    provider.change("ship", **fields)
    provider.store("captain@ship.example", sender=None)
    begin()
    wait(clock, 22 * DAY)
    assert letters(provider) == []
    assert provider.events(EventKind.WARNED) == []


def test_a_contact_that_is_refused_does_not_stop_the_rest(provider, begin, clock) -> None:
    provider.change("ship", contact=parse_mailbox("nobody@here.example"), hold_time=5 * DAY)
    provider.store("captain@ship.example", sender=None)
    begin()
    wait(clock, 6 * DAY)
    assert result(provider.spool.count()) == 0


def test_it_can_be_stopped_in_the_midst_of_a_look(provider, begin) -> None:
    provider.spool.held = Deferred
    assert begin().stopService().called


def test_a_spool_that_fails_is_looked_at_again(provider, begin, clock) -> None:
    provider.change("ship", hold_time=DAY)
    provider.store("captain@ship.example", sender=None)
    clock.advance(2 * DAY)
    provider.spool.failure = SpoolError("on fire")
    begin()
    provider.spool.failure = None
    assert len(provider.waiting()) == 1
    wait(clock, 3600)
    assert provider.waiting() == []
    assert result(provider.spool.claim_held([held("ship.example")], 1)) == []


def test_who_is_to_be_warned_before_there_is_anything_is_warned_of_all(provider, begin, clock) -> None:
    provider.change("ship", contact=CONTACT, hold_time=5 * DAY, warning_time=9 * DAY)
    first = provider.store("captain@ship.example", sender=None)
    begin()
    clock.advance(DAY)
    second = provider.store("captain@ship.example", sender=None)
    wait(clock, DAY)
    contents = [letter.content.in_memory() for letter in letters(provider)]
    assert [first.encode() in one for one in contents] == [True, False]
    assert [second.encode() in one for one in contents] == [False, True]


def test_all_that_arrived_at_one_moment_is_warned_of(provider, begin, clock) -> None:
    provider.change("ship", contact=CONTACT)
    for arrived_together in (499, 1100, 3):
        for _ in range(arrived_together):
            provider.store("captain@ship.example", sender=None)
        clock.advance(1)
    clock.advance(19 * DAY)
    begin()
    [letter] = letters(provider)
    assert b"Subject: 1602 messages for ship" in letter.content.in_memory()


def test_what_is_held_for_a_customer_that_is_gone_has_three_weeks(provider, begin, clock) -> None:
    provider.change("ship", hold_time=DAY)
    provider.store("captain@ship.example", sender=None)
    del provider.customers.known["ship"]
    begin()
    wait(clock, 20.9 * DAY)
    assert len(provider.waiting("ship.example")) == 1
    wait(clock, DAY / 4)
    assert provider.waiting("ship.example") == []
