"""The scheduler: brings what is due together with the agents that deliver it.

The spool says what was committed or has become due; one timer wakes what becomes due later. For each destination
there is an active queue, and runs of its agent that drain it. Runs begin in the next turn of the reactor, so that all
that a group of commits brings is there when they look.

What this holds in memory is bounded: what finds no room waits in the spool. Nothing here is the only copy of
anything: leases that are not settled come back when the spool is opened again.

At its start, and only then, what waits is sorted by the configuration of now (`Router.rerouted`). So mail that was
queued for a domain before it got a customer goes its way, or is held after the next start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.active import ActiveQueue, Bounds, Load, Surroundings
from mailsuite.delivery.bounces import Bounces
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.run import QueueRun
from mailsuite.delivery.settlements import Settlements
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import IDeliveryAgent, IQueueRun, IQueueWatcher, IRouter, ISpool, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import HOLD, RELAY, Destination
from mailsuite.mail.status import EnhancedStatus

_LONGEST_SLEEP: Final = 300.0  # seconds; nothing should be missed meanwhile, but then it is found
_SPOOL_PAUSE: Final = 30.0
_PAST_DUE: Final = 0.01  # seconds; a timer that fires a rounding error too early finds nothing
_MAX_QUEUES: Final = 10_000  # beyond that, destinations that rest and have nothing in memory are forgotten
_DEFECT: Final = Outcome(Result.DEFERRED, EnhancedStatus(4, 3, 0), "Local error in delivery")


@implementer(IDeliveryAgent)
class MissingAgent:
    """Stands in where a destination names an agent that the configuration does not have (any more)."""

    concurrency = 1
    batch = 1

    def __init__(self, name: str) -> None:
        self.name = name

    async def deliver(self, run: IQueueRun) -> None:
        text = f"No delivery agent is called {self.name}"
        run.fail(Outcome(Result.DEFERRED, EnhancedStatus(4, 3, 5), text))


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """When deliveries are tried again, how much is held in memory, and how many seconds runs have to end at a stop."""

    retry: RetrySchedule = field(default_factory=RetrySchedule)
    bounds: Bounds = field(default_factory=Bounds)
    grace: float = 30.0


DEFAULTS: Final = SchedulerSettings()


@implementer(IQueueWatcher)
class Scheduler(Service):
    """Starts agents' runs for whatever is due. The spool is started before this service, and stopped after it.

    `hostname` is named in reports, `chance` gives random numbers from 0 up to 1. `reroute` tells, at the start, where
    mail for an address goes now that waits under some destination: see `mailsuite.delivery.router.Router.rerouted`.
    Without it that is where the router sends it; but what is held does not go to be relayed.
    """

    _log = Logger()

    def __init__(
        self,
        spool: ISpool,
        agents: Iterable[IDeliveryAgent],
        router: IRouter,
        clock: IReactorTime,
        *,
        hostname: str,
        chance: Callable[[], float],
        settings: SchedulerSettings = DEFAULTS,
        reroute: Callable[[Address, Destination], Destination] | None = None,
    ) -> None:
        self._spool = spool
        self._agents = {agent.name: agent for agent in agents}
        self._router = router
        self._reroute = reroute or self._rerouted
        self._clock = clock
        self._grace = settings.grace
        self._retry = settings.retry
        self._load = Load(settings.bounds)
        self._settlements = Settlements(
            spool,
            Bounces(router, hostname),
            clock,
            self._retry,
            chance=chance,
            deferred=self._wake_at,
            caught_up=self._look_around,
        )
        self._around = Surroundings(spool, self._settlements, clock, self._retry, chance, self._load, self._wake_at)
        # Wake-ups closer together than this become one; a small part of what a retry waits at least.
        self._granularity = self._retry.first / 60
        self._queues: dict[Destination, ActiveQueue] = {}
        self._to_start: dict[ActiveQueue, None] = {}
        self._starting: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._earliest = math.inf  # while the spool is being asked for the times: the earliest that is known
        self._scanning = False
        self._is_rerouted = False
        self._runs = Tasks()
        self._others = Tasks()
        self._given_up = False

    @property
    def queue_count(self) -> int:
        """How many destinations there are with something to do, under way, or at rest."""
        return len(self._queues)

    @property
    def settlements(self) -> Settlements:
        """Where outcomes go: for what is held as well, which is nobody's active queue."""
        return self._settlements

    async def hurry(self, destinations: Sequence[Destination]) -> int:
        """Try what waits for these destinations now, also where one rests; tell how many messages that are.

        Raises `SpoolError`.
        """
        for destination in destinations:
            queue = self._queues.get(destination)
            if queue is not None:
                queue.wake()
                self._attend(queue)
        return await self._spool.hurry(destinations)

    def is_busy(self, destination: Destination) -> bool:
        """Whether something is under way there, or will be in a moment; what rests after a failure is not."""
        queue = self._queues.get(destination)
        return queue is not None and not queue.is_idle and (queue.runs > 0 or queue.is_up)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way anywhere, nor will be in a moment."""
        return not any(map(self.is_busy, self._queues))

    # ---------------------------------------------------------------------------------------- service

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._spool.watch(self)
        self._begin_scan()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for call in (self._timer, self._starting):
            if call is not None and call.active():
                call.cancel()
        for queue in self._queues.values():
            queue.closed = True
        await self._end_runs()
        left: list[Delivery] = []
        for queue in self._queues.values():
            await queue.stopped()
            left += queue.empty()
        self._queues.clear()
        await self._give_back(left)
        await self._others.finished()
        limit = self._clock.callLater(self._grace, self._settlements.abandon)
        await self._settlements.drained()
        if limit.active():
            limit.cancel()
        if self._given_up:
            self._settlements.abandon()  # nobody is there any more for what they settle one day

    async def _end_runs(self) -> None:
        """Wait for the runs, cancel them when their time is over, and leave behind those that do not end even then."""
        limits = [
            self._clock.callLater(self._grace, self._runs.cancel),
            self._clock.callLater(2 * self._grace, self._give_up_runs),
        ]
        await self._runs.finished()
        for limit in limits:
            if limit.active():
                limit.cancel()

    def _give_up_runs(self) -> None:
        self._given_up = True
        self._log.error(
            "{count} queue runs do not end and are left behind; what they have not settled is delivered anew after the "
            "next start, where it has not arrived by then",
            count=self._runs.give_up(),
        )

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            try:
                await self._spool.release(deliveries)
            except SpoolError as error:
                self._log.error("{count} leases are not given back: {error}", count=len(deliveries), error=str(error))

    # ---------------------------------------------------------------------------------------- watcher

    def has_room(self, destination: Destination, size: int) -> bool:
        if not self.running or destination.agent == HOLD or self._settlements.is_behind:
            return False
        queue = self._queues.get(destination)
        return self._load.has_room(size) if queue is None else queue.has_room(size)

    def committed(self, deliveries: Sequence[Delivery]) -> None:
        if not self.running:
            self._others.start(self._give_back(deliveries), "giving leases back")
            return
        by_destination: dict[Destination, list[Delivery]] = {}
        for delivery in deliveries:
            by_destination.setdefault(delivery.destination, []).append(delivery)
        for destination, ready in by_destination.items():
            queue = self._queue(destination)
            queue.add(ready)
            self._attend(queue)

    def due(self, destinations: Iterable[Destination]) -> None:
        if self.running:
            for destination in destinations:
                if destination.agent != HOLD:
                    queue = self._queue(destination)
                    queue.claimable = True
                    self._attend(queue)

    # ------------------------------------------------------------------------------------------- runs

    def _queue(self, destination: Destination) -> ActiveQueue:
        queue = self._queues.get(destination)
        if queue is None:
            agent = self._agents.get(destination.agent)
            if agent is None:
                agent = MissingAgent(destination.agent)
            queue = self._queues[destination] = ActiveQueue(destination, agent, self._around)
        return queue

    def _attend(self, queue: ActiveQueue) -> None:
        """See to it that a queue with something to do gets its runs, now or after its rest."""
        if not queue.has_work:
            if queue.is_idle and not queue.failures:
                self._queues.pop(queue.destination, None)
        elif not queue.is_up:
            self._wake_at(queue.up_at)
        elif queue.runs_wanted():
            self._to_start[queue] = None
            if self._starting is None:
                self._starting = self._clock.callLater(0, self._start_runs)

    def _look_around(self) -> None:
        for queue in list(self._queues.values()):
            self._attend(queue)

    def _start_runs(self) -> None:
        self._starting = None
        queues, self._to_start = self._to_start, {}
        for queue in queues:
            for _ in range(queue.runs_wanted()):
                queue.runs += 1
                self._runs.start(self._run(queue), f"a run for {queue.destination}")

    async def _run(self, queue: ActiveQueue) -> None:
        run = QueueRun(queue)
        try:
            await queue.agent.deliver(run)
        except CancelledError:
            pass  # we are stopping, or the agent's connection went away: what it held is given back
        except Exception:  # noqa: BLE001 - a defect of an agent concerns what it had in its hands
            self._log.failure("the agent for {destination} failed", destination=str(queue.destination))
            run.break_off(_DEFECT)
        run.end()
        if self.running:
            self._attend(queue)

    # ------------------------------------------------------------------------------------------ timer

    def _wake_at(self, when: float) -> None:
        """Look into the spool at that time, at the latest."""
        if not self.running:
            return
        if self._scanning:
            self._earliest = min(self._earliest, when)
            return
        delay = max(when - self._clock.seconds() + _PAST_DUE, self._granularity)
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= self._clock.seconds() + delay:
                return
            self._timer.reset(delay)
        else:
            self._timer = self._clock.callLater(delay, self._begin_scan)

    def _begin_scan(self) -> None:
        self._timer = None
        self._others.start(self._scan(), "the search for what is due")

    async def _scan(self) -> None:
        self._earliest = math.inf
        self._scanning = True
        try:
            await self._find_due()
        except SpoolError as error:
            self._log.error("cannot see what is due: {error}", error=str(error))
            self._earliest = min(self._earliest, self._clock.seconds() + _SPOOL_PAUSE)
        finally:
            self._scanning = False
            if self.running:
                self._wake_at(min(self._earliest, self._clock.seconds() + _LONGEST_SLEEP))
                self._look_around()
                self._forget()

    async def _find_due(self) -> None:
        if not self._is_rerouted:
            # The spool's destinations are those of the configuration of then.
            await self._spool.reroute(self._reroute)
            self._is_rerouted = True
        waiting = await self._spool.destinations()
        now = self._clock.seconds()
        for destination, due in waiting:
            if due > now:
                self._earliest = min(self._earliest, due)
            elif destination.agent != HOLD and self.running:
                self._queue(destination).claimable = True

    def _rerouted(self, address: Address, present: Destination) -> Destination:
        destination = self._router.destination(address)
        return present if present.agent == HOLD and destination.agent == RELAY else destination

    def _forget(self) -> None:
        """Drop the queues that are of no more use, in any case the oldest of too many."""
        now = self._clock.seconds()
        patience = 2 * self._retry.destination_maximum
        for queue in list(self._queues.values()):
            if queue.is_idle and (queue.up_at + patience < now or len(self._queues) > _MAX_QUEUES):
                del self._queues[queue.destination]
