"""The maildir agent: takes batches from its run and has them delivered in a worker thread.

What a thread has begun is waited for, whatever tries to cancel the run: else a message that is being delivered would be
given back, and delivered again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from zope.interface import implementer

from mailsuite.delivery.tasks import uncancelled
from mailsuite.interfaces import IDeliveryAgent, IQueueRun
from mailsuite.mail.queue import Delivery, Outcome
from mailsuite.mail.route import MAILDIR


class DeliversBatches(Protocol):
    """What is asked of the store."""

    def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[Sequence[Outcome]]:
        """Deliver a batch, and tell the outcomes of each delivery in the order of its recipients. Blocks."""


@implementer(IDeliveryAgent)
class MaildirAgent:
    """Delivers into a store of maildirs, `batch` deliveries at a time, in up to `concurrency` threads."""

    def __init__(
        self,
        store: DeliversBatches,
        in_thread: Callable[..., Awaitable[Any]],
        *,
        name: str = MAILDIR,
        batch: int = 100,
        concurrency: int = 2,
    ) -> None:
        self.name = name
        self.batch = batch
        self.concurrency = concurrency
        self._store = store
        self._in_thread = in_thread

    async def deliver(self, run: IQueueRun) -> None:
        while batch := await run.batch(self.batch):
            results = await uncancelled(self._in_thread(self._store.deliver, batch))
            for delivery, outcomes in zip(batch, results, strict=True):
                run.settle(delivery, outcomes)
