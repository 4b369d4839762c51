"""What stands behind a door in the dialogues: router, spool and accounts, faked as a dialogue's head asks for.

Settings (each may stand more than once; nothing of it is needed):

    offer: lmtp starttls require-tls require-auth no-chunking no-smtputf8 line-ends=reject auth=PLAIN,LOGIN
           max-size=1000 max-line=80 max-response=80 max-errors=3       secure-auth=PLAIN is offered under TLS
           odmr etrn atrn turn checkpoint dsn requiretls
    door: turn submission max-recipients=2 trusted=192.0.2.0/24 tls-fails
    user: fred secret fred@example.org,@example.com     name, password, the addresses that it may send as
    certificate: fred                                   whom the client's certificate names, under TLS
    mailboxes: anna@example.net                         instead of anna, bob, chris and postmaster there
    spool: full-at=draft broken-at=write ...            draft, write, commit, keep or resume
    customer, held, atrn, etrn: see `held`

The router knows the mailboxes; other names in their domains are unknown, other domains are for relaying. A mailbox
named `defect` makes it raise what nobody expects, for `unreadable` there is no directory, `later` is refused for now.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsuite.interfaces import DirectoryUnavailable, IAuthenticator, IDraft, IRouter, Refused, SpoolError, SpoolFull
from mailsuite.mail import replies
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.origin import Origin
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.session import Identity, Peer, SecretKind, TLSFacts
from mailsuite.session.checkpoints import Checkpoints
from mailsuite.session.inbound import Door
from mailsuite.wire.sasl import ServerParameters, derive_scram_secret
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.offer import Offer
from tests.dialogues.dialogue import Dialogue
from tests.dialogues.held import FakeOnDemand

HOSTNAME = "mx.example.net"
NOW = 1_700_000_000.0
PEER = Peer("192.0.2.7", 40_000)
_MAILBOXES = ("anna@example.net", "bob@example.net", "chris@example.net", "postmaster@example.net")
_FLAGS = {
    "lmtp": "lmtp",
    "starttls": "starttls",
    "require-tls": "require_tls",
    "require-auth": "require_auth",
    "odmr": "odmr",
    "etrn": "etrn",
    "atrn": "atrn",
    "turn": "turn",
    "checkpoint": "checkpoint",
    "dsn": "dsn",
    "requiretls": "requiretls",
}
_NUMBERS = {
    "max-size": "max_size",
    "max-line": "max_line",
    "max-response": "max_response",
    "max-errors": "max_errors",
}


class Pace:
    """How long everybody behind the door takes: no time at all, or until `go_on`."""

    def __init__(self, *, slow: bool = False) -> None:
        self._slow = slow
        self._waiting: list[Deferred[None]] = []

    async def step(self) -> None:
        if self._slow:
            waiter: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiter)
            await waiter

    def pause(self) -> Any:
        """The same as an Awaitable where there is anything to wait for."""
        return self.step() if self._slow else None

    def go_on(self) -> bool:
        """Let the first who waits go on; False where nobody does."""
        if not self._waiting:
            return False
        self._waiting.pop(0).callback(None)
        return True


@dataclass
class Message:
    """What was committed."""

    queue_id: str
    envelope: Envelope
    targets: tuple[Target, ...]
    content: bytes
    origin: Origin | None = None


@implementer(IDraft)
class FakeDraft:
    def __init__(self, spool: FakeSpool, queue_id: str) -> None:
        self.queue_id = queue_id
        self.spool = spool
        self.content = bytearray()
        self.state = "open"

    @property
    def size(self) -> int:
        return len(self.content)

    def write(self, data: bytes) -> Any:
        assert self.state == "open"
        assert data
        self.spool.may_fail("write")
        self.content += data
        return self.spool.pace.pause()

    async def commit(
        self,
        envelope: Envelope,
        targets: tuple[Target, ...],
        *,
        name: str | None = None,
        received: int = 0,
        origin: Origin | None = None,
    ) -> None:
        assert self.state == "open"
        self.state = "committing"
        await self.spool.pace.step()
        self.spool.may_fail("commit")
        self.state = "committed"
        self.spool.messages.append(Message(self.queue_id, envelope, tuple(targets), bytes(self.content), origin))
        if name is not None:
            self.spool.completed[name] = Completed(self.queue_id, envelope, tuple(targets), received)

    def abort(self) -> None:
        if self.state == "open":
            self.state = "aborted"
            self.content.clear()


@dataclass
class FakeSpool:
    """Only what a door asks of an `ISpool`: drafts, and what is kept under a name."""

    pace: Pace
    failures: dict[str, Exception] = field(default_factory=dict)  # where: what
    messages: list[Message] = field(default_factory=list)
    drafts: list[FakeDraft] = field(default_factory=list)
    parts: dict[str, Partial] = field(default_factory=dict)
    completed: dict[str, Completed] = field(default_factory=dict)

    def draft(self) -> FakeDraft:
        self.may_fail("draft")
        draft = FakeDraft(self, f"Q{len(self.drafts) + 1}")
        self.drafts.append(draft)
        return draft

    async def keep(
        self,
        draft: FakeDraft,
        name: str,
        envelope: Envelope,
        targets: tuple[Target, ...],
        received: int,
        *,
        size: int | None = None,
    ) -> None:
        assert draft.state == "open"
        draft.state = "kept"
        self.may_fail("keep")
        del draft.content[size:]
        self.parts[name] = Partial(draft, envelope, targets, received)

    async def resume(self, name: str) -> Partial | Completed | None:
        await self.pace.step()
        self.may_fail("resume")
        part = self.parts.pop(name, None)
        if part is not None:
            assert part.draft.state == "kept"
            part.draft.state = "open"
        return self.completed.get(name) or part

    async def heard(self, names: Sequence[str]) -> None:
        for name in names:
            self.completed.pop(name, None)

    def may_fail(self, where: str) -> None:
        if where in self.failures:
            raise self.failures[where]

    @property
    def open_drafts(self) -> int:
        return sum(draft.state == "open" for draft in self.drafts)


@implementer(IRouter)
@dataclass
class FakeRouter:
    mailboxes: frozenset[str]
    pace: Pace
    asked: list[Address] = field(default_factory=list)
    senders: list[Address | None] = field(default_factory=list)

    @property
    def domains(self) -> set[str]:
        return {mailbox.partition("@")[2] for mailbox in self.mailboxes}

    async def resolve(
        self, recipient: Address, submitter: Identity | None, *, trusted: bool, sender: Address | None = None
    ) -> list[Target]:
        self.asked.append(recipient)
        self.senders.append(sender)
        await self.pace.step()
        if recipient.local_part == "defect":
            raise ZeroDivisionError("the router has a defect")
        if recipient.local_part == "unreadable":
            raise DirectoryUnavailable("locked")
        if recipient.local_part == "later":
            raise Refused(replies.MAILBOX_FULL)
        address = recipient if recipient.domain else Address("postmaster", "example.net")
        if address.domain_key not in self.domains:
            if submitter is None and not trusted:
                raise Refused(replies.RELAYING_DENIED)
            return [Target(address, Destination("relay", address.domain_key))]
        if f"{address.local_part.lower()}@{address.domain_key}" not in self.mailboxes:
            raise Refused(replies.NO_SUCH_USER)
        return [Target(address, Destination("maildir"))]

    def destination(self, address: Address, sender: Address | None = None) -> Destination:
        return Destination("maildir")

    def explain(self, address: Address, sender: Address | None = None) -> Sequence[str]:
        return ()


@dataclass(frozen=True)
class User:
    password: str
    addresses: frozenset[str]


@implementer(IAuthenticator)
@dataclass
class FakeAuthenticator:
    users: dict[str, User]
    pace: Pace
    customers: Collection[str] = ()

    async def check_password(self, authcid: str, authzid: str, password: bytes) -> Identity:
        await self.pace.step()
        user = self.users.get(authcid)
        if user is None or user.password.encode() != password:
            raise UnauthorizedLogin
        return self._identity(authcid, authzid)

    async def secret(self, authcid: str, kind: SecretKind) -> Any:
        await self.pace.step()
        user = self.users.get(authcid)
        if user is None:
            return None
        if kind is SecretKind.SHARED:
            return user.password.encode()
        return derive_scram_secret(user.password, salt=b"sixteen octets..", iterations=4096)

    async def authorize(self, authcid: str, authzid: str, *, external: bool) -> Identity:
        await self.pace.step()
        return self._identity(authcid, authzid)

    def _identity(self, authcid: str, authzid: str) -> Identity:
        if authcid not in self.users or authzid not in {"", authcid}:
            raise UnauthorizedLogin
        customer = authcid if authcid in self.customers else None
        return Identity(authcid, self.users[authcid].addresses, customer)


class House:
    """A door, and what stands behind it."""

    def __init__(self, dialogue: Dialogue, *, slow: bool = False, tls_options: object = "TLS") -> None:
        self.pace = Pace(slow=slow)
        self.spool = FakeSpool(self.pace, _failures(dialogue))
        self.router = FakeRouter(frozenset(dialogue.words("mailboxes") or _MAILBOXES), self.pace)
        self.on_demand = FakeOnDemand(dialogue, self.pace.step)
        users = _users(dialogue)
        words = _words(dialogue, "door")
        self.certificate = " ".join(dialogue.words("certificate")) or None
        offers = offers_of(dialogue)

        def tls() -> object:
            if "tls-fails" in words:
                raise ValueError("no certificate")
            return tls_options

        self.door = Door(
            HOSTNAME,
            *offers,
            self.router,
            self.spool,
            lambda: NOW,
            FakeAuthenticator(users, self.pace, self.on_demand.customers) if users else None,
            ServerParameters(
                HOSTNAME.encode(),
                clock=lambda: NOW,
                random_number=lambda: 42,
                nonce=lambda: b"server-nonce",
                decoy_key=b"decoy",
            ),
            tls,
            submission="submission" in words,
            trusted=tuple(ip_network(word) for word in words.get("trusted", "").split(",") if word),
            max_recipients=int(words.get("max-recipients", "1000")),
            on_demand=self.on_demand,
            turn_allowed="turn" in words,
            checkpoints=Checkpoints(worth_keeping=1),
        )

    @property
    def tls_facts(self) -> TLSFacts:
        return TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, self.certificate)


def offers_of(dialogue: Dialogue) -> tuple[Offer, Offer]:
    """What is offered in plaintext, and under TLS."""
    words = _words(dialogue, "offer")
    values: dict[str, Any] = {_FLAGS[word]: True for word in words if word in _FLAGS}
    values |= {_NUMBERS[word]: int(value) for word, value in words.items() if word in _NUMBERS}
    values["chunking"] = "no-chunking" not in words
    values["smtputf8"] = "no-smtputf8" not in words
    if "line-ends" in words:
        values["line_ends"] = LineEndRule(words["line-ends"])
    mechanisms = _mechanisms(words.get("auth", ""))
    secure = {**values, "starttls": False, "require_tls": False}
    return (
        Offer(HOSTNAME, mechanisms=mechanisms, **values),
        Offer(HOSTNAME, mechanisms=_mechanisms(words.get("secure-auth", "")) or mechanisms, **secure),
    )


def _mechanisms(names: str) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in names.split(",") if name)


def _words(dialogue: Dialogue, setting: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in dialogue.words(setting))
    return {name: value for name, _, value in pairs}


def _users(dialogue: Dialogue) -> dict[str, User]:
    words = dialogue.words("user")
    return {
        name: User(password, frozenset(addresses.split(",")))
        for name, password, addresses in zip(words[::3], words[1::3], words[2::3], strict=True)
    }


def _failures(dialogue: Dialogue) -> dict[str, Exception]:
    kinds = {"full-at": SpoolFull("no room"), "broken-at": SpoolError("no disk"), "defect-at": ZeroDivisionError("!")}
    return {where: kinds[kind] for kind, where in _words(dialogue, "spool").items()}


def mailbox(text: str) -> Address:
    """An address that a test is sure of."""
    address = parse_mailbox(text)
    assert address is not None, text
    return address
