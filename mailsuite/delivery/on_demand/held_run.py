"""Held runs: what is held for a customer, drained by the relay session of a turn or by the relay agent for ETRN.

Mail is claimed in small parts, so that what arrives meanwhile is included, and so that another run for the same
customer finds its share. What was deferred in a run is not offered in it again: it is kept aside, under lease, until
the run ends, because the oldest would be claimed first each time.

What was under way when a customer's last turn broke comes last, and the first of it at the very end: a message that
breaks every line, whatever the reason, keeps no other waiting.

A customer whose disk is full defers everything. After a few such answers in a row the run ends by itself: what is left
stays held, and no line is spent on it. So does a run for somebody who is no customer any more: it is asked before each
claim, what was claimed before that goes its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import IQueueRun, ISpool, SpoolError
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import Destination

_MOST_AHEAD: Final = 32  # deliveries claimed at once
_OCTETS_AHEAD: Final = 2 * 1024 * 1024  # contents in memory; a claim that brought more makes the next one smaller
_PATIENCE: Final = 60  # seconds to wait for settlements to catch up; the customer waits as long for a command
_RELEASE_PAUSE: Final = 10.0
_FULL_IN_A_ROW: Final = 5
_SYSTEM_FULL: Final = ((3, 1), (3, 2))  # RFC 3463 section 3.4
_GONE: Final = (Result.DELIVERED, Result.RELAYED)


class TakesOutcomes(Protocol):
    """What is asked of `mailsuite.delivery.settlements.Settlements`."""

    @property
    def is_behind(self) -> bool:
        """As there."""

    @property
    def is_idle(self) -> bool:
        """As there."""

    def drained(self) -> Deferred[None]:
        """As there."""

    def add(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """As there."""


class Returns:
    """Gives leases back, again and again while the spool fails."""

    _log = Logger()

    def __init__(self, spool: ISpool, clock: IReactorTime) -> None:
        self._spool = spool
        self._clock = clock
        self._tasks = Tasks()
        self._pending: list[Delivery] = []

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back, as soon as may be."""
        self._pending += deliveries
        if self._pending and not self._tasks:
            self._tasks.start(self._give_back(), "giving leases back")

    def stop(self) -> None:
        """Try no more: a spool that stops gives all leases back."""
        self._tasks.cancel()

    async def _give_back(self) -> None:
        while self._pending:
            deliveries = list(self._pending)
            try:
                await self._spool.release(deliveries)
            except SpoolError as error:
                self._log.error(
                    "{count} leases are not given back yet: {error}", count=len(deliveries), error=str(error)
                )
                await deferLater(self._clock, _RELEASE_PAUSE)
            else:
                del self._pending[: len(deliveries)]


@dataclass(frozen=True, slots=True)
class HeldQueue:
    """What held runs are made over; `limit` is the most messages in one."""

    spool: ISpool
    settlements: TakesOutcomes
    clock: IReactorTime
    returns: Returns
    limit: int = 10_000

    def run(
        self,
        destinations: Sequence[Destination],
        *,
        last: Sequence[str] = (),
        objection: Callable[[], str | None] = lambda: None,
    ) -> HeldRun:
        """A run over these `hold` destinations; the messages with the ids in `last` come after all others.

        They come in that order. `objection` tells in a sentence why nothing more may be claimed, or None.
        """
        return HeldRun(destinations, self, last, objection)


@dataclass(slots=True)
class Tally:
    """What a run has come to: messages that someone has got with their octets, and those of which some recipient was
    deferred or has failed.
    """  # noqa: D205 - one sentence

    messages: int = 0
    octets: int = 0
    deferred: int = 0
    failed: int = 0


