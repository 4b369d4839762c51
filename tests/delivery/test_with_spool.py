"""Router, scheduler and bounces together, over the spool that lives in memory."""

import random
from email import message_from_bytes

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.bounces import ReportSettings
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Route, Routes
from mailsuite.delivery.scheduler import Scheduler, SchedulerSettings
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import EventKind
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import MAILDIR, RELAY, Destination
from mailsuite.mail.selection import EVERYTHING, QueueAction, QueueState, Selection
from mailsuite.mail.status import EnhancedStatus
from mailsuite.spool.memory import MemorySpool
from tests.delivery.fakes import DEAD, REFUSED, RELAYED, FakeAgent, FakeDirectory

DELIVERED = Outcome(Result.DELIVERED, EnhancedStatus(2, 1, 5), "Delivered")
ALICE, BOB = Address("alice", "here.example"), Address("bob", "far.example")
CONTENT = b"Message-ID: <1@here.example>\r\nSubject: hello\r\n\r\nbody\r\n"


class House:
    """One server: local mail ends in `mailboxes`; what relaying comes to is set by `relaying`."""

    def __init__(self, clock):
        self.clock = clock
        self.mailboxes = []
        self.relayed = []
        self.relaying = RELAYED
        self.spool = MemorySpool(clock)
        directory = FakeDirectory({"here.example"}, {"alice@here.example"})
        self.router = Router(directory, Routes([Route("held.example", hold=True)]))
        self.scheduler = self.start()

    def start(self):
        scheduler = Scheduler(
            self.spool,
            [FakeAgent(self.deliver, name=MAILDIR), FakeAgent(self.relay)],
            self.router,
            self.clock,
            hostname="mx.here.example",
            chance=random.Random(1).random,
            settings=SchedulerSettings(RetrySchedule(first=60, jitter=0), reports=ReportSettings(gather=0.0)),
        )
        scheduler.startService()
        self.clock.turn()
        return scheduler

    async def deliver(self, run):
        while batch := await run.batch(10):
            for delivery in batch:
                self.mailboxes.append(delivery)
                run.settle(delivery, [DELIVERED] * len(delivery.recipients))

    async def relay(self, run):
        if self.relaying is DEAD:
            run.fail(DEAD)
            return
        while (delivery := await run.next()) is not None:
            self.relayed.append(delivery)
            run.settle(delivery, [self.relaying] * len(delivery.recipients))

    def send(self, *recipients, sender=ALICE):
        async def send():
            targets = []
            for recipient in recipients:
                targets += await self.router.resolve(recipient, None, trusted=True)
            draft = self.spool.draft()
            draft.write(CONTENT)
            await draft.commit(Envelope(sender), targets)

        sent = Deferred.fromCoroutine(send())
        self.clock.turn()
        assert sent.called

    def queued(self):
        counted = []
        Deferred.fromCoroutine(_await(self.spool.count())).addCallback(counted.append)
        return counted[0]


async def _await(awaitable):
    return await awaitable


@pytest.fixture
def house(clock):
    house = House(clock)
    yield house
    house.scheduler.stopService()
    clock.pump([1.0] * 5)


def test_local_and_remote_recipients_of_one_message_each_take_their_way(house) -> None:
    house.send(ALICE, BOB)
    assert [one.recipients[0].address for one in house.mailboxes] == [ALICE]
    assert [one.recipients[0].address for one in house.relayed] == [BOB]
    assert house.queued() == 0


def test_a_refusal_comes_back_to_the_sender_as_a_report(house) -> None:
    house.relaying = REFUSED
    house.send(BOB)
    [report] = house.mailboxes
    assert report.message.envelope.reverse_path is None
    assert report.recipients[0].address == ALICE
    content = message_from_bytes(report.content.in_memory())
    assert content.get_content_type() == "multipart/report"
    assert content["Auto-Submitted"] == "auto-replied"
    assert b"Subject: hello" in report.content.in_memory()
    assert house.queued() == 0


def test_a_report_that_cannot_be_delivered_ends_there(house) -> None:
    house.relaying = REFUSED
    house.send(BOB, sender=Address("carol", "elsewhere.example"))
    assert len(house.relayed) == 2
    assert house.relayed[1].message.envelope.reverse_path is None
    assert house.mailboxes == []
    assert house.queued() == 0


def test_what_is_held_stays(house, clock) -> None:
    house.send(Address("x", "held.example"))
    clock.pump([60.0] * 60)
    assert house.relayed == []
    assert house.queued() == 1


def test_mail_for_a_host_that_is_down_arrives_when_it_is_up(house, clock) -> None:
    house.relaying = DEAD
    for _ in range(20):
        house.send(BOB)
    clock.pump([10.0] * 30)
    assert house.queued() == 20
    house.relaying = RELAYED
    clock.pump([10.0] * 60)
    assert len(house.relayed) == 20
    assert house.queued() == 0


def test_one_recipient_of_several_is_given_up_and_the_others_are_not(house, clock) -> None:
    house.relaying = DEAD
    house.send(BOB, Address("carol", "far.example"))
    clock.turn()
    managed = house.spool.manage(QueueAction.EXPIRE, Selection(recipient="bob@far.example"), by="root")
    clock.turn()
    assert managed.result.recipients == 1
    house.relaying = RELAYED
    house.scheduler.wake([Destination(RELAY, "far.example")])
    clock.turn()
    assert house.relayed == []
    assert len(house.mailboxes) == 1
    clock.pump([10.0] * 10)
    assert [one.recipients[0].address.local_part for one in house.relayed] == ["carol"]
    [report] = house.mailboxes
    assert b"bob@far.example" in report.content.in_memory()
    assert house.queued() == 0


def test_a_defect_leaves_its_message_on_hold_with_the_traceback_in_its_history(house, clock) -> None:
    async def raise_once(run):
        await run.next()
        raise RuntimeError("a defect")

    house.scheduler._agents[RELAY].act = raise_once  # noqa: SLF001 - the agent has a defect from now on
    house.send(BOB)
    clock.pump([60.0] * 60)
    assert house.queued() == 1
    [message] = house.spool.select(EVERYTHING, 10).result
    assert [one.state for one in message.recipients] == [QueueState.ON_HOLD]
    events = house.spool.history(queue_id=message.message.queue_id).result
    [fault] = [event for event in events if event.kind is EventKind.FAULT]
    assert "RuntimeError: a defect" in fault.detail["traceback"]


def test_what_was_under_way_at_a_crash_is_delivered_after_the_restart(house, clock) -> None:
    async def hang(run):
        await run.batch(10)
        await Deferred()

    deliver, house.deliver = house.deliver, hang
    house.scheduler._agents[MAILDIR].act = hang  # noqa: SLF001 - the agent hangs from now on
    house.send(ALICE)
    house.scheduler.running = 0
    house.spool.stop()
    clock.pump([0.1] * 5)
    house.spool.start()
    house.deliver = deliver
    house.scheduler = house.start()
    clock.pump([1.0] * 5)
    [delivery] = house.mailboxes
    assert delivery.replayed
    assert house.queued() == 0
