"""The discard agent: takes mail, and forgets it. The history says so of each recipient."""

from __future__ import annotations

from typing import Final

from zope.interface import implementer

from mailsuite.interfaces import IDeliveryAgent, IQueueRun
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.status import EnhancedStatus

_DISCARDED: Final = Outcome(Result.DELIVERED, EnhancedStatus(2, 0, 0), "Discarded")


@implementer(IDeliveryAgent)
class DiscardAgent:
    """Says of everything that it was delivered."""

    name = "discard"
    concurrency = 1
    batch = 100

    async def deliver(self, run: IQueueRun) -> None:
        while batch := await run.batch(self.batch):
            for delivery in batch:
                run.settle(delivery, [_DISCARDED] * len(delivery.recipients))