@implementer(IQueueRun)
class HeldRun:
    """Everything that is held for some destinations, up to the queue's limit.

    `destination` is the first of them. `trouble` says in a sentence why the run ended before all was sent. After `end`
    it gives nothing more, and what it had is given back.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        queue: HeldQueue,
        last: Sequence[str],
        objection: Callable[[], str | None],
    ) -> None:
        self.destination = destinations[0]
        self.tally = Tally()
        self.trouble: str | None = None
        self._destinations = tuple(destinations)
        self._spool = queue.spool
        self._settlements = queue.settlements
        self._clock = queue.clock
        self._returns = queue.returns
        self._objection = objection
        self._room = queue.limit  # messages that may still be given out
        self._ahead = _MOST_AHEAD
        self._ready: deque[Delivery] = deque()
        self._held: dict[int, Delivery] = {}  # given out, by identity: to hash a delivery is to read its content
        self._last = {queue_id: rank for rank, queue_id in enumerate(last)}
        self._later: list[Delivery] = []  # those of them that were claimed
        self._unsettled: dict[str, None] = {}  # the ids of what was given out, in that order
        self._aside: list[Delivery] = []
        self._deferred: set[int] = set()  # recipients that were deferred in this run
        self._full_for: set[object] = set()
        self._over = False
        self._waiters: list[Deferred[None]] | None = None
        self._tasks = Tasks()

    @property
    def under_way(self) -> Sequence[str]:
        """The ids of the messages that were given out and never settled, in that order."""
        return tuple(self._unsettled)

    # ----------------------------------------------------------------------------------------- taking

    async def look(self) -> bool:
        """Whether there is something to give out. Raises `SpoolError` where that cannot be told."""
        await self._fill()
        if self.trouble is not None and not self._ready:
            raise SpoolError(self.trouble)
        return bool(self._ready)

    async def next(self) -> Delivery | None:
        batch = await self.batch(1)
        return batch[0] if batch else None

    async def batch(self, limit: int) -> Sequence[Delivery]:
        await self._fill()
        count = min(limit, len(self._ready), self._room)
        taken = [self._ready.popleft() for _ in range(count)]
        self._room -= len(taken)
        for delivery in taken:
            self._held[id(delivery)] = delivery
            self._unsettled[delivery.message.queue_id] = None
        return taken

    async def _fill(self) -> None:
        """Have something ready where there is something to have. Those who ask at once wait for one claim."""
        if self._over or self._ready:
            return
        if self._room <= 0:
            self._stop_short("as many messages were sent as there may be in one turn")
            return
        waiter: Deferred[None] = Deferred()
        if self._waiters is not None:
            self._waiters.append(waiter)
        else:
            self._waiters = [waiter]
            # Apart from whoever asked: when that is cancelled, what was claimed is still ours to give back.
            self._tasks.start(self._claim(), f"the claim for {self.destination}")
        await waiter

    async def _claim(self) -> None:
        try:
            while not (self._over or self._ready):
                if not await self._caught_up():
                    self._stop_short("the spool cannot keep up")
                    return
                if (objection := self._objection()) is not None:
                    self._stop_short(objection)
                    return
                claimed = await self._spool.claim_held(self._destinations, min(self._ahead, self._room))
                if not claimed:
                    last, self._last = self._last, {}
                    self._ready.extend(sorted(self._later, key=lambda one: last[one.message.queue_id]))
                    self._later.clear()
                    return
                self._take_in(claimed)
        except SpoolError as error:
            self._stop_short(str(error))
        finally:
            waiters, self._waiters = self._waiters or [], None
            for waiter in waiters:
                if not waiter.called:
                    waiter.callback(None)

    async def _caught_up(self) -> bool:
        for _ in range(_PATIENCE):
            if not self._settlements.is_behind or self._over:
                return True
            await deferLater(self._clock, 1.0)
        return False

    def _take_in(self, claimed: Sequence[Delivery]) -> None:
        if self._over:
            self._returns.add(claimed)
            return
        octets = sum(delivery.message.size for delivery in claimed if delivery.content.in_memory() is not None)
        self._ahead = max(self._ahead // 2, 1) if octets > _OCTETS_AHEAD else min(self._ahead * 2, _MOST_AHEAD)
        for delivery in claimed:
            if self._deferred.isdisjoint(recipient.key for recipient in delivery.recipients):
                if delivery.message.queue_id in self._last:
                    # The customer may have it, or a part: whoever sends it asks before.
                    self._later.append(replace(delivery, replayed=True))
                else:
                    self._ready.append(delivery)
            else:
                # To give it back later, its content is not needed.
                self._aside.append(replace(delivery, content=MemoryContent(b"")))

    # --------------------------------------------------------------------------------------- settling

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        if len(outcomes) != len(delivery.recipients):
            raise ValueError(f"{len(outcomes)} outcomes for {len(delivery.recipients)} recipients")
        if self._held.pop(id(delivery), None) is not delivery:
            raise ValueError(f"{delivery.message.queue_id} is not held by this run")
        self._unsettled.pop(delivery.message.queue_id, None)
        self._deferred.update(
            recipient.key
            for recipient, outcome in zip(delivery.recipients, outcomes, strict=True)
            if outcome.result is Result.DEFERRED
        )
        results = {outcome.result for outcome in outcomes}
        if not results.isdisjoint(_GONE):
            self.tally.messages += 1
            self.tally.octets += delivery.message.size
        self.tally.deferred += Result.DEFERRED in results
        self.tally.failed += Result.FAILED in results
        self._settlements.add(delivery, outcomes)
        self._note_if_full(delivery, outcomes)

    def release(self, delivery: Delivery) -> None:
        if self._held.get(id(delivery)) is delivery:
            del self._held[id(delivery)]
            self._room += 1
            self._ready.appendleft(delivery)

    def fail(self, outcome: Outcome) -> None:
        """Give everything back: that a host cannot be reached counts nothing against what is held for it."""
        self._stop_short(outcome.text)
        self._give_back()

    def end(self) -> None:
        """Give everything back, and nothing out any more. May be called twice."""
        self._over = True
        self._give_back()

    # ------------------------------------------------------------------------------------------------

    def _note_if_full(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Stop where nothing more has room there. That one mailbox is full must not keep the others waiting."""
        first = outcomes[0]
        if not all(outcome.result is Result.DEFERRED and outcome.reply is not None for outcome in outcomes):
            self._full_for.clear()
        elif first.status[1:] in _SYSTEM_FULL:
            self._full_for.add(delivery.message.queue_id)
        elif first.reply is not None and first.reply.code == 452 and first.reply.status is None:
            # RFC 5321 section 4.2.2: "insufficient system storage"; but many say it of a mailbox.
            self._full_for.update(recipient.address for recipient in delivery.recipients)
        else:
            self._full_for.clear()
        if len(self._full_for) >= _FULL_IN_A_ROW and not self._over:
            self._stop_short(f"the customer's server has no room: {first.text}")

    def _stop_short(self, why: str) -> None:
        self._over = True
        self.trouble = self.trouble or why
        self._returns.add([*self._ready, *self._later])
        self._ready.clear()
        self._later.clear()

    def _give_back(self) -> None:
        self._returns.add([*self._ready, *self._later, *self._held.values(), *self._aside])
        self._ready.clear()
        self._later.clear()
        self._held.clear()
        self._aside.clear()
