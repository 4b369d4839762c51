"""Neighbours of the delivery room, in memory: a spool, a router, agents that do as they are told."""

from dataclasses import replace

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsuite.interfaces import IDeliveryAgent, IDirectory, IRouter, ISpool, Refused, SpoolError
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Result
from mailsuite.mail.replies import RELAYING_DENIED
from mailsuite.mail.route import HOLD, RELAY, Destination, Target
from mailsuite.mail.selection import QueuedMessage, QueuedRecipient, QueueState
from mailsuite.mail.status import EnhancedStatus

SENDER = Address("sender", "here.example")
CONTENT = b"Message-ID: <1@here.example>\r\nSubject: hello\r\n\r\nbody\r\n"
RELAYED = Outcome(Result.RELAYED, EnhancedStatus(2, 0, 0), "queued there")
REFUSED = Outcome(Result.FAILED, EnhancedStatus(5, 1, 1), "no such user")
LATER = Outcome(Result.DEFERRED, EnhancedStatus(4, 2, 0), "try later")
DEAD = Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 1), "no answer from host")


def relay(domain):
    return Destination(RELAY, domain)


@implementer(ISpool)
class FakeSpool:
    """Holds deliveries with their times and leases; all calls answer at once unless `slow` or `failing`."""

    def __init__(self, clock):
        self.clock = clock
        self.waiting = {}  # key of the first recipient: (delivery, due)
        self.leased = {}  # key of each recipient: delivery
        self.reports = []
        self.history = []  # (time, delivery, outcome) for each recipient that was settled
        self.events = []
        self.on_hold = []  # deliveries
        self.calls = []
        self.last_errors = {}  # key of a recipient: status, text and remote of its last attempt
        self.failing = None
        self.watcher = None
        self.pending = None  # a list, to hold settle calls back in
        self.keys = 0

    def watch(self, watcher):
        self.watcher = watcher

    def make(self, destination, *, recipients=1, sender=SENDER, size=None, content=CONTENT, arrived=None):
        self.keys += 1
        who = tuple(
            Recipient(self.keys * 1000 + at, Address(f"user{at}", destination.name or "here.example"))
            for at in range(recipients)
        )
        arrived = self.clock.seconds() if arrived is None else arrived
        message = Message(f"Q{self.keys}", Envelope(sender), len(content) if size is None else size, arrived)
        return Delivery(message, destination, who, MemoryContent(content))

    def store(self, *deliveries, due=None):
        for delivery in deliveries:
            self.waiting[delivery.recipients[0].key] = (delivery, self.clock.seconds() if due is None else due)

    def commit(self, *deliveries):
        """As a group of commits does: leased at once where there is room, else left to be claimed."""
        at_once = [one for one in deliveries if self.watcher.has_room(one.destination, one.message.size)]
        later = [one for one in deliveries if one not in at_once]
        self.store(*later)
        for one in at_once:
            self.lease(one)
        if at_once:
            self.watcher.committed(at_once)
        if later:
            self.watcher.due({one.destination for one in later})

    def lease(self, delivery):
        self.leased.update({recipient.key: delivery for recipient in delivery.recipients})

    def _check(self, call, *details):
        self.calls.append((call, *details))
        if self.failing is not None:
            raise self.failing

    async def claim(self, destination, limit):
        self._check("claim", destination)
        now = self.clock.seconds()
        due = [one for one, at in self.waiting.values() if one.destination == destination and at <= now]
        for one in due[:limit]:
            del self.waiting[one.recipients[0].key]
            self.lease(one)
        return due[:limit]

    async def select(self, selection, limit, *, after=""):
        queued = {}
        for one, at in self.waiting.values():
            if one.message.queue_id in selection.ids:
                queued.setdefault(one.message.queue_id, (one.message, []))[1].extend(
                    QueuedRecipient(who.address, one.destination, QueueState.WAITING, at) for who in one.recipients
                )
        for key, one in self.leased.items():
            if one.message.queue_id in selection.ids:
                who = next(who for who in one.recipients if who.key == key)
                last = self.last_errors.get(key, (None, None, None))
                queued.setdefault(one.message.queue_id, (one.message, []))[1].append(
                    QueuedRecipient(who.address, one.destination, QueueState.ACTIVE, 0.0, 0, None, None, *last)
                )
        return [QueuedMessage(message, tuple(recipients)) for message, recipients in queued.values()][:limit]

    async def destinations(self):
        self._check("destinations")
        earliest = {}
        for one, at in self.waiting.values():
            if one.destination.agent != HOLD:
                earliest[one.destination] = min(at, earliest.get(one.destination, at))
        return list(earliest.items())

    async def settle(self, settlements):
        self._check("settle", len(settlements))
        if self.pending is not None:
            held = Deferred()
            self.pending.append(held)
            await held
        for settlement in settlements:
            self._settle(settlement)

    def _settle(self, settlement):
        delivery = settlement.delivery
        # By its keys: those of the same delivery who are settled later keep their lease.
        for recipient in delivery.recipients:
            del self.leased[recipient.key]
        self.reports += settlement.reports
        self.events += settlement.events
        again = {}
        for recipient, outcome in zip(delivery.recipients, settlement.outcomes, strict=True):
            self.history.append((self.clock.seconds(), delivery, outcome))
            if outcome.result is Result.DEFERRED:
                told = recipient.delay_told or recipient.key in settlement.delay_told
                counted = replace(recipient, attempts=recipient.attempts + 1, delay_told=told)
                if recipient.key in settlement.unreported:
                    failure = replace(outcome, result=Result.FAILED, next_attempt=None)
                    counted = replace(counted, expired=True, failure=failure)
                again.setdefault(outcome.next_attempt, []).append(counted)
        if any(outcome.result is Result.HELD for outcome in settlement.outcomes):
            self.on_hold.append(delivery)
        for due, recipients in again.items():
            self.store(replace(delivery, recipients=tuple(recipients)), due=due)

    async def release(self, deliveries):
        self._check("release", len(deliveries))
        for delivery in deliveries:
            for recipient in delivery.recipients:
                del self.leased[recipient.key]
            self.store(delivery)

    async def reroute(self, choose):
        self._check("reroute")
        for key, (delivery, due) in self.waiting.items():
            self.waiting[key] = (
                replace(
                    delivery,
                    destination=choose(delivery.recipients[0].address, delivery.destination, delivery.reverse_path),
                ),
                due,
            )
        return len(self.waiting)

    def results(self):
        return [outcome.result for _, _, outcome in self.history]


