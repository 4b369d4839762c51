"""Agents that the scheduler has by itself: for agents that are missing, mail that is given up, and lists' reports."""

from __future__ import annotations

from typing import Final

from zope.interface import implementer

from mailsuite.interfaces import IDeliveryAgent, IQueueRun
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import EXPIRED, REDISTRIBUTED
from mailsuite.mail.status import EnhancedStatus


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


@implementer(IDeliveryAgent)
class ExpiredAgent:
    """Serves what was held and is given up: its queue settles all that is claimed, and nothing is left for an agent."""

    name = EXPIRED
    concurrency = 1
    batch = 1

    async def deliver(self, run: IQueueRun) -> None:
        while await run.batch(1):
            pass


# RFC 3461 section 5.2.7.1: for the original message this is final delivery.
TAKEN_OVER: Final = Outcome(
    Result.DELIVERED, EnhancedStatus(2, 1, 5), "The mailing list has accepted the message and sends it to its members"
)


@implementer(IDeliveryAgent)
class ListAgent:
    """Serves what stands for a list in the queue, beside its members: that the list has it is all there is to say."""

    name = REDISTRIBUTED
    concurrency = 1
    batch = 100

    async def deliver(self, run: IQueueRun) -> None:
        while batch := await run.batch(self.batch):
            for delivery in batch:
                run.settle(delivery, [TAKEN_OVER] * len(delivery.recipients))
