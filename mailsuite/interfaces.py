"""Every interface that joins two rooms of the house.

An interface says what one side may ask and the other promises; `tests/contracts/` holds one suite for each that
has several implementations. Methods that return an Awaitable may be coroutines or return Deferreds; they never
block the reactor's thread. Times are POSIX timestamps in seconds, sizes are octets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from mailsuite.mail.address import Address
from mailsuite.mail.customer import Customer
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import Delivery, HeldMail, Message, Outcome, Settlement
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.session import Identity, Peer, ScramSecret, SecretKind

# ---------------------------------------------------------------------------------------------- errors


class Refused(Exception):
    """Something is refused for a reason that the peer should see: the one place that sends replies sends this one."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class SpoolError(Exception):
    """The spool cannot do what was asked, now. Peers are told 451 4.3.0."""


class SpoolFull(SpoolError):
    """There is no room on the disk. Peers are told 452 4.3.1."""


class SpoolInUse(SpoolError):
    """Another process has the spool."""


class DirectoryUnavailable(Exception):
    """The directory of accounts cannot be read, now. Peers are told 451 or 454."""


# ------------------------------------------------------------------------------------ session <-> net


class IConversation(Interface):
    """A session's end of a connection: events of the core come in, messages to the core go out."""

    peer = Attribute("mailsuite.mail.session.Peer")
    local = Attribute("mailsuite.mail.session.Peer: our own end")
    tls = Attribute("mailsuite.mail.session.TLSFacts, or None while the connection is in plaintext")
    core = Attribute("the protocol core that this conversation is held through")
    line_by_line = Attribute(
        "bool, to be set: under TLS every line is a record of its own, for peers that read one line for each"
    )

    def receive() -> Awaitable[Any]:
        """The core's next event.

        Output is written before the wait begins, never earlier: replies to a pipelined group leave in one write.
        Raises `RemoteProtocolError` where the peer breaks the protocol beyond repair, `ConnectionClosed` when the
        connection has ended or was lost, `PeerTooSlow` when the limit of the core's phase has passed. A session that
        waits for something else when the connection is lost is cancelled (`CancelledError` at its await).
        """

    def send(message: Any) -> None:
        """Give the core a reply (server core) or a command (client core); the octets leave at the next wait."""

    def drain() -> Awaitable[None]:
        """Write what is there, and wait until the transport wants more. For content that is sent in chunks.

        Raises as `receive`.
        """


# -------------------------------------------------------------------------------------------- routing


class IRouter(Interface):
    """Knows where a recipient's mail goes."""

    def resolve(recipient: Address, submitter: Identity | None, *, trusted: bool) -> Awaitable[Sequence[Target]]:
        """The targets of one recipient, aliases expanded.

        `submitter` is the authenticated account, `trusted` says that the peer's address may relay. Raises
        `Refused` for an unknown local user (550 5.1.1), for relaying by strangers (550 5.7.1), for an alias that
        leads back to itself (550 5.4.6).
        """

    def destination(address: Address) -> Destination:
        """Where mail for this final address goes by the configuration of now; never refuses."""


class IReservation(Interface):
    """The room that one transaction keeps in the quotas of customers, from its first recipient to its end.

    It counts as one message for each customer, however many of the recipients are theirs.
    """

    def include(targets: Sequence[Target]) -> Awaitable[None]:
        """Keep room for the customers of these targets too; those that `hold` nothing cost nothing.

        Raises `Refused`, and then keeps no more room than before: 452 4.2.2 where there is too little, 451 where that
        cannot be told now.
        """

    def fit(size: int) -> Awaitable[None]:
        """The message is here, and has so many octets. Raises `Refused` as `include`, where nobody had announced them.

        What is within the announced size, but for what we have added to it, has had its answer.
        """

    def release() -> None:
        """Give the room back: there will be no message. May be called at any time; then `include` keeps none."""

    def landed() -> None:
        """The message is in the spool. Its true size counts until the spool's own word on what is held includes it."""


class IQuota(Interface):
    """How much may be held for each customer."""

    def reservation(octets: int) -> IReservation:
        """An `IReservation` for a transaction, of so many octets as MAIL has announced; 0 where it has not.

        It keeps room for nobody yet. Whoever asks for it says `release` or `landed` in the end.
        """


