"""A provider with one spool in memory; customers, agents and peers are fakes."""

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsuite.delivery.bounces import Bounces, ReportSettings
from mailsuite.delivery.on_demand.nodes import EtrnPolicy
from mailsuite.delivery.on_demand.provider import OnDemand, OnDemandSettings
from mailsuite.delivery.pacing import UniformRules
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Route, Routes
from mailsuite.delivery.settlements import Settlements
from mailsuite.interfaces import ICustomers, Refused
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.customer import Customer
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import EventKind
from mailsuite.mail.route import HOLD, RELAY, Destination, Target
from mailsuite.mail.session import Identity, Peer
from mailsuite.spool.memory import MemorySpool
from tests.delivery.fakes import SENDER, FakeAgent, FakeDirectory

CONTENT = b"Message-ID: <1@here.example>\r\nSubject: hello\r\n\r\nbody\r\n"
PEER = Peer("192.0.2.7", 40000)
SHIP = Identity("ship", customer="ship")


def held(domain):
    return Destination(HOLD, domain)


@implementer(ICustomers)
class FakeCustomers:
    """Customers by name; `listed` are addresses as text."""

    def __init__(self, *customers):
        self.known = {customer.name: customer for customer in customers}
        self.listed = set()
        self.failure = None

    def customer(self, name):
        if self.failure is not None:
            raise self.failure
        return self.known.get(name.lower())

    def customer_of(self, domain):
        return next((one for one in self.known.values() if domain in one.domains), None)

    def customers(self):
        return sorted(self.known.values(), key=lambda one: one.name)

    def is_listed(self, customer, address):
        return str(address) in self.listed


class Provider:
    """One provider: `customers`, a spool, settlements, and `on_demand` over them."""

    def __init__(self, clock, **settings):
        self.clock = clock
        self.customers = FakeCustomers(
            Customer("ship", ("ship.example", "crew.ship.example")), Customer("farm", ("farm.example",))
        )
        self.spool = MemorySpool(clock)
        routes = Routes([Route("orphan.example", hold=True), Route("backup.example", relay=True)])
        self.router = Router(FakeDirectory({"here.example"}, {"sender@here.example"}), routes, held=self)
        self.settlements = Settlements(
            self.spool,
            Bounces(self.router, "mx.here.example", ReportSettings(gather=0)),
            clock,
            UniformRules(RetrySchedule(jitter=0)),
            chance=lambda: 0.5,
            deferred=lambda _at: None,
            caught_up=lambda: None,
        )
        self.agent = FakeAgent()
        self.hurried = []
        self.on_demand = self.make(**settings)

    def make(self, *, turn_messages=10_000, **etrn):
        return OnDemand(
            self.customers,
            self.router,
            self.spool,
            self.settlements,
            self.clock,
            relay=self.agent,
            hurry=self.hurry,
            settings=OnDemandSettings(EtrnPolicy(**etrn), turn_messages),
        )

    def is_held(self, domain):
        return self.customers.customer_of(domain) is not None

    async def admit(self, address, *, is_report=False):
        """Everybody exists here."""

    async def hurry(self, destinations):
        self.hurried += destinations
        return await self.spool.hurry(destinations)

    def change(self, name, **fields):
        customer = self.customers.known[name]
        values = {slot: getattr(customer, slot) for slot in Customer.__slots__} | fields
        self.customers.known[name] = Customer(**values)

    def store(self, *recipients, sender=SENDER, content=CONTENT, destination=None):
        """Queue one message, and tell its queue id."""
        addresses = [parse_mailbox(recipient) for recipient in recipients]
        draft = self.spool.draft()
        draft.write(content)
        targets = [Target(one, destination or self.router.destination(one)) for one in addresses]
        result(draft.commit(Envelope(sender), targets))
        return draft.queue_id

    def begin(self, *domains, identity=SHIP, peer=PEER):
        return result(self.on_demand.begin_turn(identity, domains, peer))

    def refused(self, *domains, **who):
        with pytest.raises(Refused) as caught:
            self.begin(*domains, **who)
        return caught.value.reply

    def waiting(self, *domains):
        """Queue ids that could be claimed, by domain."""
        found = []
        for domain in domains or ("ship.example", "crew.ship.example", "farm.example"):
            claimed = result(self.spool.claim_held([held(domain)], 1000))
            result(self.spool.release(claimed))
            found += [one.message.queue_id for one in claimed]
        return sorted(found)

    def events(self, kind=EventKind.TURN):
        return result(self.spool.history(kind=kind))

    def queued_elsewhere(self, domain):
        """What is queued to be relayed to a domain."""
        return result(self.spool.claim(Destination(RELAY, domain), 100))


async def _await(awaitable):
    return await awaitable


def result(awaitable):
    """What an awaitable has come to; raises what it has raised."""
    results = pending(awaitable)
    assert results, "it still waits"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def pending(awaitable):
    """A list that gets the result of an awaitable."""
    results = []
    Deferred.fromCoroutine(_await(awaitable)).addBoth(results.append)
    return results


@pytest.fixture
def provider(clock):
    return Provider(clock)


@pytest.fixture
def address():
    return Address("captain", "ship.example")
