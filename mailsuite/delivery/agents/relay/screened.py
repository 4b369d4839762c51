"""The run as one connection sees it: some of what is due is not for this connection.

A message that must go by safe hops only (RFC 8689) is put aside where this one is not safe, for the hosts that come
after it. What was put aside for that, or picked out, is drained by a `ListedRun` of its own on another connection.
Everything stays in the hands of the run that it was taken from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from zope.interface import implementer

from mailsuite.interfaces import IQueueRun
from mailsuite.mail.options import PLAIN
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import Destination

MOST_ASIDE = 100  # deliveries; with so many put aside a connection ends


def needs_safety(delivery: Delivery) -> bool:
    """Whether it may go to nobody but a proven host that offers REQUIRETLS.

    RFC 8689 section 4.2.1 demands that of messages with a reverse-path; section 5 would not have a report lost by it.
    """
    options = delivery.message.envelope.options
    return options is not PLAIN and options.require_tls and delivery.reverse_path is not None


def does_without_tls(delivery: Delivery) -> bool:
    """Whether its sender would have it delivered rather than protected (RFC 8689 section 4.2.2)."""
    options = delivery.message.envelope.options
    return options is not PLAIN and options.tls_optional and not options.require_tls


@implementer(IQueueRun)
class ScreenedRun:
    """A run without what is not for this connection; it knows whether the server has said anything about a message.

    `is_safe` tells whether the connection is one for what needs safety. `aside` is what has to wait for another.
    """

    __slots__ = ("_is_safe", "_run", "aside", "destination", "heard")

    def __init__(self, run: IQueueRun, is_safe: Callable[[], bool]) -> None:
        self._run = run
        self._is_safe = is_safe
        self.destination: Destination = run.destination
        self.aside: list[Delivery] = []
        self.heard = False

    async def next(self) -> Delivery | None:
        while len(self.aside) < MOST_ASIDE:
            delivery: Delivery | None = await self._run.next()
            if delivery is None or not needs_safety(delivery) or self._is_safe():
                return delivery
            self.aside.append(delivery)
        return None

    async def batch(self, limit: int) -> Sequence[Delivery]:
        delivery = await self.next() if limit else None
        return () if delivery is None else (delivery,)

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        self.heard = self.heard or any(map(_was_heard, outcomes))
        self._run.settle(delivery, outcomes)

    def release(self, delivery: Delivery) -> None:
        self._run.release(delivery)

    def fail(self, outcome: Outcome) -> None:
        self._run.fail(outcome)


@implementer(IQueueRun)
class ListedRun:
    """Some deliveries of a run that were taken from it before; what is released is in the list again."""

    __slots__ = ("_left", "_run", "destination")

    def __init__(self, run: IQueueRun, deliveries: Iterable[Delivery]) -> None:
        self._run = run
        self._left = deque(deliveries)
        self.destination: Destination = run.destination

    @property
    def left(self) -> Sequence[Delivery]:
        """What was not settled."""
        return tuple(self._left)

    def next(self) -> Awaitable[Delivery | None]:
        return self._next()

    async def _next(self) -> Delivery | None:
        return self._left.popleft() if self._left else None

    async def batch(self, limit: int) -> Sequence[Delivery]:
        return [self._left.popleft() for _ in range(min(limit, len(self._left)))]

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        self._run.settle(delivery, outcomes)

    def release(self, delivery: Delivery) -> None:
        self._left.appendleft(delivery)

    def fail(self, outcome: Outcome) -> None:
        for delivery in self._left:
            self._run.settle(delivery, [outcome] * len(delivery.recipients))
        self._left.clear()


def _was_heard(outcome: Outcome) -> bool:
    """Whether an outcome is the server's word on a recipient, not on the connection (421: RFC 5321 section 3.8)."""
    if outcome.reply is not None:
        return outcome.reply.code != 421
    return outcome.result is not Result.DEFERRED
