"""A queue run of one message that stands in no queue."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from mailsuite.interfaces import IQueueRun
from mailsuite.mail.queue import Delivery, Outcome
from mailsuite.mail.route import Destination


@implementer(IQueueRun)
class OneRun:
    """Gives its one delivery until it is settled; `outcome` is what it came to."""

    def __init__(self, delivery: Delivery) -> None:
        self.destination: Destination = delivery.destination
        self.outcome: Outcome | None = None
        self._delivery: Delivery | None = delivery

    async def next(self) -> Delivery | None:
        taken, self._delivery = self._delivery, None
        return taken

    async def batch(self, limit: int) -> Sequence[Delivery]:
        taken = None if limit < 1 else await self.next()
        return () if taken is None else (taken,)

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        self._delivery = None
        self.outcome = outcomes[0]

    def release(self, delivery: Delivery) -> None:
        if self.outcome is None:
            self._delivery = delivery

    def fail(self, outcome: Outcome) -> None:
        self._delivery = None
        self.outcome = self.outcome or outcome
