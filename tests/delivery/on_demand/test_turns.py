"""Who gets a turn, and what every other request is told (RFC 2645 section 5.2.1)."""

import gc
from ipaddress import ip_network

import pytest
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from mailsuite.interfaces import DirectoryUnavailable, IOnDemand, IQueueRun, ITurn, SpoolError
from mailsuite.mail.session import Identity, Peer
from tests.delivery.fakes import LATER, REFUSED, RELAYED
from tests.delivery.on_demand.conftest import PEER, SHIP, held, result


def drain(turn, outcome=RELAYED):
    """Settle all that the turn has, and tell the queue ids."""
    taken = []
    while (delivery := result(turn.run.next())) is not None:
        taken.append(delivery.message.queue_id)
        turn.run.settle(delivery, [outcome] * len(delivery.recipients))
    return taken


def test_interfaces(provider) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()
    assert verifyObject(IOnDemand, provider.on_demand)
    assert verifyObject(ITurn, turn)
    assert verifyObject(IQueueRun, turn.run)


def test_a_bare_request_means_all_of_the_customers_domains(provider, clock) -> None:
    ids = [provider.store("captain@ship.example"), provider.store("cook@crew.ship.example")]
    provider.store("cow@farm.example")
    turn = provider.begin()
    assert turn.customer.name == "ship"
    assert drain(turn) == ids
    turn.ended(None)
    clock.turn()
    assert result(provider.spool.count()) == 1


def test_only_the_domains_that_were_asked_for_are_sent(provider) -> None:
    provider.store("captain@ship.example")
    asked = provider.store("cook@crew.ship.example")
    assert drain(provider.begin("Crew.Ship.Example")) == [asked]


def test_one_foreign_domain_refuses_all(provider) -> None:
    provider.store("captain@ship.example")
    reply = provider.refused("ship.example", "farm.example")
    assert reply.code == 450
    assert "farm.example" in reply.text
    assert provider.begin("ship.example")


@pytest.mark.parametrize("identity", [Identity("alice"), Identity("gone", customer="gone")])
def test_an_account_that_is_no_customer_is_refused(provider, identity) -> None:
    provider.store("captain@ship.example")
    assert provider.refused(identity=identity).code == 450


def test_no_mail_is_453_and_begins_nothing(provider) -> None:
    provider.store("captain@ship.example")
    assert provider.refused("crew.ship.example").code == 453
    assert provider.begin("ship.example")


@pytest.mark.parametrize("failure", [SpoolError("on fire"), DirectoryUnavailable("locked")])
def test_what_cannot_be_told_is_451(provider, failure) -> None:
    provider.store("captain@ship.example")
    broken = provider.spool if isinstance(failure, SpoolError) else provider.customers
    broken.failure = failure
    assert provider.refused().code == 451
    broken.failure = None
    assert provider.begin()


def test_a_customer_away_from_its_networks_is_refused(provider) -> None:
    provider.store("captain@ship.example")
    provider.change("ship", networks=(ip_network("198.51.100.0/24"),))
    assert provider.refused().code == 450
    assert provider.begin(peer=Peer("::ffff:198.51.100.9"))


def test_a_second_turn_waits_for_the_end_of_the_first(provider) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()
    assert provider.refused().code == 450
    turn.ended("the line broke")
    turn.ended("twice")
    assert provider.begin()
    assert len(provider.events()) == 1


def test_shared_turns_take_their_parts(provider) -> None:
    provider.change("ship", shared_turns=True)
    for _ in range(100):
        provider.store("captain@ship.example")
    first, second = provider.begin(), provider.begin()
    taken = [result(run.next()).message.queue_id for run in (first.run, second.run) for _ in range(10)]
    assert len(set(taken)) == 20
    everything = drain(first) + drain(second)
    assert len(set(everything)) == len(everything) == 80


def test_turns_come_at_an_interval_but_after_a_broken_line(provider, clock) -> None:
    provider.change("ship", turn_interval=600)
    provider.store("captain@ship.example")
    provider.begin().ended("the line broke")
    turn = provider.begin()
    drain(turn, LATER)
    turn.ended(None)
    clock.advance(599)
    assert provider.refused().code == 450
    clock.advance(1)
    assert provider.begin()


def test_a_broken_turn_gives_its_leases_back_at_once(provider) -> None:
    ids = [provider.store("captain@ship.example") for _ in range(50)]
    turn = provider.begin()
    result(turn.run.batch(3))
    turn.ended("the line broke")
    assert provider.waiting() == ids
    assert result(turn.run.next()) is None


def test_leases_come_back_when_the_spool_works_again(provider, clock) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()
    provider.spool.failure = SpoolError("on fire")
    turn.ended("the line broke")
    provider.spool.failure = None
    assert provider.waiting() == []
    clock.advance(10)
    assert len(provider.waiting()) == 1


def test_a_turn_that_was_forgotten_is_over(provider) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()
    assert provider.refused().code == 450
    del turn
    gc.collect()
    assert provider.begin()


def test_a_request_that_is_cancelled_holds_nothing(provider) -> None:
    provider.store("captain@ship.example")
    claim, waiting = provider.spool.claim_held, Deferred()

    async def slowly(destinations, limit):
        await waiting
        return await claim(destinations, limit)

    provider.spool.claim_held = slowly
    asked = Deferred.fromCoroutine(provider.on_demand.begin_turn(SHIP, (), PEER))
    asked.cancel()
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    provider.spool.claim_held = claim
    waiting.callback(None)
    assert len(provider.waiting()) == 1
    assert provider.begin()


