"""The spool in memory: the contract of `ISpool`, and nothing that lasts.

It answers at once: what it returns has fired already. `stop` and `start` play a crash: what was queued or kept is there
again, and leases are void.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.interfaces import IDraft, IQueueWatcher, ISpool, SpoolError, SpoolFull
from mailsuite.mail import steps
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.origin import Origin
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.queue import Delivery, HeldMail, Message, Recipient, Result, Settlement
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.mail.selection import DestinationLoad, Managed, Met, QueueAction, QueuedMessage, Selection
from mailsuite.spool.allowance import Bounds
from mailsuite.spool.ids import QueueIds
from mailsuite.spool.journal import steps_of
from mailsuite.spool.memory import queue
from mailsuite.spool.memory.draft import MemoryDraft
from mailsuite.spool.memory.history import History
from mailsuite.spool.memory.parts import Kept
from mailsuite.spool.memory.queue import Waiting
from mailsuite.spool.routing import Careful

_T = TypeVar("_T")


@dataclass(slots=True)
class _News:
    """What the watcher is told of a change."""

    leased: list[Delivery] = field(default_factory=list)
    due: dict[Destination, None] = field(default_factory=dict)


@implementer(ISpool)
class MemorySpool:
    """See `ISpool`. A test that wants a broken spool sets `failure`: what would write then raises it.

    Events are kept for `history_time` seconds, steps of messages until `journal_time` seconds after the last one; of
    parts of messages there are at most `partials_count`, of `partials_octets` in all, each kept for `partials_time`
    seconds, and so are the last `completed_count` names of completed transactions.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        history_time: float = 30 * 86400.0,
        journal_time: float = 30 * 86400.0,
        partials_count: int = 1000,
        partials_octets: int = 1024**3,
        partials_time: float = 48 * 3600.0,
        completed_count: int = 10_000,
    ) -> None:
        self.failure: SpoolError | None = None
        self._clock = clock
        self._history = History(history_time, journal_time)
        self._kept = Kept(clock, Bounds(partials_count, partials_octets, partials_time), completed_count, self._commit)
        self._ids = QueueIds(clock, 0)
        self._keys = count(1)
        self._queue: dict[int, Waiting] = {}
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

    # ----------------------------------------------------------------------------------- the way out

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
            if not one.is_held:
                earliest[one.destination] = min(one.due, earliest.get(one.destination, one.due))
        return self._answer(sorted(earliest.items()))

    def settle(self, settlements: Sequence[Settlement]) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        try:
            _check(settlements)
            news = _News()
            for settlement in settlements:
                self._settle(settlement, news)
        except ValueError as defect:
            return fail(defect)
        self._tell(news)
        return succeed(None)

    def release(self, deliveries: Sequence[Delivery]) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        for delivery in deliveries:
            for one in self._leased(delivery):
                one.leased = False
        return succeed(None)

    def move(self, delivery: Delivery, destination: Destination) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        for one in self._leased(delivery):
            one.leased = False
            self._move(one, destination)
        self._tell(_News(due={destination: None}))
        return succeed(None)

    def reroute(self, choose: Callable[[Address, Destination, Address | None], Destination]) -> Deferred[int]:
        if (error := self._error()) is not None:
            return fail(error)
        news = _News()
        carefully = Careful(choose)
        moved = 0
        for one in [one for one in self._queue.values() if not one.leased and not one.recipient.expired]:
            sender = one.recipient.reverse_path or one.message.envelope.reverse_path
            destination = carefully(one.recipient.address, one.destination, sender)
            if destination != one.destination:
                self._move(one, destination, one.due)
                news.due[destination] = None
                moved += 1
        self._tell(news)
        return succeed(moved)

    def hurry(self, destinations: Sequence[Destination]) -> Deferred[int]:
        if (error := self._error()) is not None:
            return fail(error)
        now = self._clock.seconds()
        news = _News()
        messages = set()
        for one in self._waiting():
            if one.destination in destinations and not one.is_held:
                one.due = min(one.due, one.not_before(now))
                news.due[one.destination] = None
                messages.add(one.message.queue_id)
        self._tell(news)
        return succeed(len(messages))

    # ------------------------------------------------------------------------------- what operators ask

    def count(self) -> Deferred[int]:
        return self._answer(len(self._queued()))

    def select(self, selection: Selection, limit: int, *, after: str = "") -> Deferred[Sequence[QueuedMessage]]:
        now = self._clock.seconds()
        found = queue.by_message(queue.selected(self._queue.values(), selection, now), now)
        return self._answer([one for one in found if one.message.queue_id > after][: max(limit, 0)])

    def leased(self, selection: Selection) -> Deferred[Sequence[tuple[int, str]]]:
        found = queue.selected(self._queue.values(), selection, self._clock.seconds())
        return self._answer([(one.recipient.key, one.message.queue_id) for one in found if one.leased])

    def met(self, selection: Selection, *, addresses: bool = False) -> Deferred[Met]:
        found = queue.selected(self._queue.values(), selection, self._clock.seconds())
        who = frozenset(one.recipient.address for one in found) if addresses else frozenset[Address]()
        return self._answer(Met(frozenset(one.destination for one in found), who))

    def loads(self, limit: int) -> Deferred[Sequence[DestinationLoad]]:
        return self._answer(queue.loads(self._queue.values(), self._clock.seconds())[: max(limit, 0)])

    def manage(self, action: QueueAction, selection: Selection, *, by: str) -> Deferred[Managed]:
        if (error := self._error()) is not None:
            return fail(error)
        now = self._clock.seconds()
        chosen = queue.selected(self._queue.values(), selection, now)
        news = _News()
        changed: dict[str, list[str]] = {}
        for one in chosen:
            if one.leased or not queue.manage(action, one, now):
                continue
            changed.setdefault(one.message.queue_id, []).append(str(one.recipient.address))
            if action is QueueAction.DELETE:
                del self._queue[one.recipient.key]
            elif action is not QueueAction.HOLD:
                news.due[one.destination] = None
        self._history.add(
            Event(now, EventKind.MANAGED, action.value, queue_id, {"recipients": addresses, "by": by})
            for queue_id, addresses in changed.items()
        )
        self._tell(news)
        recipients = sum(len(addresses) for addresses in changed.values())
        return succeed(Managed(len(changed), recipients, sum(one.leased for one in chosen)))

    def find(self, text: str, limit: int = 100) -> Deferred[Sequence[str]]:
        queued = self._queued()
        found = self._history.messages(queued, self._clock.seconds(), text)
        found.update(queued.intersection((text,)))
        return self._answer(sorted(found, reverse=True)[: max(limit, 0)])

    # ------------------------------------------------------------------------ what is held, what was

    def held(self) -> Deferred[Sequence[HeldMail]]:
        domains: dict[str, dict[str, Message]] = {}
        for one in self._queue.values():
            if one.is_held:
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
            self._history.add(events)
        except ValueError as defect:
            return fail(defect)
        return succeed(None)

    def history(
        self,
        *,
        kind: EventKind | None = None,
        subject: str | None = None,
        queue_id: str | None = None,
        limit: int = 100,
    ) -> Deferred[Sequence[Event]]:
        found = self._history.find(self._queued(), self._clock.seconds(), kind, subject, queue_id)
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
        self._kept.forget(name)
        if self.failure is not None:
            return succeed(None) if isinstance(self.failure, SpoolFull) else fail(self.failure)
        self._kept.keep(draft.queue_id, content, name, envelope, targets, received)
        return succeed(None)

    def resume(self, name: str) -> Deferred[Partial | Completed | None]:
        error = self._error()
        return succeed(self._kept.resume(name)) if error is None else fail(error)

    def forget(self, name: str) -> Deferred[None]:
        error = self._error()
        if error is not None:
            return fail(error)
        self._kept.forget(name)
        return succeed(None)

    def heard(self, names: Sequence[str]) -> Deferred[None]:
        error = self._error()
        if error is not None:
            return fail(error)
        self._kept.heard(names)
        return succeed(None)

    # ------------------------------------------------------------------------------------------------

    def _error(self) -> SpoolError | None:
        return self.failure if self._open else SpoolError("The spool is not open")

    def _answer(self, value: _T) -> Deferred[_T]:
        return succeed(value) if self._open else fail(SpoolError("The spool is not open"))

    def _queued(self) -> set[str]:
        return {one.message.queue_id for one in self._queue.values()}

    def _waiting(self, destination: Destination | None = None) -> Iterable[Waiting]:
        for one in self._queue.values():
            if one.waits and destination in (None, one.destination):
                yield one

    def _leased(self, delivery: Delivery) -> list[Waiting]:
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
        origin: Origin | None,
    ) -> Deferred[None]:
        if (error := self._error()) is not None:
            return fail(error)
        if name is not None:
            self._kept.complete(name, Completed(queue_id, envelope, tuple(targets), received))
        news = _News()
        now = self._clock.seconds()
        self._history.add([steps.received(queue_id, envelope, targets, content.size, origin, now)])
        self._enter(queue_id, envelope, targets, content, news)
        self._tell(news)
        return succeed(None)

    def _enter(
        self, queue_id: str, envelope: Envelope, targets: Sequence[Target], content: MemoryContent, news: _News
    ) -> None:
        now = self._clock.seconds()
        message = Message(queue_id, envelope, content.size, now)
        due = max(now, envelope.options.hold_until or now)
        together: dict[Destination, list[Waiting]] = {}
        for target in targets:
            recipient = Recipient(
                next(self._keys),
                target.address,
                target.original,
                options=target.options,
                reverse_path=target.reverse_path,
            )
            one = Waiting(message, content, recipient, target.destination, due)
            self._queue[recipient.key] = one
            together.setdefault(target.destination, []).append(one)
        for destination, entered in together.items():
            if destination.agent != HOLD and due <= now and self._has_room(destination, content.size):
                for one in entered:
                    one.leased = True
                news.leased += _deliveries(entered)
            else:
                news.due[destination] = None

    def _move(self, one: Waiting, destination: Destination, due: float | None = None) -> None:
        now = self._clock.seconds()
        whom, old = [str(one.recipient.address)], str(one.destination)
        self._history.add([steps.routed(one.message.queue_id, whom, old, str(destination), now)])
        one.due = one.not_before(now) if due is None or one.is_held else max(due, one.not_before(due))
        one.destination = destination

    def _lease(self, waiting: Iterable[Waiting], limit: int) -> Deferred[Sequence[Delivery]]:
        if (error := self._error()) is not None:
            return fail(error)
        taken = _deliveries(sorted(waiting, key=lambda one: one.order))[: max(limit, 0)]
        for recipient in chain.from_iterable(delivery.recipients for delivery in taken):
            self._queue[recipient.key].leased = True
        return succeed(taken)

    def _settle(self, settlement: Settlement, news: _News) -> None:
        leased = {one.recipient.key: one for one in self._leased(settlement.delivery)}
        events = list(settlement.events)
        if leased:
            reports = [(self._ids.next(), report) for report in settlement.reports]
            self._history.add(steps_of(settlement, [queue_id for queue_id, _ in reports]))
            now = self._clock.seconds()
            for queue_id, report in reports:
                content = MemoryContent(report.content)
                event = steps.received(queue_id, report.envelope, report.targets, content.size, report.origin, now)
                composed = settlement.delivery.message.queue_id
                self._history.add([replace(event, detail={**event.detail, "composed": composed})])
                self._enter(queue_id, report.envelope, report.targets, content, news)
        elif not settlement.reports:
            self._history.add(events)
        for recipient, outcome in zip(settlement.delivery.recipients, settlement.outcomes, strict=True):
            one = leased.get(recipient.key)
            if one is None:
                continue
            if outcome.result not in (Result.DEFERRED, Result.HELD):
                del self._queue[recipient.key]
                continue
            one.leased = False
            one.last_attempt, one.last = self._clock.seconds(), outcome
            one.recipient = replace(
                one.recipient, delay_told=one.recipient.delay_told or recipient.key in settlement.delay_told
            )
            if outcome.result is Result.HELD:
                one.on_hold = one.replayed = True
                continue
            one.replayed = False
            one.recipient = replace(one.recipient, attempts=one.recipient.attempts + 1)
            if outcome.next_attempt is not None:
                one.due = outcome.next_attempt
            if recipient.key in settlement.unreported:
                one.keep_back(outcome)

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


def _deliveries(waiting: Iterable[Waiting]) -> list[Delivery]:
    together: dict[object, list[Waiting]] = {}
    for one in waiting:
        together.setdefault(one.together, []).append(one)
    return [queue.delivery(ones) for ones in together.values()]


def _check(settlements: Sequence[Settlement]) -> None:
    """Refuse what no scheduler should send. Raises `ValueError`."""
    for settlement in settlements:
        held = settlement.delivery.destination.agent == HOLD
        for _, outcome in zip(settlement.delivery.recipients, settlement.outcomes, strict=True):
            if outcome.result is Result.DEFERRED and outcome.next_attempt is None and not held:
                raise ValueError("a deferred outcome does not say when the next attempt is")
        if not all(report.targets for report in settlement.reports):
            raise ValueError("a message without recipients cannot be queued")
