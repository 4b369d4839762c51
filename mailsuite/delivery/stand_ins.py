"""Agents that the scheduler has by itself: for agents that are missing, and for mail that is given up."""

from __future__ import annotations

from zope.interface import implementer

from mailsuite.interfaces import IDeliveryAgent, IQueueRun
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import EXPIRED
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
