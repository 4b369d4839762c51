"""What the contract of ISpool is tested with: names, a watcher that notes, and a kit around a spool."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.task import Clock

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Outcome, Report, Result, Settlement
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.status import EnhancedStatus

LARGE = 1000
KEPT = {
    "history_time": 5000.0,
    "journal_time": 8000.0,
    "partials_count": 5,
    "partials_octets": 200 * LARGE,
    "partials_time": 3000.0,
    "completed_count": 5,
}
MAILDIR = Destination("maildir")
RELAY = Destination("relay", "example.org")
OTHER = Destination("relay", "[192.0.2.1]:25")
HOLD = Destination("hold", "ship.example")
HOLD2 = Destination("hold", "branch.example")
SENDER = Address("joe", "example.net")
ENVELOPE = Envelope(SENDER)

DELIVERED = Outcome(Result.DELIVERED, EnhancedStatus(2, 0, 0), "done")
FAILED = Outcome(Result.FAILED, EnhancedStatus(5, 1, 1), "no such user", remote="mx.example.org")


def deferred(until: float | None) -> Outcome:
    return Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 1), "no answer", remote="mx", next_attempt=until)


def target(destination: Destination, name: str = "fred", original: Address | None = None) -> Target:
    return Target(Address(name, "example.com"), destination, original)


class Watcher:
    """Takes what there is room for, and notes what it is told."""

    def __init__(self, *room: Destination) -> None:
        self.room = room
        self.asked: list[tuple[Destination, int]] = []
        self.deliveries: list[Delivery] = []
        self.groups: list[int] = []
        self.waiting: list[Destination] = []

    def has_room(self, destination: Destination, size: int) -> bool:
        self.asked.append((destination, size))
        return destination in self.room

    def committed(self, deliveries: Any) -> None:
        self.groups.append(len(deliveries))
        self.deliveries += deliveries

    def due(self, destinations: Any) -> None:
        self.waiting += destinations


class Kit:
    """A spool, its clock, and a way to wait. `reopen` ends this run without settling anything, and begins another."""

    def __init__(
        self, spool: Any, clock: Clock, run: Callable[[Awaitable[Any]], Any], begin: Callable[[], Any]
    ) -> None:
        self.spool = spool
        self.clock = clock
        self.run = run
        self._begin = begin

    def put(self, *targets: Target | Destination, content: bytes = b"Hello\r\n", envelope: Envelope = ENVELOPE) -> str:
        """Commit a message; its queue id."""
        draft = self.spool.draft()
        self.run(self._write(draft, content))
        whole = [one if isinstance(one, Target) else target(one) for one in targets]
        self.run(draft.commit(envelope, whole))
        return str(draft.queue_id)

    def claim(self, destination: Destination, limit: int = 100) -> list[Delivery]:
        return list(self.run(self.spool.claim(destination, limit)))

    def claim_held(self, *destinations: Destination, limit: int = 100) -> list[Delivery]:
        return list(self.run(self.spool.claim_held(destinations, limit)))

    def settle(self, delivery: Delivery, *outcomes: Outcome, reports: tuple[Report, ...] = ()) -> None:
        self.run(self.spool.settle([Settlement(delivery, outcomes, reports)]))

    def count(self) -> int:
        return int(self.run(self.spool.count()))

    def destinations(self) -> dict[Destination, float]:
        return dict(self.run(self.spool.destinations()))

    def content(self, delivery: Delivery) -> bytes:
        return bytes(self.run(delivery.content.read(0, delivery.content.size + 1)))

    def reopen(self) -> None:
        self.run(self.spool.stop())
        self.spool = self._begin()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "it never came"

    async def _write(self, draft: Any, content: bytes) -> None:
        for at in range(0, len(content), 400):
            waiting = draft.write(content[at : at + 400])
            if waiting is not None:
                await waiting


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.queue_id for delivery in deliveries]


def names(delivery: Delivery) -> list[str]:
    return [recipient.address.local_part for recipient in delivery.recipients]
