"""The active queue of one destination: what is leased and ready, what else the spool has, and whether to go on.

Deliveries come in two ways: straight from a commit, or claimed from the spool in batches. Where both have some, they
take turns, so that fresh mail does not keep old mail waiting for ever.

A destination that cannot be reached is down for a while: what is ready or due is deferred in bulk, without an attempt
for each (RFC 5321 section 4.5.4.1), and nothing is taken until the pause is over. The pause grows while the destination
stays dead, and is forgotten as soon as anything is settled there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.settlements import Settlements
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import IDeliveryAgent, ISpool, SpoolError
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import Destination

_CLAIM_LIMIT: Final = 100
_SPOOL_PAUSE: Final = 10.0  # seconds before a spool that failed is asked for deliveries again


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be ready in memory. `octets` counts contents up to `large` each: larger ones lie on the disk."""

    count: int = 1000
    octets: int = 16 * 1024 * 1024
    total_count: int = 20_000
    total_octets: int = 64 * 1024 * 1024
    large: int = 256 * 1024


class Load:
    """What is ready in all queues together, against the bounds."""

    __slots__ = ("bounds", "count", "octets")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.count = 0
        self.octets = 0

    def has_room(self, size: int) -> bool:
        """Whether one more may become ready."""
        bounds = self.bounds
        return self.count < bounds.total_count and self.octets + min(size, bounds.large) <= bounds.total_octets


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every active queue works with."""

    spool: ISpool
    settlements: Settlements
    clock: IReactorTime
    retry: RetrySchedule
    chance: Callable[[], float]
    load: Load
    wake_at: Callable[[float], None]


class ActiveQueue:
    """The active queue of one destination; `agent` serves it."""

    _log = Logger()

    def __init__(self, destination: Destination, agent: IDeliveryAgent, surroundings: Surroundings) -> None:
        self.destination = destination
        self.agent = agent
        self.claimable = False  # the spool has, or may have, something due
        self.up_at = 0.0  # when the destination may be tried again
        self.failures = 0  # how often in a row it could not be reached
        self.runs = 0
        self.most_runs: int = agent.concurrency
        self.working: set[object] = set()  # the runs that have settled something
        self.closed = False
        self._around = surroundings
        self._ready: deque[Delivery] = deque()
        self._octets = 0
        self._since_claim = 0
        self._claim_waiters: list[Deferred[None]] | None = None
        self._failing_due = False
        self._tasks = Tasks()

    # ------------------------------------------------------------------------------------------ state

    def has_room(self, size: int) -> bool:
        """Whether one more delivery may become ready here."""
        load, bounds = self._around.load, self._around.load.bounds
        return (
            len(self._ready) < bounds.count
            and self._octets + min(size, bounds.large) <= bounds.octets
            and load.has_room(size)
            and self.is_up
        )

    @property
    def is_up(self) -> bool:
        """Whether deliveries may be taken now."""
        return self.up_at <= self._around.clock.seconds() and not self.closed

    @property
    def has_work(self) -> bool:
        """Whether there is something to take, now or after a pause."""
        return bool(self._ready) or self.claimable

    @property
    def is_idle(self) -> bool:
        """Whether nothing is here and nothing is going on."""
        return not (self.runs or self.has_work or self._tasks)

    @property
    def _is_behind(self) -> bool:
        return self._around.settlements.is_behind

    def runs_wanted(self) -> int:
        """How many more runs should begin: the first at once, others for each full batch that waits beside it."""
        if not self.has_work or not self.is_up or self._is_behind:
            return 0
        waiting = len(self._ready) + (_CLAIM_LIMIT if self.claimable else 0)
        batches: int = waiting // max(self.agent.batch, 1)
        return max(0, min(self.most_runs - self.runs, batches if self.runs else max(batches, 1)))

    # ----------------------------------------------------------------------------------------- taking

    @property
    def must_claim(self) -> bool:
        """Whether it is the spool's turn."""
        if not self.claimable or (self._ready and self._since_claim < _CLAIM_LIMIT):
            return False
        return self.is_up and not self._is_behind

    def take(self, limit: int) -> Sequence[Delivery]:
        """Up to `limit` of what is ready."""
        ready = self._ready
        if not ready or not self.is_up or self._is_behind:
            return ()
        count = min(limit, len(ready))
        taken = [ready.popleft() for _ in range(count)]
        self._since_claim += count
        self._count(taken, -1)
        return taken

    def add(self, deliveries: Iterable[Delivery], *, first: bool = False) -> None:
        """Make leased deliveries ready; `first` puts them before the others."""
        added = list(deliveries)
        if first:
            self._ready.extendleft(reversed(added))
        else:
            self._ready.extend(added)
        self._count(added, 1)

    def empty(self) -> list[Delivery]:
        """Take out all that is ready, whatever the state."""
        taken = list(self._ready)
        self._ready.clear()
        self._count(taken, -1)
        return taken

    async def claim(self) -> None:
        """Claim a batch from the spool. Those who ask while one is under way wait for the same."""
        waiter: Deferred[None] = Deferred()
        if self._claim_waiters is not None:
            self._claim_waiters.append(waiter)
        else:
            self._claim_waiters = [waiter]
            # Apart from the run that asked: when that is cancelled, what was claimed is still ours to give back.
            self._tasks.start(self._claim(), f"the claim for {self.destination}")
        await waiter

    # --------------------------------------------------------------------------------------- settling

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """An attempt was made: the destination can be reached, whatever came of it."""
        self.failures = 0
        self._around.settlements.add(delivery, outcomes)

    def rest(self) -> None:
        """Leave the destination alone for a while."""
        self.failures += 1
        around = self._around
        self._down_until(around.clock.seconds() + around.retry.pause(self.failures, around.chance()))

    def wake(self) -> None:
        """End the rest: somebody has said that the destination is there."""
        self.failures = 0
        self.up_at = 0.0

    def fail(self, outcome: Outcome, held: Sequence[Delivery], run: object) -> None:
        """A run found that the destination as a whole comes to this outcome: so does all that is held, ready or due.

        A host that serves another of our connections is not dead: then it is only that we have one too many.
        """
        if self.working - {run}:
            self.most_runs = max(1, self.runs - 1)
            self.add(held, first=True)
            return
        if outcome.result is Result.DEFERRED and self.is_up:  # of several runs that find it dead one counts
            self.rest()
            self._log.info(
                "{destination} is left alone for {pause:.0f} s: {text}",
                destination=str(self.destination),
                pause=self.up_at - self._around.clock.seconds(),
                text=outcome.text,
            )
        for delivery in [*held, *self.empty()]:
            self._settle_whole(delivery, outcome)
        if self.claimable and not self._failing_due:
            self._failing_due = True
            self._tasks.start(self._fail_due(outcome), f"the deferral of {self.destination}")

    def run_ended(self, run: object) -> None:
        """Count a run out. One that settled nothing, where there is something to do, gives the destination a rest."""
        self.runs -= 1
        if run in self.working:
            self.working.discard(run)
            self.most_runs = min(self.most_runs + 1, self.agent.concurrency)
        elif self.has_work and self.is_up and not (self.working or self._failing_due or self._is_behind):
            self.rest()

    async def stopped(self) -> None:
        """Wait until no claim is under way."""
        await self._tasks.finished()

    async def _claim(self) -> None:
        try:
            self.add(await self._claimed())
        finally:
            waiters, self._claim_waiters = self._claim_waiters or [], None
            for waiter in waiters:
                if not waiter.called:
                    waiter.callback(None)

    async def _claimed(self) -> Sequence[Delivery]:
        around = self._around
        self.claimable = False  # before the wait: what becomes due meanwhile sets it again
        self._since_claim = 0
        try:
            claimed = await around.spool.claim(self.destination, _CLAIM_LIMIT)
        except SpoolError as error:
            self._log.error("nothing claimed for {name}: {error}", name=str(self.destination), error=str(error))
            self.claimable = True
            self._down_until(around.clock.seconds() + _SPOOL_PAUSE)
            return ()
        if len(claimed) >= _CLAIM_LIMIT:
            self.claimable = True
        else:
            # What was due is taken: only now can the spool tell what is due next.
            around.wake_at(around.clock.seconds())
        return claimed

    async def _fail_due(self, outcome: Outcome) -> None:
        """Claim what else is due, batch by batch, and give it the same outcome."""
        around = self._around
        try:
            while self.claimable and not self.closed and not (outcome.result is Result.DEFERRED and self.is_up):
                if around.settlements.is_behind:
                    await deferLater(around.clock, 1.0)
                    continue
                claimed = await self._claimed()
                if not claimed:
                    return
                for delivery in claimed:
                    self._settle_whole(delivery, outcome)
                await deferLater(around.clock, 0)
        finally:
            self._failing_due = False

    def _settle_whole(self, delivery: Delivery, outcome: Outcome) -> None:
        not_before = self.up_at if outcome.result is Result.DEFERRED else 0.0
        self._around.settlements.add(delivery, [outcome] * len(delivery.recipients), not_before=not_before)

    def _down_until(self, when: float) -> None:
        self.up_at = max(self.up_at, when)
        self._around.wake_at(self.up_at)

    def _count(self, deliveries: Sequence[Delivery], sign: int) -> None:
        load = self._around.load
        large = load.bounds.large
        octets = sign * sum([min(delivery.message.size, large) for delivery in deliveries])
        self._octets += octets
        load.octets += octets
        load.count += sign * len(deliveries)