@implementer(IRouter)
class FakeRouter:
    """Everybody is relayed to their domain; `refusal` is what resolving raises."""

    def __init__(self):
        self.refusal = None

    async def resolve(self, recipient, submitter, *, trusted, sender=None, is_report=False):
        if self.refusal is not None:
            raise self.refusal
        if not trusted:
            raise Refused(RELAYING_DENIED)
        return (Target(recipient, self.destination(recipient)),)

    def destination(self, address, sender=None):
        return relay(address.domain)

    def explain(self, address, sender=None):
        return [f"{address} is relayed"]


@implementer(IDeliveryAgent)
class FakeAgent:
    """Drains its runs by `act`, a coroutine function; without one, everything is relayed."""

    def __init__(self, act=None, *, name=RELAY, concurrency=1, batch=10):
        self.name = name
        self.concurrency = concurrency
        self.batch = batch
        self.act = act
        self.runs = []

    async def deliver(self, run):
        self.runs.append(run)
        if self.act is not None:
            await self.act(run)
            return
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [RELAYED] * len(delivery.recipients))


@implementer(IDirectory)
class FakeDirectory:
    """Local domains, mailboxes and aliases as plain dictionaries of text."""

    def __init__(self, domains=(), mailboxes=(), aliases=None):
        self.domains = set(domains)
        self.mailboxes = set(mailboxes)
        self.aliases = {} if aliases is None else aliases

    def is_local_domain(self, domain):
        return domain in self.domains

    def mailbox(self, address):
        local = address.local_part.lower().partition("+")[0]
        text = f"{local}@{address.domain_key}"
        return parse_mailbox(text) if text in self.mailboxes else None

    def alias(self, address):
        members = self.aliases.get(f"{address.local_part.lower()}@{address.domain_key}")
        return None if members is None else tuple(parse_mailbox(member) for member in members)


def spool_error():
    return SpoolError("the disk is on fire")
