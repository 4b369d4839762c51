"""Queue runs: what an agent or a relay session drains, one for each connection or thread at work for a destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.delivery.active import ActiveQueue
from mailsuite.interfaces import ILingeringRun
from mailsuite.mail.queue import Delivery, Outcome


@implementer(ILingeringRun)
class QueueRun:
    """One agent's way through an active queue. It knows what it has handed out and not got back, and since when."""

    __slots__ = ("_clock", "_has_suspect", "_held", "_is_drained", "_permits", "_queue", "destination")

    def __init__(self, queue: ActiveQueue, clock: IReactorTime, permits: int = 0) -> None:
        self.destination = queue.destination
        self._queue = queue
        self._clock = clock
        self._has_suspect = False  # what it has is a suspect: nothing joins it
        self._is_drained = False  # it was told that there is nothing, and has given nothing back since
        self._permits = permits  # what it may take whatever the rates say
        # By identity: deliveries are values, and hashing one would read its whole content.
        self._held: dict[int, tuple[Delivery, float]] = {}

    @property
    def held(self) -> list[Delivery]:
        """What was taken and is neither settled nor released."""
        return [delivery for delivery, _ in self._held.values()]

    async def next(self) -> Delivery | None:
        batch = await self.batch(1)
        return batch[0] if batch else None

    async def batch(self, limit: int) -> Sequence[Delivery]:
        queue = self._queue
        if self._held and self._has_suspect:
            return ()
        while True:
            claims = queue.must_claim
            if claims:
                await queue.claim()
            self._has_suspect = queue.has_suspects and not self._held
            taken = queue.take(limit, self._permits, suspect=self._has_suspect)
            if taken or not claims:  # all that was claimed may be over already
                break
        self._is_drained = not taken
        if taken:
            self._permits = max(self._permits - len(taken), 0)
            now = self._clock.seconds()
            for delivery in taken:
                self._held[id(delivery)] = delivery, now
        return taken

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        if len(outcomes) != len(delivery.recipients):
            raise ValueError(f"{len(outcomes)} outcomes for {len(delivery.recipients)} recipients")
        held = self._held.get(id(delivery))
        if held is None or held[0] is not delivery:
            raise ValueError(f"{delivery.message.queue_id} is not held by this run")
        del self._held[id(delivery)]
        self._queue.working.add(self)
        self._queue.settle(delivery, outcomes, held[1])

    def release(self, delivery: Delivery) -> None:
        held = self._held.get(id(delivery))
        if held is not None and held[0] is delivery:
            del self._held[id(delivery)]
            self._is_drained = False
            self._queue.add([delivery], first=True)
            self._queue.give_back(1)

    @property
    def expects_more(self) -> bool:
        return self._queue.expects_more

    def more(self) -> Deferred[bool]:
        return self._queue.lingering.wait()

    def fail(self, outcome: Outcome) -> None:
        held = self.held
        self._held.clear()
        self._queue.fail(outcome, held, self)

    def break_off(self, outcome: Outcome, detail: Mapping[str, str]) -> bool:
        """A defect was met with what is held, if anything; tell whether there was. See `ActiveQueue.break_off`."""
        held = self.held
        self._held.clear()
        if held:
            self._queue.working.add(self)  # what else there is goes on
            self._queue.break_off(held, outcome, detail)
        return bool(held)

    def end(self) -> None:
        """Give back what is held, the first taken first."""
        held = self.held
        self._held.clear()
        if held:
            self._queue.add(held, first=True)
        self._queue.give_back(len(held) + self._permits)
        self._permits = 0
        self._queue.run_ended(self, is_drained=self._is_drained and not held)