# ---------------------------------------------------------------------------------------------- spool


class IDraft(Interface):
    """A message on its way into the spool. Nothing is visible before `commit`, `abort` leaves nothing."""

    queue_id = Attribute("str: the name the message will have in the queue")
    size = Attribute("int: octets written so far")

    def write(data: bytes) -> Awaitable[None] | None:
        """Append octets. Where it returns an Awaitable, await it before writing more: the disk is slower than the peer.

        Failures (a full disk) may show here or at `commit`: `SpoolError`.
        """

    def commit(
        envelope: Envelope, targets: Sequence[Target], *, name: str | None = None, received: int = 0
    ) -> Awaitable[None]:
        """Make it durable. When this returns, the message is on stable storage and its recipients are due.

        With a `name` it is remembered in the same transaction that what has this name is complete, and that the peer's
        content had `received` octets: see `ISpool.resume`.

        Raises `SpoolFull` or another `SpoolError`; then nothing of it is in the queue. Once called, neither a
        cancellation nor `abort` takes it back.
        """

    def abort() -> None:
        """Forget it. Does nothing after `commit` was called, or a second time."""


class IQueueWatcher(Interface):
    """Is told by the spool what has become due. All calls come on the reactor's thread."""

    def has_room(destination: Destination, size: int) -> bool:
        """Whether a delivery that is just being committed should be leased at once and given to `committed`.

        It reserves nothing: several commits may ask before `committed` comes, and one that fails never brings it.
        """

    def committed(deliveries: Sequence[Delivery]) -> None:
        """These were committed, and are leased to us: they come straight from memory, nothing need be claimed."""

    def due(destinations: Iterable[Destination]) -> None:
        """Something waits for `ISpool.claim` at these destinations: it was committed, moved or rerouted there, or its
        lease has run out. What is released or deferred is not told.
        """  # noqa: D205 - one sentence


class ISpool(Interface):
    """The relay queue's store: messages, their recipients, leases and times.

    A delivery that was claimed (or came through `IQueueWatcher.committed`) is under lease until it is settled or
    released, or until the lease runs out; the spool renews leases of its own process by itself. Leases of a dead
    process are void when the spool is opened again; their deliveries come back with `replayed` set.
    """

    def start() -> Awaitable[None]:
        """Open the store, update its schema, void dead leases, sweep what a crash left. Raises `SpoolError`."""

    def stop() -> Awaitable[None]:
        """Finish what was asked, give all leases back, close."""

    def watch(watcher: Any) -> None:
        """Tell this `IQueueWatcher` from now on."""

    def draft() -> IDraft:
        """A new `IDraft`."""

    def claim(destination: Destination, limit: int) -> Awaitable[Sequence[Delivery]]:
        """Lease up to `limit` due deliveries for a destination, the longest due first."""

    def claim_held(destinations: Sequence[Destination], limit: int) -> Awaitable[Sequence[Delivery]]:
        """Lease up to `limit` deliveries of these `hold` destinations, the oldest first, whatever their times."""

    def destinations() -> Awaitable[Sequence[tuple[Destination, float]]]:
        """Every destination (but `hold`) that has deliveries not under lease, with the earliest time one is due."""

    def settle(settlements: Sequence[Settlement]) -> Awaitable[None]:
        """Write outcomes down, reports included, in one transaction. See `mail.queue.Settlement`."""

    def release(deliveries: Sequence[Delivery]) -> Awaitable[None]:
        """Give leases back: no attempt was made, they are due as they were."""

    def move(delivery: Delivery, destination: Destination) -> Awaitable[None]:
        """Give the lease back and queue the recipients under another destination, due at once."""

    def reroute(choose: Callable[[Address, Destination], Destination]) -> Awaitable[int]:
        """Ask `choose` for every recipient that waits, with the destination it has, and move it where that changes.

        Returns how many were moved.
        """

    def count() -> Awaitable[int]:
        """How many messages are in the queue."""

    def held() -> Awaitable[Sequence[HeldMail]]:
        """What is held, for each domain of a `hold` destination that has something."""

    def held_messages(
        destination: Destination, until: float, limit: int, *, since: float = 0.0
    ) -> Awaitable[Sequence[Message]]:
        """The messages that wait under a `hold` destination and arrived after `since`, at `until` or before.

        The oldest come first.

        Only looks: takes no lease, and leaves out what is under one.
        """

    def hurry(destinations: Sequence[Destination]) -> Awaitable[int]:
        """Make what waits for these destinations (but `hold`) due now; tell how many messages that are.

        The watcher is told of each destination that has any.
        """

    def record(events: Sequence[Event]) -> Awaitable[None]:
        """Write events down. They are kept for a set time, and read by `history`."""

    def history(
        *, kind: EventKind | None = None, subject: str | None = None, queue_id: str | None = None, limit: int = 100
    ) -> Awaitable[Sequence[Event]]:
        """The last events that fit, the latest first."""

    def keep(
        draft: IDraft,
        name: str,
        envelope: Envelope,
        targets: Sequence[Target],
        received: int,
        *,
        size: int | None = None,
    ) -> Awaitable[None]:
        """Keep a draft whose line broke, on stable storage and under a name, in place of `abort` (RFC 1845).

        With `size`, no more than its first so many octets. `received` is how many octets of the peer's content are in
        what is kept. What was kept under that name before is forgotten. Parts are kept for a set time, and within
        bounds, in all and for each of those whom the names tell: the oldest make room. One without room is dropped.
        """

    def resume(name: str) -> Awaitable[Any]:
        """What there is under a name, if anything; where there is nothing, that costs no more than a look into memory.

        A `mail.partial.Partial` with a draft to go on with: it is kept no longer, and whoever takes it commits the
        draft, keeps it again, or aborts it. Or a `mail.partial.Completed`: a message was committed with that name. It
        stays so until its end was `heard`, for a set time, and within a bound.
        """

    def forget(name: str) -> Awaitable[None]:
        """Forget the part that was kept under a name, if there is one: the peer has begun anew."""

    def heard(names: Sequence[str]) -> Awaitable[None]:
        """Forget that these are complete: the peer knows it by now (RFC 1845 section 3)."""


