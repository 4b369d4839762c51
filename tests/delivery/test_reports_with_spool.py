"""Reports in the queue of a whole house: routed, delivered, and told in the history of their messages."""

import random

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.bounces import ReportSettings
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Routes
from mailsuite.delivery.scheduler import Scheduler, SchedulerSettings
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import EventKind
from mailsuite.mail.options import MessageOptions, Notify, RecipientOptions
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import MAILDIR, Target
from mailsuite.mail.status import EnhancedStatus
from mailsuite.spool.memory import MemorySpool
from tests.delivery.fakes import DEAD, RELAYED, FakeAgent, FakeDirectory
from tests.reports import read_report

DELIVERED = Outcome(Result.DELIVERED, EnhancedStatus(2, 1, 5), "Delivered")
UNKNOWN = Outcome.of_reply(Reply.make(550, "5.1.1", "Unknown"), "mx.far.example")
ALICE = Address("alice", "here.example")
FAR = [Address("bob", f"far{number}.example") for number in range(3)]
CONTENT = b"Message-ID: <1@here.example>\r\nSubject: hello\r\n\r\nbody\r\n"


class House:
    """One server whose relayed mail comes to `relaying`, by domain; local mail lies in `mailbox`."""

    def __init__(self, clock):
        self.clock = clock
        self.mailbox = []
        self.relaying = {}
        self.spool = MemorySpool(clock)
        self.router = Router(FakeDirectory({"here.example"}, {"alice@here.example"}), Routes())
        self.scheduler = Scheduler(
            self.spool,
            [FakeAgent(self.deliver, name=MAILDIR), FakeAgent(self.relay)],
            self.router,
            clock,
            hostname="mx.here.example",
            chance=random.Random(1).random,
            settings=SchedulerSettings(RetrySchedule(jitter=0), reports=ReportSettings()),
        )
        self.scheduler.startService()
        clock.turn()

    async def deliver(self, run):
        while batch := await run.batch(10):
            for delivery in batch:
                self.mailbox.append(delivery)
                run.settle(delivery, [DELIVERED] * len(delivery.recipients))

    async def relay(self, run):
        outcome = self.relaying.get(run.destination.name, RELAYED)
        if outcome is DEAD:
            run.fail(DEAD)
            return
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [outcome] * len(delivery.recipients))

    def send(self, *recipients, notify=None, options=None):
        draft = self.spool.draft()
        draft.write(CONTENT)
        wishes = RecipientOptions(notify)
        targets = [Target(one, self.router.destination(one), options=wishes) for one in recipients]
        draft.commit(Envelope(ALICE, options=options or MessageOptions()), targets)
        self.clock.turn()
        return draft.queue_id

    def reports(self):
        return [read_report(one.content.in_memory()) for one in self.mailbox]

    def steps(self, queue_id):
        """The steps of a message, the first one first."""
        return list(reversed(result(self.spool.history(queue_id=queue_id))))


def result(awaitable):
    found = []

    async def wait():
        found.append(await awaitable)

    Deferred.fromCoroutine(wait())
    return found[0]


@pytest.fixture
def house(clock):
    house = House(clock)
    yield house
    house.scheduler.stopService()
    clock.pump([1.0] * 5)


def test_one_report_for_all_destinations_and_it_stands_in_the_history(house, clock) -> None:
    house.relaying = {one.domain: UNKNOWN for one in FAR}
    queue_id = house.send(*FAR)
    clock.pump([1.0] * 10)
    [report] = house.reports()
    assert report.actions == {str(one): "failed" for one in FAR}
    assert house.mailbox[0].message.envelope.reverse_path is None
    assert result(house.spool.count()) == 0
    [reported] = [step for step in house.steps(queue_id) if step.kind is EventKind.REPORTED]
    assert (reported.subject, reported.detail["why"]) == (str(ALICE), "failed")
    received, *_ = house.steps(reported.detail["report"])
    assert received.detail["composed"] == queue_id
    assert received.detail["message_id"] == report.message["Message-ID"]


def test_a_week_without_an_answer_is_a_delay_and_then_a_failure(house, clock) -> None:
    house.relaying = {one.domain: DEAD for one in FAR}
    house.send(*FAR)
    clock.pump([60.0] * (7 * 24 * 60))
    reports = house.reports()
    told = [(set(report.actions.values()), len(report.recipients)) for report in reports]
    # Each destination has its own times; but nobody is told of a recipient twice.
    assert sum(count for actions, count in told if actions == {"delayed"}) == len(FAR)
    assert sum(count for actions, count in told if actions == {"failed"}) == len(FAR)
    assert len(told) <= 2 * len(FAR)
    assert result(house.spool.count()) == 0


def test_who_asked_for_it_hears_of_success(house, clock) -> None:
    house.send(FAR[0], ALICE, notify=Notify.SUCCESS, options=MessageOptions(envid="E=1"))
    clock.pump([1.0] * 10)
    reports = [
        read_report(one.content.in_memory()) for one in house.mailbox if one.message.envelope.reverse_path is None
    ]
    actions = {address: action for report in reports for address, action in report.actions.items()}
    assert actions == {str(FAR[0]): "relayed", str(ALICE): "delivered"}
    assert {report.of_message["Original-Envelope-Id"] for report in reports} == {"E=1"}
