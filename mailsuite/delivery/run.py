"""Queue runs: what an agent or a relay session drains, one for each connection or thread at work for a destination."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from mailsuite.delivery.active import ActiveQueue
from mailsuite.interfaces import IQueueRun
from mailsuite.mail.queue import Delivery, Outcome


@implementer(IQueueRun)
class QueueRun:
    """One agent's way through an active queue. It knows what it has handed out and not got back."""

    __slots__ = ("_held", "_queue", "destination")

    def __init__(self, queue: ActiveQueue) -> None:
        self.destination = queue.destination
        self._queue = queue
        # By identity: deliveries are values, and hashing one would read its whole content.
        self._held: dict[int, Delivery] = {}

    @property
    def held(self) -> list[Delivery]:
        """What was taken and is neither settled nor released."""
        return list(self._held.values())

    async def next(self) -> Delivery | None:
        batch = await self.batch(1)
        return batch[0] if batch else None

    async def batch(self, limit: int) -> Sequence[Delivery]:
        queue = self._queue
        if queue.must_claim:
            await queue.claim()
        taken = queue.take(limit)
        for delivery in taken:
            self._held[id(delivery)] = delivery
        return taken

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        if len(outcomes) != len(delivery.recipients):
            raise ValueError(f"{len(outcomes)} outcomes for {len(delivery.recipients)} recipients")
        if self._held.get(id(delivery)) is not delivery:
            raise ValueError(f"{delivery.message.queue_id} is not held by this run")
        del self._held[id(delivery)]
        self._queue.working.add(self)
        self._queue.settle(delivery, outcomes)

    def release(self, delivery: Delivery) -> None:
        if self._held.get(id(delivery)) is delivery:
            del self._held[id(delivery)]
            self._queue.add([delivery], first=True)

    def fail(self, outcome: Outcome) -> None:
        held = self.held
        self._held.clear()
        self._queue.fail(outcome, held, self)

    def break_off(self, outcome: Outcome) -> None:
        """Settle what is held after a defect of the agent: the others are not to meet it one by one."""
        for delivery in self.held:
            self.settle(delivery, [outcome] * len(delivery.recipients))

    def end(self) -> None:
        """Give back what is held, the first taken first."""
        held = self.held
        self._held.clear()
        self._queue.add(held, first=True)
        self._queue.run_ended(self)
