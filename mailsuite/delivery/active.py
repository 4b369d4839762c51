"""The active queue of one destination: what is leased and ready, what else the spool has, and whether to go on.

Deliveries come in two ways: straight from a commit, or claimed from the spool in batches. Where both have some, they
take turns, so that fresh mail does not keep old mail waiting for ever. Where nothing is ready the spool is looked into
before a run begins: nobody is dialled for nothing, and there are no more connections than what is due is worth. What is
claimed and whose time is over is settled at once, and never seen by an agent.

A destination that cannot be reached is down for a while: what is ready or due is deferred in bulk, without an attempt
for each (RFC 5321 section 4.5.4.1), and nothing is taken until the pause is over. The pause grows while the destination
stays dead, and is forgotten as soon as anything is settled there. A clock that is set back ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.expiry import sort_out
from mailsuite.delivery.lingering import LINGER, Lingering
from mailsuite.delivery.pacing import Bucket, Concurrency, DestinationRules, Meter, Throttle
from mailsuite.delivery.ready import Load, Ready
from mailsuite.delivery.settlements import Settlements
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import IDeliveryAgent, ISpool, SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import EXPIRED, RELAY, Destination

HELD_OFF: Final = 2.0
"""Seconds for which nothing is claimed after a withdrawal: whoever asked for it has plans with that mail."""

_CLAIM_LIMIT: Final = 100
_SPOOL_PAUSE: Final = 10.0  # seconds before a spool that failed is asked for deliveries again
_MOST_FAULTS: Final = 3  # in a row, before the destination is given a rest


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every active queue works with. `attend` is told of a queue with something new to do."""

    spool: ISpool
    settlements: Settlements
    clock: IReactorTime
    rules: DestinationRules
    chance: Callable[[], float]
    load: Load
    wake_at: Callable[[float], None]
    attend: Callable[[ActiveQueue], None]
    total: Bucket | None = None


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """How it stands with a destination.

    `runs` are under way, `allowed` how many there may be, `ready` deliveries wait in memory. `failures` counts how
    often in a row it could not be reached, and `up_at` is when it may be tried again (0: now). `rate` is in messages a
    second, over the last ten to twenty. `last_error` is the last trouble that it had as a whole.
    """

    destination: Destination
    runs: int
    allowed: int
    ready: int
    failures: int
    up_at: float
    last_error: str | None
    rate: float