def test_the_event_tells_how_it_went(provider, clock) -> None:
    provider.store("captain@ship.example", "mate@ship.example")
    for _ in range(3):
        provider.store("captain@ship.example")
    turn = provider.begin()
    for outcomes in ([RELAYED, REFUSED], [RELAYED], [LATER], [REFUSED]):
        turn.run.settle(result(turn.run.next()), outcomes)
    clock.advance(12.5)
    turn.ended(None)
    [event] = provider.events()
    assert event.subject == "ship"
    assert event.detail["messages"] == 2
    assert event.detail["octets"] > 100
    assert (event.detail["deferred"], event.detail["failed"], event.detail["seconds"]) == (1, 2, 12.5)
    assert (event.detail["address"], event.detail["complete"]) == ("192.0.2.7", True)


def test_the_event_tells_what_broke_it(provider) -> None:
    provider.store("captain@ship.example")
    provider.begin().ended("the line broke")
    [event] = provider.events()
    assert (event.detail["messages"], event.detail["complete"], event.detail["text"]) == (0, False, "the line broke")


def test_a_history_that_fails_does_not_spoil_the_turn(provider) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()

    async def record(events):
        raise SpoolError("on fire")

    provider.spool.record = record
    turn.ended(None)
    assert provider.begin()


def test_what_the_last_turn_left_is_waited_for(provider, clock) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()
    turn.run.settle(result(turn.run.next()), [LATER])
    turn.ended("the line broke")
    again = []
    Deferred.fromCoroutine(provider.on_demand.begin_turn(SHIP, (), PEER)).addCallback(again.append)
    assert again == []
    clock.turn()
    [turn] = again
    assert result(turn.run.next()).destination == held("ship.example")


def test_stopping_waits_for_nobody(provider) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()
    provider.on_demand.startService()
    turn.ended("stopped")
    assert provider.on_demand.stopService().called


def lose_customer(provider):
    del provider.customers.known["ship"]


def lose_domain(provider):
    provider.change("ship", domains=("crew.ship.example",))


@pytest.mark.parametrize(
    ("lose", "why"), [(lose_customer, "the customer is gone"), (lose_domain, "ship.example is not held for")]
)
def test_who_is_a_customer_no_more_gets_no_more(provider, lose, why) -> None:
    for _ in range(100):
        provider.store("captain@ship.example")
    turn = provider.begin()
    turn.run.settle(result(turn.run.next()), [RELAYED])
    lose(provider)
    assert len(drain(turn)) == 31  # what was claimed with the first
    turn.ended(None)
    [event] = provider.events()
    assert event.detail["complete"] is False
    assert event.detail["text"].startswith(why)
    assert len(provider.waiting("ship.example")) == 68


def test_a_directory_that_cannot_be_read_breaks_no_turn(provider) -> None:
    for _ in range(100):
        provider.store("captain@ship.example")
    turn = provider.begin()
    provider.customers.failure = DirectoryUnavailable("locked")
    assert len(drain(turn)) == 100


def test_mail_of_a_customer_that_was_deleted_is_there_when_it_is_added_again(provider) -> None:
    queue_id = provider.store("captain@ship.example")
    ship = provider.customers.known.pop("ship")
    result(provider.spool.reroute(provider.router.rerouted))  # as at a restart
    assert provider.queued_elsewhere("ship.example") == []
    provider.customers.known["ship"] = ship
    assert drain(provider.begin()) == [queue_id]


def test_a_turn_that_ended_short_is_not_complete(provider, clock) -> None:
    provider.on_demand = provider.make(turn_messages=2)
    provider.change("ship", turn_interval=600)
    ids = [provider.store("captain@ship.example") for _ in range(3)]
    turn = provider.begin()
    assert drain(turn) == ids[:2]
    turn.ended(None)
    clock.turn()
    turn = provider.begin()
    assert drain(turn) == ids[2:]
    turn.ended(None)
    provider.store("captain@ship.example")
    assert provider.refused().code == 450


def test_turns_that_break_at_once_are_noted_once_a_minute(provider, clock) -> None:
    provider.store("captain@ship.example")
    provider.store("cow@farm.example")
    for number in range(100):
        provider.begin().ended(f"broke {number}")
        clock.advance(0.5)
    provider.begin(identity=Identity("farm", customer="farm")).ended("another")
    clock.advance(100)
    noted = [(one.subject, one.detail["times"], one.detail["text"]) for one in reversed(provider.events())]
    assert noted == [("ship", 1, "broke 0"), ("farm", 1, "another"), ("ship", 99, "broke 99")]
    clock.advance(1000)
    assert len(provider.events()) == 3
    provider.begin().ended("much later")
    assert len(provider.events()) == 4


def test_a_turn_that_came_to_something_is_noted_behind_those_that_did_not(provider, clock) -> None:
    provider.store("captain@ship.example")
    for number in range(3):
        provider.begin().ended(f"broke {number}")
    turn = provider.begin()
    drain(turn)
    turn.ended(None)
    noted = [(one.detail.get("times"), one.detail["text"]) for one in reversed(provider.events())]
    assert noted == [(1, "broke 0"), (2, "broke 2"), (None, "all was sent")]


def test_stopping_notes_what_was_gathered(provider, clock) -> None:
    provider.store("captain@ship.example")
    provider.on_demand.startService()
    for number in range(3):
        provider.begin().ended(f"broke {number}")
    assert provider.on_demand.stopService().called
    assert [one.detail["times"] for one in provider.events()] == [2, 1]
    assert clock.getDelayedCalls() == []


def test_the_event_is_plain_text(provider) -> None:
    provider.store("captain@ship.example")
    provider.begin().ended("said: 554 \u202etxt.exe\u2066\x1b[2J")
    [event] = provider.events()
    assert event.detail["text"] == "said: 554  txt.exe  [2J"
