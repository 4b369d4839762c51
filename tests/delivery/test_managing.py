"""What an operator does with the queue while it is worked on."""

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mailsuite.delivery.managing import Managing
from mailsuite.interfaces import SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import EventKind
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.selection import EVERYTHING, Managed, QueueAction, QueueState, Selection
from mailsuite.spool.memory import MemorySpool

SLOW, OTHER = Destination("relay", "slow.test"), Destination("relay", "other.test")


def now(awaitable):
    """What is there at once."""
    results = []

    async def wait():
        return await awaitable

    Deferred.fromCoroutine(wait()).addBoth(results.append)
    [result] = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


class FakeScheduler:
    """Has claimed some deliveries: those `ready` are given back when they are withdrawn, those under way are not."""

    def __init__(self, spool):
        self.spool = spool
        self.ready = []
        self.withdrawn = []
        self.woken = []
        self.claims_again = 0

    def withdraw(self, ids=None):
        ids = list(ids)
        self.withdrawn.append(ids)
        taken = [one for one in self.ready if one.message.queue_id in ids]
        self.ready = [one for one in self.ready if one not in taken]
        now(self.spool.release(taken))
        if self.claims_again:
            self.claims_again -= 1
            self.ready += now(self.spool.claim(SLOW, 1))
        return succeed(len(taken))

    def wake(self, destinations):
        self.woken.append(set(destinations))

    def status(self):
        return ["as it stands"]


class House:
    """A memory spool, a scheduler, and routes that may change."""

    def __init__(self):
        self.clock = Clock()
        self.clock.advance(1e9)
        self.spool = MemorySpool(self.clock)
        self.scheduler = FakeScheduler(self.spool)
        self.hosts_woken = 0
        self.routes = {}
        self.managing = Managing(self.spool, self.scheduler, self.reroute, wake_hosts=self.wake_hosts)

    def wake_hosts(self):
        self.hosts_woken += 1

    def reroute(self, address, present, sender):
        return self.routes.get(address.domain, present)

    def put(self, *destinations):
        draft = self.spool.draft()
        targets = [Target(Address("user", one.name), one) for one in destinations]
        now(draft.commit(Envelope(Address("bob", "example.net")), targets))
        return draft.queue_id

    def claim(self, destination, limit=1):
        return now(self.spool.claim(destination, limit))

    def do(self, action, selection=EVERYTHING):
        return now(self.managing.manage(action, selection, by="carol"))

    def states(self):
        queued = now(self.spool.select(EVERYTHING, 100))
        return [recipient.state for one in queued for recipient in one.recipients]


@pytest.fixture
def house():
    return House()


@pytest.mark.parametrize("action", [QueueAction.HOLD, QueueAction.DELETE, QueueAction.EXPIRE, QueueAction.REQUEUE])
def test_what_is_ready_is_taken_back_and_what_is_under_way_is_left(house, action):
    ready, under_way, waiting = house.put(SLOW), house.put(SLOW), house.put(OTHER)
    house.scheduler.ready += house.claim(SLOW)
    house.claim(SLOW)
    assert house.do(action) == Managed(2, 2, 1)
    assert house.scheduler.withdrawn[0] == [ready, under_way]
    events = [event for one in (ready, waiting) for event in now(house.spool.history(queue_id=one))]
    assert [(event.subject, event.detail["by"]) for event in events if event.kind is EventKind.MANAGED] == [
        (action.value, "carol")
    ] * 2


@pytest.mark.parametrize("action", [QueueAction.RETRY, QueueAction.RELEASE])
def test_what_is_ready_stays_so_where_it_is_to_be_tried_anyway(house, action):
    house.put(SLOW)
    house.scheduler.ready += house.claim(SLOW)
    house.do(action)
    assert house.scheduler.withdrawn == []
    assert house.states() == [QueueState.ACTIVE]


def test_what_is_claimed_again_meanwhile_is_taken_back_again(house):
    house.put(SLOW)
    house.scheduler.ready += house.claim(SLOW)
    house.scheduler.claims_again = 1
    assert house.do(QueueAction.HOLD) == Managed(1, 1)
    assert house.states() == [QueueState.ON_HOLD]
    assert len(house.scheduler.withdrawn) == 2


def test_there_is_an_end_to_that(house):
    house.put(SLOW)
    house.scheduler.ready += house.claim(SLOW)
    house.scheduler.claims_again = 100
    assert house.do(QueueAction.HOLD) == Managed(0, 0, 1)