class ActiveQueue:
    """The active queue of one destination; `agent` serves it."""

    _log = Logger()

    def __init__(self, destination: Destination, agent: IDeliveryAgent, surroundings: Surroundings) -> None:
        around = surroundings
        now = around.clock.seconds()
        pacing = around.rules.pacing(destination)
        self.destination = destination
        self.agent = agent
        self.claimable = False  # the spool has, or may have, something due
        self.up_at = 0.0  # when the destination may be tried again
        self.failures = 0  # how often in a row it could not be reached
        self.runs = 0
        self.concurrency = Concurrency(pacing, agent.concurrency)
        self.working: set[object] = set()  # the runs that have settled something
        self.lingering = Lingering(around.clock)
        self.closed = False
        self.last_error: str | None = None
        self._around = around
        self._down_since = 0.0
        self._held_off_until = 0.0
        self._is_alive = False
        self._faults = 0
        self._meter = Meter()
        # The bucket for all is for mail that leaves this host.
        self._bucket = None if pacing.rate is None else Bucket(pacing.rate, now)
        shared = around.total if destination.agent == RELAY else None
        buckets = [bucket for bucket in (self._bucket, shared) if bucket is not None]
        self._throttle = Throttle(buckets) if buckets else None
        self._ready = Ready(around.load)
        self._since_claim = 0
        self._has_plenty = False  # the last claim brought as much as it could
        self._claim_waiters: list[Deferred[None]] | None = None
        self._outcome_of_due: Outcome | None = None  # what the spool has comes to this, without an attempt
        self._tasks = Tasks()

    # ------------------------------------------------------------------------------------------ state

    def has_room(self, size: int) -> bool:
        """Whether one more delivery may become ready here."""
        return self._ready.has_room(size, alive=self._is_alive) and self.is_up

    @property
    def is_up(self) -> bool:
        """Whether deliveries may be taken now."""
        return not (self._down_since <= self._around.clock.seconds() < self.up_at or self.closed)

    @property
    def has_work(self) -> bool:
        """Whether there is something to take, now or after a pause."""
        return bool(self._ready) or self.claimable

    @property
    def is_idle(self) -> bool:
        """Whether nothing is here and nothing is going on."""
        return not (self.runs or self.has_work or self._tasks)

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing is here, and nothing is known that would be missed: a rest, or what its rate has used up."""
        if not self.is_idle or self.failures:
            return False
        return self._bucket is None or self._bucket.is_full(self._around.clock.seconds())

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has gone there for a while."""
        return not self._meter.rate(self._around.clock.seconds())

    @property
    def paced_until(self) -> float:
        """When deliveries may be taken as far as rates allow, and operators who sort the queue; 0 for now."""
        now = self._around.clock.seconds()
        until = self._held_off_until if self._is_held_off else 0.0
        if self._throttle is not None and not self._throttle.available(now):
            until = max(until, self._throttle.ready_at(now))
        return until

    @property
    def must_look(self) -> bool:
        """Whether the spool should be asked before a run begins, or for what comes to the same end without one."""
        if not self.claimable or self._claim_waiters is not None or self._is_behind:
            return False
        if self.fails_due:
            return True
        if self._ready or self.runs or not self.is_up:
            return False
        return self.destination.agent == EXPIRED or self._around.load.has_room(0, alive=self._is_alive)

    @property
    def fails_due(self) -> bool:
        """Whether what the spool has here comes to what an attempt has come to, without one for each."""
        outcome = self._outcome_of_due
        if outcome is None or not self.claimable or self.closed:
            return False
        return outcome.result is not Result.DEFERRED or not self.is_up

    def status(self) -> DestinationStatus:
        """How it stands."""
        return DestinationStatus(
            self.destination,
            self.runs,
            self.concurrency.allowed,
            len(self._ready),
            self.failures,
            0.0 if self.is_up else self.up_at,
            self.last_error,
            self._meter.rate(self._around.clock.seconds()),
        )

    @property
    def _is_behind(self) -> bool:
        return self._around.settlements.is_behind

    @property
    def _is_held_off(self) -> bool:
        return 0.0 < self._held_off_until - self._around.clock.seconds() <= HELD_OFF

    def runs_wanted(self) -> int:
        """How many more runs should begin: the first at once, others for each full batch that waits beside it."""
        if not self.has_work or not self.is_up or self._is_behind:
            return 0
        waiting = len(self._ready) + (_CLAIM_LIMIT if self.claimable and self._has_plenty else 0)
        batches: int = waiting // max(self.agent.batch, 1)
        wanted = min(self.concurrency.allowed - self.runs, batches if self.runs else max(batches, 1))
        if wanted > 0 and self._throttle is not None:
            wanted = min(wanted, self._throttle.available(self._around.clock.seconds()))
        return max(0, wanted)

    @property
    def expects_more(self) -> bool:
        """Whether mail has been coming so fast that a connection had better stay for a moment."""
        if self._throttle is not None or not self.is_up:
            return False
        return self._meter.rate(self._around.clock.seconds()) * LINGER >= 1

    def wake_lingering(self) -> None:
        """Give those who wait for more what there is."""
        self.lingering.wake(len(self._ready) or int(self.claimable))

    def close(self) -> None:
        """Nothing is taken any more."""
        self.closed = True
        self.lingering.end()

    def begin_run(self) -> int:
        """Count a run in. Tells how many messages it may take, whatever the rates say by then: it dials for those."""
        self.runs += 1
        if self._throttle is None:
            return 0
        self._throttle.take(1)
        return 1

    # ----------------------------------------------------------------------------------------- taking

    @property
    def must_claim(self) -> bool:
        """Whether it is the spool's turn."""
        if not self.claimable or (self._ready and self._since_claim < _CLAIM_LIMIT):
            return False
        return self.is_up and not self._is_behind and not self._is_held_off

    @property
    def has_suspects(self) -> bool:
        """Whether there are some that must be taken one by one."""
        return self._ready.has_suspects

    def take(self, limit: int, permits: int = 0, *, suspect: bool = False) -> Sequence[Delivery]:
        """Up to `limit` of what is ready, or one suspect, as far as rates allow beyond the `permits` of the run."""
        if not self._ready or not self.is_up or self._is_behind:
            return ()
        if self._throttle is not None:
            limit = min(limit, permits + self._throttle.available(self._around.clock.seconds()))
            if limit < 1:
                return ()
        taken = self._ready.take_suspect() if suspect else self._ready.take(limit)
        self._since_claim += len(taken)
        if self._throttle is not None:
            self._throttle.take(max(len(taken) - permits, 0))
        return taken

    def add(self, deliveries: Iterable[Delivery], *, first: bool = False) -> None:
        """Make leased deliveries ready; `first` puts them before the others."""
        self._ready.add(deliveries, first=first)

    def give_back(self, permits: int) -> None:
        """So many messages did not go after all."""
        if self._throttle is not None:
            self._throttle.take(-permits)

    def empty(self) -> list[Delivery]:
        """Take out all that is ready, whatever the state."""
        return self._ready.withdraw()

    def withdraw(self, ids: Collection[str] | None) -> Sequence[Delivery]:
        """Take out what is ready of these messages (None: of all), and claim nothing for a moment."""
        taken = self._ready.withdraw(ids)
        if taken or (ids is None and self.claimable):
            self.claimable = True
            self._held_off_until = self._around.clock.seconds() + HELD_OFF
        return taken

    async def claimed(self) -> None:
        """Wait until no claim is under way."""
        if self._claim_waiters is not None:
            waiter: Deferred[None] = Deferred()
            self._claim_waiters.append(waiter)
            await waiter

    def look(self) -> None:
        """Begin to claim a batch from the spool."""
        self._claim_waiters = []
        # Apart from a run that asks: when that is cancelled, what was claimed is still ours to give back.
        self._tasks.start(self._claim(), f"the claim for {self.destination}")

    async def claim(self) -> None:
        """Claim a batch from the spool. Those who ask while one is under way wait for the same."""
        if self._claim_waiters is None:
            self.look()
        await self.claimed()

    # --------------------------------------------------------------------------------------- settling

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome], since: float) -> None:
        """An attempt was made, since that time: the destination can be reached, whatever came of it."""
        around = self._around
        now = around.clock.seconds()
        self.failures = self._faults = 0
        self._is_alive = True
        self._meter.count(now)
        around.settlements.add(delivery, outcomes, seconds=max(now - since, 0.0))
        if self.concurrency.served() and self.has_work:
            around.attend(self)

    def break_off(self, held: Sequence[Delivery], outcome: Outcome, detail: Mapping[str, str]) -> None:
        """An agent has met a defect with these in its hands, which the detail tells: one alone comes to the outcome.

        Of several it is not known which it was: they are suspects. Defects in a row give the destination a rest.
        """
        self.last_error = outcome.text
        around = self._around
        if len(held) == 1:
            [delivery] = held
            now = around.clock.seconds()
            fault = Event(now, EventKind.FAULT, str(self.destination), delivery.message.queue_id, detail)
            around.settlements.add(delivery, [outcome] * len(delivery.recipients), events=[fault])
        else:
            self._ready.suspect(held)
        self._faults += 1
        if self._faults >= _MOST_FAULTS and self.is_up:
            self.rest()

    def rest(self) -> None:
        """Leave the destination alone for a while."""
        self.failures += 1
        self._is_alive = False
        self._outcome_of_due = None
        self.concurrency.lost()
        around = self._around
        pause = around.rules.retry(self.destination).pause(self.failures, around.chance())
        self._down_until(around.clock.seconds() + pause)

    def wake(self) -> None:
        """End the rest: somebody has said that the destination is there, or that its mail has changed."""
        self.failures = 0
        self.up_at = 0.0
        self._held_off_until = 0.0

    def fail(self, outcome: Outcome, held: Sequence[Delivery], run: object) -> None:
        """A run found that the destination as a whole comes to this outcome: so does all that is held, ready or due.

        A host that serves another of our connections is not dead: then it is only that we have one too many.
        """
        if self.working - {run}:
            self.concurrency.refused(self.runs)
            self.add(held, first=True)
            return
        self.last_error = outcome.text
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
        if self.claimable:
            self._outcome_of_due = outcome
            self._around.attend(self)  # in its turn: many destinations fail at the same time

    def run_ended(self, run: object, *, is_drained: bool) -> None:
        """Count a run out. One that settled nothing, where there is something to do, gives the destination a rest.

        That is for agents that would begin again and again without an end. A run that `is_drained` was told that there
        is nothing, or nothing more: what there is has come since, or was somebody else's then.
        """
        self.runs -= 1
        if run in self.working:
            self.working.discard(run)
        elif (
            not is_drained
            and self.has_work
            and self.is_up
            and not (self.working or self.fails_due or self._is_behind or self.paced_until)
        ):
            self.rest()

    async def stopped(self) -> None:
        """Wait until no claim is under way."""
        await self._tasks.finished()

    async def _claim(self) -> None:
        outcome = self._outcome_of_due if self.fails_due else None
        try:
            claimed = await self._claimed() or ()
            if outcome is None:
                self.add(claimed)
            else:
                for delivery in claimed:
                    self._settle_whole(delivery, outcome)
                if not self.claimable:
                    self._outcome_of_due = None
        finally:
            waiters, self._claim_waiters = self._claim_waiters or [], None
            for waiter in waiters:
                if not waiter.called:
                    waiter.callback(None)
        self._around.attend(self)

    async def _claimed(self) -> Sequence[Delivery] | None:
        """What the spool has, but for what is over; None where that cannot be told now."""
        around = self._around
        self.claimable = False  # before the wait: what becomes due meanwhile sets it again
        self._since_claim = 0
        try:
            claimed = await around.spool.claim(self.destination, _CLAIM_LIMIT)
        except SpoolError as error:
            self._log.error("nothing claimed for {name}: {error}", name=str(self.destination), error=str(error))
            self.claimable = True
            self._outcome_of_due = None
            self._down_until(around.clock.seconds() + _SPOOL_PAUSE)
            return None
        self._has_plenty = len(claimed) >= _CLAIM_LIMIT
        if self._has_plenty:
            self.claimable = True
        else:
            # What was due is taken: only now can the spool tell what is due next.
            around.wake_at(around.clock.seconds())
        return self._without_expired(claimed)

    def _without_expired(self, claimed: Sequence[Delivery]) -> Sequence[Delivery]:
        """What is to be delivered; the rest is settled."""
        live, expired = sort_out(claimed, self._around.clock.seconds())
        for delivery, outcome in expired:
            self._around.settlements.add(delivery, [outcome] * len(delivery.recipients))
        return live

    def _settle_whole(self, delivery: Delivery, outcome: Outcome) -> None:
        not_before = self.up_at if outcome.result is Result.DEFERRED else 0.0
        self._around.settlements.add(delivery, [outcome] * len(delivery.recipients), not_before=not_before)

    def _down_until(self, when: float) -> None:
        now = self._around.clock.seconds()
        self.up_at = when if self.up_at <= now or now < self._down_since else max(self.up_at, when)
        self._down_since = now
        self._around.wake_at(self.up_at)
