"""The scheduler: brings what is due together with the agents that deliver it.

The spool says what was committed or has become due; one timer wakes what becomes due later. For each destination
there is an active queue, and runs of its agent that drain it. Runs begin in the next turn of the reactor, so that all
that a group of commits brings is there when they look.

What this holds in memory is bounded: what finds no room waits in the spool. Nothing here is the only copy of
anything: leases that are not settled come back when the spool is opened again.

An agent that raises has met a defect, ours or its own. What it had in its hands is put on hold, with the traceback in
its history, and the queue goes on; what it had together with others is tried alone before. Where it had nothing, the
destination is left alone for a while.

Where rates are limited one timer wakes all that wait for their time. Times are those of the wall: a clock that is set
back delays what has been deferred, at most by as much as it was set back. Where it shows, with the next mail that comes
or goes anywhere, all timers are set anew. Known limit: where nothing comes or goes they are late by as much.

At its start, and only then, what waits is sorted by the configuration of now (`Router.rerouted`). So mail that was
queued for a domain before it got a customer goes its way, or is held after the next start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from traceback import format_exception
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.active import ActiveQueue, DestinationStatus, Surroundings
from mailsuite.delivery.bounces import Bounces, ReportSettings
from mailsuite.delivery.looks import Looks, longest_due
from mailsuite.delivery.pacing import Bucket, DestinationRules, UniformRules
from mailsuite.delivery.ready import Bounds, Load
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.run import QueueRun
from mailsuite.delivery.settlements import Settlements
from mailsuite.delivery.stand_ins import ExpiredAgent, ListAgent, MissingAgent
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import IDeliveryAgent, IQueueWatcher, IRouter, ISpool, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import EXPIRED, HOLD, REDISTRIBUTED, RELAY, Destination
from mailsuite.mail.status import EnhancedStatus

_LONGEST_SLEEP: Final = 300.0  # seconds; nothing should be missed meanwhile, but then it is found
_SPOOL_PAUSE: Final = 30.0
_PAST_DUE: Final = 0.01  # seconds; a timer that fires a rounding error too early finds nothing
_MAX_QUEUES: Final = 10_000  # beyond that, destinations that rest and have nothing in memory are forgotten
_MANY_QUEUES: Final = 2000  # beyond that, those of which nothing is known are forgotten at once
_MOST_AT_ONCE: Final = 4000  # destinations that one search finds due; the others wait for the next
_MOST_IN_A_TURN: Final = 500  # of them, in one turn of the reactor
_SEARCH_SHARE: Final = 0.1  # of the time may go into searches, where one follows the other
_SET_BACK: Final = 1.0  # seconds; a clock that goes back by less is only made right
_FINEST: Final = 5.0  # seconds; wake-ups closer together than this become one
_LOCAL_ERROR: Final = EnhancedStatus(4, 3, 0)
_TRACEBACK_LIMIT: Final = 8000  # characters, of the end
_TEXT_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """When deliveries are tried again, how much is held in memory, and how many seconds runs have to end at a stop.

    `rules` say when and how fast each destination gets its mail; without them that is `retry` and a plain `Pacing` for
    all. `total_rate` is how many messages a second are relayed at most, to all destinations together. `reports` are for
    senders.
    """

    retry: RetrySchedule = field(default_factory=RetrySchedule)
    bounds: Bounds = field(default_factory=Bounds)
    grace: float = 30.0
    rules: DestinationRules | None = None
    total_rate: float | None = None
    reports: ReportSettings = field(default_factory=ReportSettings)


DEFAULTS: Final = SchedulerSettings()
Reroute = Callable[[Address, Destination, Address | None], Destination]


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
        reroute: Reroute | None = None,
    ) -> None:
        self._spool = spool
        self._agents: dict[str, IDeliveryAgent] = {EXPIRED: ExpiredAgent(), REDISTRIBUTED: ListAgent()}
        self._agents.update({agent.name: agent for agent in agents})
        self._router = router
        self._reroute = reroute or self._rerouted
        self._clock = clock
        self._grace = settings.grace
        self._retry = settings.retry
        self._load = Load(settings.bounds)
        rules = settings.rules or UniformRules(settings.retry)
        self._settlements = Settlements(
            spool,
            Bounces(router, hostname, settings.reports),
            clock,
            rules,
            chance=chance,
            deferred=self._wake_at,
            caught_up=self._look_around,
        )
        self._around = Surroundings(
            spool,
            self._settlements,
            clock,
            rules,
            chance,
            self._load,
            self._wake_at,
            self._attend,
            None if settings.total_rate is None else Bucket(settings.total_rate, clock.seconds()),
        )
        # Wake-ups closer together than this become one; a small part of what a retry waits at least.
        self._granularity = min(self._retry.shortest / 60, _FINEST)
        self._queues: dict[Destination, ActiveQueue] = {}
        self._to_start: dict[ActiveQueue, None] = {}
        self._starting: IDelayedCall | None = None
        self._many = _MANY_QUEUES  # so many, and it is time to forget some
        self._looks = Looks()
        self._paced: dict[ActiveQueue, None] = {}
        self._pacer: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._earliest = math.inf  # while the spool is being asked for the times: the earliest that is known
        self._scanning = False
        self._latest = clock.seconds()  # that was seen
        self._is_rerouted = False
        self._runs = Tasks()
        self._others = Tasks()
        self._given_up = False

    @property
    def queue_count(self) -> int:
        """How many destinations there are with something to do, under way, at rest, or just done."""
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

    def wake(self, destinations: Iterable[Destination]) -> None:
        """Look what is due at these destinations, and try it now, also where one rests."""
        if self.running:
            for destination in destinations:
                if destination.agent != HOLD:
                    queue = self._queue(destination)
                    queue.wake()
                    queue.claimable = True
                    self._attend(queue)

    async def withdraw(self, ids: Iterable[str] | None = None) -> int:
        """Give back to the spool what is ready of these messages (None: of all) and not under way.

        Tells how many deliveries that were. Their destinations claim nothing for `active.HELD_OFF` seconds, or until
        `wake`. Raises `SpoolError`; then they are ready as they were.
        """
        names = None if ids is None else frozenset(ids)
        for queue in list(self._queues.values()):
            await queue.claimed()
        taken: list[Delivery] = []
        for queue in list(self._queues.values()):
            taken += queue.withdraw(names)
            self._attend(queue)
        if taken:
            try:
                await self._spool.release(taken)
            except SpoolError:
                self._make_ready(taken)
                raise
        return len(taken)

    async def reroute(self) -> int:
        """Ask anew where all goes that waits; tell how many recipients were moved. Raises `SpoolError`."""
        return await self._spool.reroute(self._reroute)

    def status(self) -> Sequence[DestinationStatus]:
        """How it stands with each destination that has something to do, under way, or that had just now."""
        return [queue.status() for queue in self._queues.values() if not (queue.is_forgettable and queue.is_quiet)]

    def is_busy(self, destination: Destination) -> bool:
        """Whether something is under way there, or will be in a moment; what rests after a failure is not."""
        queue = self._queues.get(destination)
        if queue is None or queue.is_idle:
            return False
        return queue.runs > len(queue.lingering) or (queue.is_up and (queue.has_work or not queue.runs))

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
        for call in (self._timer, self._starting, self._pacer):
            if call is not None and call.active():
                call.cancel()
        self._looks.stop()
        for queue in self._queues.values():
            queue.close()
        await self._end_runs()
        left: list[Delivery] = []
        for queue in self._queues.values():
            await queue.stopped()
            left += queue.empty()
        self._queues.clear()
        await self._give_back(left)
        await self._looks.finished()
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
        return self._load.has_room(size, alive=False) if queue is None else queue.has_room(size)

    def committed(self, deliveries: Sequence[Delivery]) -> None:
        if not self.running:
            self._others.start(self._give_back(deliveries), "giving leases back")
        else:
            self._make_ready(deliveries)

    def _make_ready(self, deliveries: Iterable[Delivery]) -> None:
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
            if len(self._queues) >= self._many:
                self._forget(in_haste=True)
            queue = self._queues[destination] = ActiveQueue(destination, agent, self._around)
        return queue

    def _attend(self, queue: ActiveQueue) -> None:
        """See to it that a queue with something to do gets its runs: now, after its rest, or when its rate allows."""
        self._mind_clock()
        if not (queue.has_work and self.running):
            return
        if queue.fails_due:
            if queue.must_look:
                self._looks.add(queue)
        elif not queue.is_up:
            self._wake_at(queue.up_at)
        elif until := queue.paced_until:
            self._attend_at(queue, until)
        elif queue.must_look:
            self._looks.add(queue)
        elif queue.lingering or queue.runs_wanted():
            self._to_start[queue] = None
            if self._starting is None:
                self._starting = self._clock.callLater(0, self._start_runs)

    def _look_around(self) -> None:
        for queue in list(self._queues.values()):
            self._attend(queue)

    def _attend_at(self, queue: ActiveQueue, when: float) -> None:
        self._paced[queue] = None
        if self._pacer is None:
            self._pacer = self._clock.callLater(max(when - self._clock.seconds(), 0.0), self._attend_paced)
        elif self._pacer.getTime() > when:
            self._pacer.reset(max(when - self._clock.seconds(), 0.0))

    def _attend_paced(self) -> None:
        self._pacer = None
        queues, self._paced = self._paced, {}
        for queue in queues:
            self._attend(queue)

    def _start_runs(self) -> None:
        self._starting = None
        queues, self._to_start = self._to_start, {}
        for queue in queues:
            if queue.lingering:
                queue.wake_lingering()
            wanted = queue.runs_wanted()
            while wanted:
                permits = queue.begin_run()
                self._runs.start(self._run(queue, permits), f"a run for {queue.destination}")
                wanted -= 1
                if wanted and not queue.runs_wanted():
                    break  # those before have taken what there was
            if queue.paced_until:
                self._attend(queue)  # another one has used up the rate for all

    async def _run(self, queue: ActiveQueue, permits: int) -> None:
        run = QueueRun(queue, self._clock, permits)
        try:
            await queue.agent.deliver(run)
        except CancelledError:
            pass  # we are stopping, or the agent's connection went away: what it held is given back
        except Exception as error:  # noqa: BLE001 - a defect of an agent concerns what it had in its hands
            self._log.failure("the agent for {destination} failed", destination=str(queue.destination))
            self._put_on_hold(queue, run, error)
        run.end()
        self._attend(queue)

    def _put_on_hold(self, queue: ActiveQueue, run: QueueRun, error: Exception) -> None:
        """A defect was met with what a run has in its hands: nothing more happens to it before somebody has looked."""
        text = f"A defect was met in delivery: {type(error).__name__}: {error}"[:_TEXT_LIMIT]
        detail = {"text": text, "traceback": "".join(format_exception(error))[-_TRACEBACK_LIMIT:]}
        if not run.break_off(Outcome(Result.HELD, _LOCAL_ERROR, text), detail):
            queue.fail(Outcome(Result.DEFERRED, _LOCAL_ERROR, "Local error in delivery"), (), run)

    # ------------------------------------------------------------------------------------------ timer

    def _mind_clock(self) -> None:
        """Where the clock was set back, have all that waits for a time look at it again."""
        before, self._latest = self._latest, max(self._clock.seconds(), self._latest)
        if self._clock.seconds() >= before - _SET_BACK:
            return
        self._latest = self._clock.seconds()
        for call, delay in ((self._timer, self._granularity), (self._starting, 0.0), (self._pacer, 0.0)):
            if call is not None and call.active():
                call.reset(delay)
        self._settlements.mind_clock()
        for queue in list(self._queues.values()):
            queue.lingering.end()

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
            try:
                await self._spool.reroute(self._reroute)
            except SpoolError:
                raise
            except Exception:  # noqa: BLE001 - mail that goes its old way is better than none
                self._log.failure("what waits goes where it was to go before")
            self._is_rerouted = True
        begun = self._clock.seconds()
        waiting = await self._spool.destinations()
        now = self._clock.seconds()
        most = _MOST_AT_ONCE if len(self._queues) < _MAX_QUEUES else _MOST_IN_A_TURN
        due, earliest, are_all = longest_due(waiting, now, most, self._is_known_due)
        pause = math.inf if are_all else min(max((now - begun) / _SEARCH_SHARE, 1.0), _SPOOL_PAUSE)
        self._earliest = min(self._earliest, earliest, now + pause)
        for number, destination in enumerate(due):
            if number and number % _MOST_IN_A_TURN == 0:
                await deferLater(self._clock, 0)
            if not self.running:
                return
            self._queue(destination).claimable = True

    def _is_known_due(self, destination: Destination) -> bool:
        queue = self._queues.get(destination)
        return destination.agent == HOLD if queue is None else queue.claimable

    def _rerouted(self, address: Address, present: Destination, sender: Address | None) -> Destination:
        destination = self._router.destination(address, sender)
        kept = present.agent in (EXPIRED, REDISTRIBUTED) or (present.agent == HOLD and destination.agent == RELAY)
        return present if kept else destination

    def _forget(self, *, in_haste: bool = False) -> None:
        """Drop the queues that are of no more use, in any case the oldest of too many."""
        now = self._clock.seconds()
        patience = 2 * self._retry.destination_maximum
        for queue in list(self._queues.values()):
            is_done = queue.is_forgettable and (in_haste or queue.is_quiet)
            is_over = queue.failures and queue.up_at + patience < now
            if is_done or (queue.is_idle and (is_over or len(self._queues) > _MAX_QUEUES)):
                del self._queues[queue.destination]
        self._many = max(_MANY_QUEUES, 2 * len(self._queues))
