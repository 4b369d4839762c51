"""A provider and a customer in memory: real sessions, cores and connections on both sides of a turn.

`Line` carries octets between the two, and breaks where it is told to. Those behind the doors are faked: the provider's
`IOnDemand` has deliveries in a list, the customer's spool keeps what was committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsuite.interfaces import IAuthenticator, IOnDemand, ITurn, Refused
from mailsuite.mail import replies
from mailsuite.mail.customer import Customer
from mailsuite.mail.queue import Delivery, Result
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Identity, Peer, SecretKind
from mailsuite.session.exchange import exchange, hear
from mailsuite.session.handover import Handover
from mailsuite.session.inbound import Door
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.commands import Atrn, Auth, Command, Ehlo, StartTls
from mailsuite.wire.smtp.offer import Offer
from tests.dialogues.house import FakeRouter, FakeSpool, Pace
from tests.net.support import Side
from tests.session.scripted import ListedRun, make_delivery

PROVIDER = "odmr.example.net"
SHIP = Customer("ship", ("ship.example.org", "crew.example.org"))
LOGIN = b"EHLO ship.example.org\r\nAUTH PLAIN AHNoaXAAc2VjcmV0\r\n"  # ship, secret
STRANGER = b"EHLO ship.example.org\r\nAUTH PLAIN AGZyZWQAc2VjcmV0\r\n"  # fred, who is no customer


@implementer(ITurn)
class FakeTurn:
    """A turn over some deliveries; keeps how it ended, each time."""

    def __init__(self, customer: Customer, deliveries: Sequence[Delivery]) -> None:
        self.customer = customer
        self.run = ListedRun(*deliveries)
        self.ends: list[str | None] = []

    def ended(self, error: str | None) -> None:
        self.ends.append(error)


@implementer(IOnDemand)
@dataclass
class FakeOnDemand:
    """Begins a turn over what it holds; `trouble` is raised instead, `gate` waited for before."""

    deliveries: Sequence[Delivery] = ()
    customer: Customer = SHIP
    trouble: Exception | None = None
    gate: Any = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    turns: list[FakeTurn] = field(default_factory=list)

    async def begin_turn(self, identity: Identity, domains: Sequence[str], peer: Peer) -> FakeTurn:
        self.asked.append((identity.name, tuple(domains), peer.host))
        if self.gate is not None:
            await self.gate
        if self.trouble is not None:
            raise self.trouble
        self.turns.append(FakeTurn(self.customer, self.deliveries))
        return self.turns[-1]

    async def start_queue(self, node: str, identity: Identity | None, peer: Peer) -> Reply:
        self.asked.append((node, None if identity is None else identity.name, peer.host))
        if self.trouble is not None:
            raise self.trouble
        return replies.ETRN_COUNTED.saying(f"OK, 3 pending messages for node {node} started")


@implementer(IAuthenticator)
class Accounts:
    """A customer `ship` and a user `fred`."""

    async def check_password(self, authcid: str, authzid: str, password: bytes) -> Identity:
        if password != b"secret":
            raise UnauthorizedLogin
        if authcid != "ship":
            return Identity(authcid)
        return Identity("ship", frozenset({"@ship.example.org", "@crew.example.org", "@example.org"}), "ship")

    async def secret(self, authcid: str, kind: SecretKind) -> None:
        return None

    async def authorize(self, authcid: str, authzid: str, *, external: bool) -> Identity:
        raise UnauthorizedLogin


def provider_door(on_demand: FakeOnDemand | None, **changes: Any) -> Door:
    offer = Offer(PROVIDER, mechanisms=(b"PLAIN",), etrn=True, atrn=True, turn=True)
    pace = Pace()
    door = Door(
        PROVIDER,
        offer,
        offer,
        FakeRouter(frozenset({"anna@example.net"}), pace),
        FakeSpool(pace),  # type: ignore[arg-type]
        lambda: 1_700_000_000.0,
        authenticator=Accounts(),
        on_demand=on_demand,
        turn_allowed=True,
    )
    return replace(door, **changes)


class CustomerSite:
    """The customer's own server: its spool, its door, and the client session that asks for mail.

    `tls` is what the client says STARTTLS with.
    """

    tls: Any = None

    def __init__(self, command: Command | None = None, **offer: Any) -> None:
        self.command = command or Atrn()
        self.spool = FakeSpool(Pace())
        self.router = FakeRouter(frozenset({"bob@ship.example.org"}), Pace())
        plain = Offer("ship.example.org", starttls=True, mechanisms=(b"PLAIN",), etrn=True, atrn=True, **offer)
        self.door = Door(
            "ship.example.org",
            plain,
            replace(plain, starttls=False),
            self.router,
            self.spool,  # type: ignore[arg-type]
            lambda: 1_700_000_000.0,
            authenticator=Accounts(),
        ).for_turn(frozenset(SHIP.domains), PROVIDER)
        self.answer: Reply | None = None

    async def pull(self, conversation: Any) -> Handover | None:
        await hear(conversation)
        await exchange(conversation, Ehlo("ship.example.org"))
        if self.tls is not None and conversation.tls is None:
            await exchange(conversation, StartTls())
            return Handover(SmtpClientCore(greeted=True), self._pull_secured, self.tls)
        return await self._ask(conversation)

    async def _pull_secured(self, conversation: Any) -> Handover | None:
        await exchange(conversation, Ehlo("ship.example.org"))
        return await self._ask(conversation)

    async def _ask(self, conversation: Any) -> Handover | None:
        await exchange(conversation, Auth(b"PLAIN", b"\0ship\0secret"))
        self.answer = await exchange(conversation, self.command)
        return Handover(*self.door.open()) if self.answer.is_positive else None

    @property
    def received(self) -> list[str]:
        """The subjects of what was taken in; `deliveries` puts the queue id there."""
        return [message.content.partition(b"Subject: ")[2].split()[0].decode() for message in self.spool.messages]


class Line:
    """The connection between a provider's session and a customer's, and how many octets have passed."""

    def __init__(
        self,
        on_demand: FakeOnDemand,
        site: CustomerSite,
        door: Door | None = None,
        *,
        implicit: tuple[Any, Any] = (None, None),
    ) -> None:
        """`implicit` is the provider's TLS and the customer's, where it begins with the first octet."""
        self.on_demand = on_demand
        self.site = site
        self.clock = Clock()
        self.passed = 0
        self.transcript: list[tuple[str, bytes]] = []
        core, session = (door or provider_door(on_demand)).open()
        self.provider = Side(session, core, clock=self.clock, tls=implicit[0])
        self.customer = Side(site.pull, SmtpClientCore(), clock=self.clock, tls=implicit[1])
        self._sides = (("P", self.provider, self.customer), ("C", self.customer, self.provider))
        self._carried = {"P": 0, "C": 0}

    def carry(self, octets: int | None = None, *, piece: int = 1 << 20) -> None:
        """Carry until nothing moves, then pass the end of the connection on; with `octets`, break after so many."""
        while True:
            self.clock.advance(0)
            moved = False
            for name, source, target in self._sides:
                room = piece if octets is None else min(piece, octets - self.passed)
                start = self._carried[name]
                data = source.wire.sent[start : start + room]
                if data and target.wire.connected:
                    moved = True
                    self._carried[name] += len(data)
                    self.passed += len(data)
                    self.transcript.append((name, data))
                    target.receive(data)
            if octets is not None and self.passed >= octets:
                self.break_off()
                return
            if not (moved or self._has_due()):
                break
        if self.provider.is_closing or self.customer.is_closing:
            self.break_off()

    def _has_due(self) -> bool:
        return any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls())

    def break_off(self) -> None:
        for side in (self.provider, self.customer):
            if side.wire.connected:
                side.lose(ConnectionLost())
        self.clock.advance(0)

    @property
    def turn(self) -> FakeTurn:
        [turn] = self.on_demand.turns
        return turn

    def said(self, name: str) -> bytes:
        return b"".join(data for who, data in self.transcript if who == name)

    def check_accounts(self) -> None:
        """Fail where a message was lost, counted for nothing, or is said to have arrived and has not."""
        for turn in self.on_demand.turns:
            assert len(turn.ends) == 1
            turn.run.check_accounts()
            for queue_id, outcomes in turn.run.settled.items():
                assert {outcome.result for outcome in outcomes} == {Result.RELAYED}
                assert self.site.received.count(queue_id) == 1
        assert self.site.spool.open_drafts == 0


def deliveries(count: int) -> list[Delivery]:
    return [
        make_delivery(f"q{number}", "bob@ship.example.org", content=f"Subject: q{number}\r\n\r\n.\r\nHi.\r\n".encode())
        for number in range(count)
    ]


def refusing(reply: Reply) -> FakeOnDemand:
    return FakeOnDemand(trouble=Refused(reply))
