"""Between everybody and the store of the relay queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.origin import Origin
from mailsuite.mail.queue import Delivery, HeldMail, Message, Settlement
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.selection import DestinationLoad, Managed, Met, QueueAction, QueuedMessage, Selection


class IDraft(Interface):
    """A message on its way into the spool. Nothing is visible before `commit`, `abort` leaves nothing."""

    queue_id = Attribute("str: the name the message will have in the queue")
    size = Attribute("int: octets written so far")

    def write(data: bytes) -> Awaitable[None] | None:
        """Append octets. Where it returns an Awaitable, await it before writing more: the disk is slower than the peer.

        Failures (a full disk) may show here or at `commit`: `SpoolError`.
        """

    def commit(
        envelope: Envelope,
        targets: Sequence[Target],
        *,
        name: str | None = None,
        received: int = 0,
        origin: Origin | None = None,
    ) -> Awaitable[None]:
        """Make it durable. When this returns, the message is on stable storage and its recipients are due.

        They are due at once, or when `envelope.options.hold_until` says. The message's first step is written to the
        history in the same transaction, with its `origin`.

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
        """Lease up to `limit` due deliveries for a destination: those of higher priority, then the longest due first.

        Recipients of one message with different reverse-paths are different deliveries.
        """

    def claim_held(destinations: Sequence[Destination], limit: int) -> Awaitable[Sequence[Delivery]]:
        """Lease up to `limit` deliveries of these `hold` destinations, the oldest first, whatever their times."""

    def destinations() -> Awaitable[Sequence[tuple[Destination, float]]]:
        """Every destination (but `hold`) that has deliveries not under lease, with the earliest time one is due."""

    def settle(settlements: Sequence[Settlement]) -> Awaitable[None]:
        """Write outcomes down, reports and events included, in one transaction. See `mail.queue.Settlement`."""

    def release(deliveries: Sequence[Delivery]) -> Awaitable[None]:
        """Give leases back: no attempt was made, they are due as they were."""

    def move(delivery: Delivery, destination: Destination) -> Awaitable[None]:
        """Give the lease back and queue the recipients under another destination, due at once."""

    def reroute(choose: Callable[[Address, Destination, Address | None], Destination]) -> Awaitable[int]:
        """Ask `choose` for every recipient that waits, with the destination it has and its reverse-path.

        It is moved where that changes the destination. Returns how many were moved.
        """

    def select(selection: Selection, limit: int, *, after: str = "") -> Awaitable[Sequence[QueuedMessage]]:
        """What is queued and selected, by queue id: up to `limit` messages whose id comes after `after`."""

    def leased(selection: Selection) -> Awaitable[Sequence[tuple[int, str]]]:
        """The recipients that are selected and under lease: the key of each, for `Selection.keys`, and its queue id."""

    def met(selection: Selection, *, addresses: bool = False) -> Awaitable[Met]:
        """The destinations of what is selected; and, where that is asked, the addresses. Each of them once."""

    def loads(limit: int) -> Awaitable[Sequence[DestinationLoad]]:
        """How much there is for each destination, for the `limit` that have the most."""

    def manage(action: QueueAction, selection: Selection, *, by: str) -> Awaitable[Managed]:
        """Do something with all selected recipients that are not under lease, and write that down in the history.

        In bites: no mail waits behind it. `by` names the operator. The watcher is told what is due now. `REQUEUE` here
        ends a hold and forgets the attempts; asking the router is the caller's, by `reroute`.
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
        """Write events down. They are kept for a set time, and read by `history`.

        Those with a `queue_id` are kept at least as long as the message is queued, and for a set time after that.
        """

    def history(
        *, kind: EventKind | None = None, subject: str | None = None, queue_id: str | None = None, limit: int = 100
    ) -> Awaitable[Sequence[Event]]:
        """The last events that fit, the latest first. Steps of messages are found by their `queue_id` only."""

    def find(text: str, limit: int = 100) -> Awaitable[Sequence[str]]:
        """Queue ids of messages, queued or gone, the latest first: whose id or Message-ID is `text`, or whose sender
        or one of whose recipients is that address (with `*` for anything). It may have to look through all that is
        kept.
        """  # noqa: D205 - one sentence

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
