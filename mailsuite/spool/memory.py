"""A spool in memory, for tests of everything that stands on one: the contract of `ISpool`, and nothing that lasts.

It answers at once: what it returns has fired already. `stop` and `start` play a crash: what was queued or kept is there
again, and leases are void.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.interfaces import IDraft, IQueueWatcher, ISpool, SpoolError, SpoolFull
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.queue import Delivery, HeldMail, Message, Recipient, Result, Settlement
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.spool.allowance import Bounds, to_go
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


class _Part(NamedTuple):
    """What was kept of a message."""

    queue_id: str
    content: bytes
    envelope: Envelope
    targets: Sequence[Target]
    received: int
    kept: float


@implementer(ISpool)
class MemorySpool:
    """See `ISpool`. A test that wants a broken spool sets `failure`: what would write then raises it.

    Events are kept for `history_time` seconds; of parts of messages there are at most `partials_count`, of
    `partials_octets` in all, each kept for `partials_time` seconds, and so are the last `completed_count` names of
    completed transactions.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        history_time: float = 30 * 86400.0,
        partials_count: int = 1000,
        partials_octets: int = 1024**3,
        partials_time: float = 48 * 3600.0,
        completed_count: int = 10_000,
    ) -> None:
        self.failure: SpoolError | None = None
        self._clock = clock
        self._history_time = history_time
        self._partials_count = partials_count
        self._partials_octets = partials_octets
        self._partials_time = partials_time
        self._events: list[Event] = []
        self._completed_count = completed_count
        self._parts: dict[str, _Part] = {}
        self._completed: dict[str, tuple[float, Completed]] = {}  # the oldest first
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
        return MemoryDraft(self._ids.next(), self._commit, b"")

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

    def reroute(self, choose: Callable[[Address, Destination], Destination]) -> Deferred[int]:
        if (error := self._error()) is not None:
            return fail(error)
        news = _News()
        moved = 0
        for one in list(self._waiting()):
            destination = choose(one.recipient.address, one.destination)
            if destination != one.destination:
                one.destination = destination
                one.due = self._clock.seconds()
                news.due[destination] = None
                moved += 1
        self._tell(news)
        return succeed(moved)

    def count(self) -> Deferred[int]:
        return self._answer(len({one.message.queue_id for one in self._queue.values()}))

    def hurry(self, destinations: Sequence[Destination]) -> Deferred[int]:
        if (error := self._error()) is not None:
            return fail(error)
        now = self._clock.seconds()
        news = _News()
        messages = set()
        for one in self._waiting():
            if one.destination in destinations and one.destination.agent != HOLD:
                one.due = min(one.due, now)
                news.due[one.destination] = None
                messages.add(one.message.queue_id)
        self._tell(news)
        return succeed(len(messages))

    # ------------------------------------------------------------------------ what is held, what was

    def held(self) -> Deferred[Sequence[HeldMail]]:
        domains: dict[str, dict[str, Message]] = {}
        for one in self._queue.values():
            if one.destination.agent == HOLD:
                domains.setdefault(one.destination.name, {})[one.message.queue_id] = one.message
        return self._answer(
            [
                HeldMail(
                    domain,
                    len(messages),
                    sum(message.size for message in messages.values()),
                    min(message.arrived for message in messages.values()),
                )
                for domain, messages in sorted(domains.items())
            ]
        )

    def held_messages(
        self, destination: Destination, until: float, limit: int, *, since: float = 0.0
    ) -> Deferred[Sequence[Message]]:
        waiting = self._waiting(destination) if destination.agent == HOLD else ()
        found = sorted((one for one in waiting if since < one.message.arrived <= until), key=lambda one: one.order)
        messages = {one.message.queue_id: one.message for one in found}
        return self._answer(list(messages.values())[: max(limit, 0)])

    def record(self, events: Sequence[Event]) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        try:
            copies = [replace(event, detail=json.loads(json.dumps(dict(event.detail)))) for event in events]
        except TypeError as defect:
            return fail(ValueError(f"the detail of an event cannot be written down: {defect}"))
        self._events += copies
        return succeed(None)

    def history(
        self,
        *,
        kind: EventKind | None = None,
        subject: str | None = None,
        queue_id: str | None = None,
        limit: int = 100,
    ) -> Deferred[Sequence[Event]]:
        since = self._clock.seconds() - self._history_time
        found = [
            event
            for event in reversed(self._events)
            if event.time >= since
            and kind in (None, event.kind)
            and subject in (None, event.subject)
            and queue_id in (None, event.queue_id)
        ]
        found.sort(key=lambda event: -event.time)  # of one time, the last first
        return self._answer(found[: max(limit, 0)])

    # ------------------------------------------------------------------------------- parts of messages

    def keep(
        self,
        draft: IDraft,
        name: str,
        envelope: Envelope,
        targets: Sequence[Target],
        received: int,
        *,
        size: int | None = None,
    ) -> Deferred[None]:
        if not self._open or not isinstance(draft, MemoryDraft):
            return fail(SpoolError("The spool is not open, or this is not a draft of it"))
        try:
            content = draft.finish(size)
        except SpoolError as defect:
            return fail(defect)
        self._parts.pop(name, None)
        if self.failure is not None:
            return succeed(None) if isinstance(self.failure, SpoolFull) else fail(self.failure)
        now = self._clock.seconds()
        self._parts = {other: part for other, part in self._parts.items() if part.kept >= now - self._partials_time}
        kept = [(other, len(part.content)) for other, part in self._parts.items()]
        bounds = Bounds(self._partials_count, self._partials_octets, self._partials_time)
        places = to_go(kept, name, len(content), bounds)
        if places is not None:
            for place in places:
                del self._parts[kept[place][0]]
            self._parts[name] = _Part(draft.queue_id, content, envelope, tuple(targets), received, now)
        return succeed(None)

    def resume(self, name: str) -> Deferred[Partial | Completed | None]:
        if (error := self._error()) is not None:
            return fail(error)
        since = self._clock.seconds() - self._partials_time
        when, completed = self._completed.get(name, (since, None))
        if completed is not None and when >= since:
            return succeed(completed)
        part = self._parts.pop(name, None)
        if part is None or part.kept < since:
            return succeed(None)
        draft = MemoryDraft(part.queue_id, self._commit, part.content)
        return succeed(Partial(draft, part.envelope, part.targets, part.received))

    def forget(self, name: str) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        self._parts.pop(name, None)
        return succeed(None)

    def heard(self, names: Sequence[str]) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        for name in names:
            self._completed.pop(name, None)
        return succeed(None)

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
        self,
        queue_id: str,
        envelope: Envelope,
        targets: Sequence[Target],
        content: MemoryContent,
        name: str | None,
        received: int,
    ) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        if name is not None:
            self._completed.pop(name, None)
            completed = Completed(queue_id, envelope, tuple(targets), received)
            self._completed[name] = self._clock.seconds(), completed
            while len(self._completed) > self._completed_count:
                del self._completed[next(iter(self._completed))]
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

    def __init__(self, queue_id: str, commit: Callable[..., Deferred[None]], have: bytes) -> None:
        self.queue_id = queue_id
        self.size = len(have)
        self._commit = commit
        self._chunks = [have]
        self._open = True

    def write(self, data: bytes) -> None:
        if not self._open:
            raise SpoolError(f"The draft {self.queue_id} is closed")
        self.size += len(data)
        self._chunks.append(data)

    def commit(
        self, envelope: Envelope, targets: Sequence[Target], *, name: str | None = None, received: int = 0
    ) -> Deferred[None]:
        if not self._open:
            return fail(SpoolError(f"The draft {self.queue_id} is closed"))
        if not targets:
            return fail(ValueError("a message without recipients cannot be queued"))
        self._open = False
        content = MemoryContent(b"".join(self._chunks))
        return self._commit(self.queue_id, envelope, targets, content, name, received)

    def abort(self) -> None:
        self._open = False
        self._chunks.clear()

    def finish(self, size: int | None) -> bytes:
        """End it, for `ISpool.keep`: the first `size` octets. Raises `SpoolError` where it is closed already."""
        if not self._open:
            raise SpoolError(f"The draft {self.queue_id} is closed")
        self._open = False
        return b"".join(self._chunks)[:size]


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