# ------------------------------------------------------------------------------------------- delivery


class IQueueRun(Interface):
    """The deliveries for one destination, drained by an agent or by a relay session, whoever dialled."""

    destination = Attribute("mailsuite.mail.route.Destination")

    def next() -> Awaitable[Delivery | None]:
        """The next delivery, or None when nothing more is due. What was taken must be settled or released."""

    def batch(limit: int) -> Awaitable[Sequence[Delivery]]:
        """Up to `limit` deliveries at once; empty when nothing more is due."""

    def settle(delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Report what became of the recipients, in their order. The spool writes it down with others, in groups."""

    def release(delivery: Delivery) -> None:
        """Give a delivery back: no attempt was made. Does nothing for one that is settled or was released before."""

    def fail(outcome: Outcome) -> None:
        """The destination as a whole came to this outcome: its host cannot be reached, or its domain does not exist.

        What this run holds, what is ready and what else is due is settled with it. After a deferred outcome the
        destination is left alone for a while: `next` and `batch` have nothing more.
        """


class IDeliveryAgent(Interface):
    """Delivers, as a plugin: found by `twisted.plugin` under `IDeliveryAgentMaker`, or given to the service by hand."""

    name = Attribute("str: what `Destination.agent` says")
    concurrency = Attribute("int: how many runs this agent may have at once for one destination")
    batch = Attribute("int: a further run begins beside others where at least that many deliveries are waiting")

    def deliver(run: Any) -> Awaitable[None]:
        """Drain an `IQueueRun`. Whatever it has neither settled nor released when it ends is released.

        Raises nothing for a failed delivery, that is an outcome; an exception is a defect: it is logged, and what was
        under way is deferred.
        """


class IDeliveryAgentMaker(Interface):
    """A plugin (in the package `mailsuite.plugins`, any distribution may add to it) that builds a delivery agent."""

    name = Attribute("str: the agent's name in the configuration and in destinations")

    def make(options: dict[str, Any], parts: Any) -> Any:  # noqa: ANN401 - an interface cannot name those below it
        """Build the `IDeliveryAgent` from its table in the configuration; `parts` is an `IAgentParts`.

        Raises `ValueError` with one sentence where an option is wrong.
        """


class IAgentParts(Interface):
    """What the service lends to agents."""

    reactor = Attribute("the reactor: IReactorTime, IReactorTCP, IReactorThreads")
    hostname = Attribute("str: our own host name")
    data_directory = Attribute("pathlib.Path: where relative paths begin")

    def in_thread(function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run blocking work in the thread pool."""


class INextHops(Interface):
    """Turns a relay destination into hosts to dial, in order of preference."""

    def find(destination: Destination) -> Awaitable[Sequence[Any]]:
        """The `NextHop`s to dial. Raises `Unroutable`, with the outcome, where there are none."""


# ------------------------------------------------------------------------------------------ on demand


class ITurn(Interface):
    """A customer's turn: its mail on the connection it came by, the roles reversed (RFC 2645 section 5.3)."""

    customer = Attribute("mailsuite.mail.customer.Customer")
    run = Attribute("IQueueRun over everything held for the domains that were asked for, what arrives meanwhile too")

    def ended(error: str | None) -> None:
        """The connection has ended: None when all was sent. Gives back what is under lease, writes the event.

        Must be called once, whatever happened.
        """


class IOnDemand(Interface):
    """Serves ATRN and ETRN; joins sessions with the queue."""

    def begin_turn(identity: Identity, domains: Sequence[str], peer: Peer) -> Awaitable[Any]:
        """Begin an `ITurn` for these domains (domain keys), for all of the customer's where there are none.

        Raises `Refused`: 450 for a domain that is not the customer's, for a second turn at once, for one too soon; 453
        where there is no mail; 451 where that cannot be told now (RFC 2645 section 5.2.1).
        """

    def start_queue(node: str, identity: Identity | None, peer: Peer) -> Awaitable[Reply]:
        """Start the queue for a node of ETRN, and tell the reply: 250 to 253 (RFC 1985 section 5.3).

        `node` is as it came: a domain, `@domain` for its sub-domains too, `#name` for a queue. Raises `Refused`: 458
        where the queue cannot be started, 459 for a node that is not for this peer.
        """


class ICustomers(Interface):
    """The customers, as they are now. Look-ups answer from memory and never block."""

    def customer(name: str) -> Customer | None:
        """The customer of that name, whatever the case."""

    def customer_of(domain: str) -> Customer | None:
        """Whose mail for a domain (a domain key) is held."""

    def customers() -> Sequence[Customer]:
        """All of them, by name."""

    def is_listed(customer: Customer, address: Address) -> bool:
        """Whether a recipient is on the customer's list, under `RecipientRule.LIST`."""


# ------------------------------------------------------------------------------------------- accounts


class IAuthenticator(Interface):
    """Proves who a peer is. Sits before a twisted.cred portal."""

    def check_password(authcid: str, authzid: str, password: bytes) -> Awaitable[Identity]:
        """Log in by password (PLAIN, LOGIN). Raises `twisted.cred.error.UnauthorizedLogin`, `DirectoryUnavailable`."""

    def secret(authcid: str, kind: SecretKind) -> Awaitable[bytes | ScramSecret | None]:
        """What is kept of this account for that mechanism; None where the account or the secret does not exist."""

    def authorize(authcid: str, authzid: str, *, external: bool) -> Awaitable[Identity]:
        """Log in someone who has proved to be `authcid`. Raises as `check_password`.

        With `external` that is the name in a verified client certificate (EXTERNAL), without it a login name whose
        secret was proved (CRAM-MD5, SCRAM): a customer's login name in somebody's certificate proves nothing.
        """


class IDirectory(Interface):
    """Local domains, mailboxes and aliases, as they are now. Look-ups answer from memory and never block."""

    def is_local_domain(domain: str) -> bool:
        """Whether we are the final destination for a domain (a domain key: lower case, A-labels)."""

    def mailbox(address: Address) -> Address | None:
        """The canonical address of the mailbox that receives for this address (case and subaddress folded), or None."""

    def alias(address: Address) -> Sequence[Address] | None:
        """What an alias stands for, one step; None where the address is no alias."""