def test_what_is_active_is_meant_even_when_it_is_not_any_more(house):
    house.put(SLOW)
    house.put(OTHER)
    house.scheduler.ready += house.claim(SLOW)
    assert house.do(QueueAction.HOLD, Selection(state=QueueState.ACTIVE)) == Managed(1, 1)
    assert house.states() == [QueueState.ON_HOLD, QueueState.DUE]
    assert house.do(QueueAction.HOLD, Selection(state=QueueState.ACTIVE)) == Managed(0, 0)


def test_nothing_is_taken_back_for_what_is_not_active(house):
    house.put(SLOW)
    house.do(QueueAction.HOLD)
    house.put(SLOW)
    house.scheduler.ready += house.claim(SLOW)
    assert house.do(QueueAction.DELETE, Selection(state=QueueState.ON_HOLD)) == Managed(1, 1)
    assert house.states() == [QueueState.ACTIVE]
    assert house.scheduler.withdrawn == []


@pytest.mark.parametrize("action", [QueueAction.RETRY, QueueAction.EXPIRE, QueueAction.REQUEUE])
def test_destinations_of_what_is_due_now_are_woken_and_no_others(house, action):
    queue_id = house.put(SLOW)
    house.put(OTHER)
    house.do(action, Selection((queue_id,)))
    assert house.scheduler.woken == [{SLOW}]
    assert house.hosts_woken == 1


def test_nobody_is_woken_for_nothing(house):
    house.put(SLOW)
    house.do(QueueAction.HOLD)
    house.do(QueueAction.RETRY, Selection(("NOBODY",)))
    assert house.scheduler.woken == []
    assert house.hosts_woken == 0


def test_requeued_mail_asks_the_router_anew_and_other_mail_does_not(house):
    queue_id = house.put(SLOW)
    house.put(OTHER)
    house.routes = {"slow.test": Destination("relay", "[new.test]:25"), "other.test": Destination("discard")}
    assert house.do(QueueAction.REQUEUE, Selection((queue_id,))) == Managed(1, 1)
    queued = now(house.spool.select(EVERYTHING, 10))
    assert [str(one.recipients[0].destination) for one in queued] == ["relay:[new.test]:25", "relay:other.test"]


def test_a_spool_that_fails_is_told(house):
    house.put(SLOW)
    house.spool.failure = SpoolError("it does not work")
    with pytest.raises(SpoolError, match="it does not work"):
        house.do(QueueAction.HOLD)


def test_the_schedulers_status_is_passed_on(house):
    assert house.managing.status() == ["as it stands"]


@pytest.mark.parametrize("action", [QueueAction.DELETE, QueueAction.EXPIRE, QueueAction.REQUEUE])
def test_what_is_active_is_those_recipients_and_no_others_of_the_message(house, action):
    house.put(SLOW, OTHER)
    house.scheduler.ready += house.claim(SLOW)
    house.do(QueueAction.HOLD, Selection(destination=OTHER))
    assert house.do(action, Selection(state=QueueState.ACTIVE)) == Managed(1, 1)
    left = [one for message in now(house.spool.select(EVERYTHING, 9)) for one in message.recipients]
    assert [one.state for one in left if one.destination == OTHER] == [QueueState.ON_HOLD]


def test_what_is_active_and_under_way_is_busy(house):
    house.put(SLOW, OTHER)
    house.claim(SLOW)
    assert house.do(QueueAction.DELETE, Selection(state=QueueState.ACTIVE)) == Managed(0, 0, 1)
    assert house.states() == [QueueState.ACTIVE, QueueState.DUE]


def test_a_requeue_that_nobody_waits_for_any_more_is_done_all_the_same(house):
    house.routes = {"slow.test": OTHER}
    house.put(SLOW)
    manage, gate = house.spool.manage, Deferred()

    def slowly(*args, **kwargs):
        done = manage(*args, **kwargs)
        answer = Deferred()
        gate.addCallback(lambda _: None if answer.called else done.chainDeferred(answer))
        return answer

    house.spool.manage = slowly
    waiting = Deferred.fromCoroutine(house.managing.manage(QueueAction.REQUEUE, EVERYTHING, by="carol"))
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    gate.callback(None)
    [found] = now(house.spool.select(EVERYTHING, 9))
    assert found.recipients[0].destination == OTHER
    assert house.scheduler.woken == [{SLOW, OTHER}]


def test_destinations_that_are_new_are_woken_too(house):
    house.routes = {"slow.test": OTHER}
    house.put(SLOW)
    house.do(QueueAction.REQUEUE)
    assert house.scheduler.woken == [{SLOW, OTHER}]
