"""A spool in memory, for tests of everything that stands on one: the contract of `ISpool`, and nothing that lasts.

It answers at once: what it returns has fired already. `stop` and `start` play a crash: what was queued is there again,
and leases are void.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.interfaces import IDraft, IQueueWatcher, ISpool, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Message, Recipient, Result, Settlement
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.spool.ids import QueueIds

_T = TypeVar("_T")


@dataclass(slots=True)
class _Waiting:
    """A recipient in the queue."""

    message: Message
    content: MemoryContent
    recipient: Recipient
    destination: Destination
    due: float
    leased: bool = False
    replayed: bool = False

    @property
    def order(self) -> tuple[float, str, int]:
        """The longest due first; under hold, where nothing is due, the oldest."""
        due = self.message.arrived if self.destination.agent == HOLD else self.due
        return due, self.message.queue_id, self.recipient.key


@dataclass(slots=True)
class _News:
    """What the watcher is told of a change."""

    leased: list[Delivery] = field(default_factory=list)
    due: dict[Destination, None] = field(default_factory=dict)


@implementer(ISpool)
class MemorySpool:
    """See `ISpool`. A test that wants a broken spool sets `failure`: what would write then raises it."""

    def __init__(self, clock: IReactorTime) -> None:
        self.failure: SpoolError | None = None
        self._clock = clock
        self._ids = QueueIds(clock, 0)
        self._keys = count(1)
        self._queue: dict[int, _Waiting] = {}
        self._watcher: IQueueWatcher | None = None
        self._open = True

    def start(self) -> Deferred[None]:
        """Needed after `stop` only."""
        self._open = True
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._open = False
        for waiting in self._queue.values():
            waiting.replayed |= waiting.leased
            waiting.leased = False
        return succeed(None)

    def watch(self, watcher: IQueueWatcher) -> None:
        self._watcher = watcher

    def draft(self) -> MemoryDraft:
        if not self._open:
            raise SpoolError("The spool is not open")
        return MemoryDraft(self._ids.next(), self._commit)

    def claim(self, destination: Destination, limit: int) -> Deferred[Sequence[Delivery]]:
        now = self._clock.seconds()
        # What is held is never due by itself.
        due = [one for one in self._waiting(destination) if one.due <= now and destination.agent != HOLD]
        return self._lease(due, limit)

    def claim_held(self, destinations: Sequence[Destination], limit: int) -> Deferred[Sequence[Delivery]]:
        held = [one for destination in destinations if destination.agent == HOLD for one in self._waiting(destination)]
        return self._lease(held, limit)

    def destinations(self) -> Deferred[Sequence[tuple[Destination, float]]]:
        earliest: dict[Destination, float] = {}
        for one in self._waiting():
            if one.destination.agent != HOLD:
                earliest[one.destination] = min(one.due, earliest.get(one.destination, one.due))
        return self._answer(sorted(earliest.items()))

    def settle(self, settlements: Sequence[Settlement]) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        try:
            _check(settlements)
        except ValueError as defect:
            return fail(defect)
        news = _News()
        for settlement in settlements:
            self._settle(settlement, news)
        self._tell(news)
        return succeed(None)

    def release(self, deliveries: Sequence[Delivery]) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        for delivery in deliveries:
            for one in self._held(delivery):
                one.leased = False
        return succeed(None)

    def move(self, delivery: Delivery, destination: Destination) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        for one in self._held(delivery):
            one.leased = False
            one.destination = destination
            one.due = self._clock.seconds()
        self._tell(_News(due={destination: None}))
        return succeed(None)

    def reroute(self, choose: Callable[[Address], Destination]) -> Deferred[int]:
        if (error := self._error()) is not None:
            return fail(error)
        news = _News()
        moved = 0
        for one in list(self._waiting()):
            destination = choose(one.recipient.address)
            if destination != one.destination:
                one.destination = destination
                one.due = self._clock.seconds()
                news.due[destination] = None
                moved += 1
        self._tell(news)
        return succeed(moved)

    def count(self) -> Deferred[int]:
        return self._answer(len({one.message.queue_id for one in self._queue.values()}))

    # ------------------------------------------------------------------------------------------------

    def _error(self) -> SpoolError | None:
        return self.failure if self._open else SpoolError("The spool is not open")

    def _answer(self, value: _T) -> Deferred[_T]:
        return succeed(value) if self._open else fail(SpoolError("The spool is not open"))

    def _waiting(self, destination: Destination | None = None) -> Iterable[_Waiting]:
        for one in self._queue.values():
            if not one.leased and destination in (None, one.destination):
                yield one

    def _held(self, delivery: Delivery) -> list[_Waiting]:
        found = (self._queue.get(recipient.key) for recipient in delivery.recipients)
        return [one for one in found if one is not None and one.leased]

    def _commit(
        self, queue_id: str, envelope: Envelope, targets: Sequence[Target], content: MemoryContent
    ) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        news = _News()
        self._enter(queue_id, envelope, targets, content, news)
        self._tell(news)
        return succeed(None)

    def _enter(
        self, queue_id: str, envelope: Envelope, targets: Sequence[Target], content: MemoryContent, news: _News
    ) -> None:
        now = self._clock.seconds()
        message = Message(queue_id, envelope, content.size, now)
        together: dict[Destination, list[_Waiting]] = {}
        for target in targets:
            recipient = Recipient(next(self._keys), target.address, target.original)
            one = _Waiting(message, content, recipient, target.destination, now)
            self._queue[recipient.key] = one
            together.setdefault(target.destination, []).append(one)
        for destination, entered in together.items():
            if destination.agent != HOLD and self._has_room(destination, content.size):
                for one in entered:
                    one.leased = True
                news.leased.append(_delivery(entered))
            else:
                news.due[destination] = None

    def _lease(self, waiting: Iterable[_Waiting], limit: int) -> Deferred[Sequence[Delivery]]:
        if (error := self._error()) is not None:
            return fail(error)
        together: dict[tuple[str, Destination], list[_Waiting]] = {}
        for one in sorted(waiting, key=lambda one: one.order):
            together.setdefault((one.message.queue_id, one.destination), []).append(one)
        taken = list(together.values())[: max(limit, 0)]
        for one in chain.from_iterable(taken):
            one.leased = True
        return succeed([_delivery(entered) for entered in taken])

    def _settle(self, settlement: Settlement, news: _News) -> None:
        held = {one.recipient.key: one for one in self._held(settlement.delivery)}
        for recipient, outcome in zip(settlement.delivery.recipients, settlement.outcomes, strict=True):
            one = held.get(recipient.key)
            if one is None:
                continue
            if outcome.result is not Result.DEFERRED:
                del self._queue[recipient.key]
                continue
            one.recipient = replace(one.recipient, attempts=one.recipient.attempts + 1)
            one.leased = one.replayed = False
            if outcome.next_attempt is not None:
                one.due = outcome.next_attempt
        if held:
            for report in settlement.reports:
                self._enter(self._ids.next(), report.envelope, report.targets, MemoryContent(report.content), news)

    def _has_room(self, destination: Destination, size: int) -> bool:
        return self._watcher is not None and bool(self._watcher.has_room(destination, size))

    def _tell(self, news: _News) -> None:
        if self._watcher is None:
            return
        if news.leased:
            self._watcher.committed(news.leased)
        due = [destination for destination in news.due if destination.agent != HOLD]
        if due:
            self._watcher.due(due)


@implementer(IDraft)
class MemoryDraft:
    """See `IDraft`."""

    def __init__(self, queue_id: str, commit: Callable[..., Deferred[None]]) -> None:
        self.queue_id = queue_id
        self.size = 0
        self._commit = commit
        self._chunks: list[bytes] = []
        self._open = True

    def write(self, data: bytes) -> None:
        if not self._open:
            raise SpoolError(f"The draft {self.queue_id} is closed")
        self.size += len(data)
        self._chunks.append(data)

    def commit(self, envelope: Envelope, targets: Sequence[Target]) -> Deferred[None]:
        if not self._open:
            return fail(SpoolError(f"The draft {self.queue_id} is closed"))
        if not targets:
            return fail(ValueError("a message without recipients cannot be queued"))
        self._open = False
        return self._commit(self.queue_id, envelope, targets, MemoryContent(b"".join(self._chunks)))

    def abort(self) -> None:
        self._open = False
        self._chunks.clear()


def _delivery(together: Sequence[_Waiting]) -> Delivery:
    first = together[0]
    together = sorted(together, key=lambda one: one.recipient.key)
    recipients = tuple(one.recipient for one in together)
    replayed = any(one.replayed for one in together)
    return Delivery(first.message, first.destination, recipients, first.content, replayed)


def _check(settlements: Sequence[Settlement]) -> None:
    """Refuse what no scheduler should send. Raises `ValueError`."""
    for settlement in settlements:
        held = settlement.delivery.destination.agent == HOLD
        for _, outcome in zip(settlement.delivery.recipients, settlement.outcomes, strict=True):
            if outcome.result is Result.DEFERRED and outcome.next_attempt is None and not held:
                raise ValueError("a deferred outcome does not say when the next attempt is")
        if not all(report.targets for report in settlement.reports):
            raise ValueError("a message without recipients cannot be queued")
