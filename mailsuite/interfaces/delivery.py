"""Between the scheduler and those who deliver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from mailsuite.mail.queue import Delivery, Outcome
from mailsuite.mail.route import Destination


class IQueueRun(Interface):
    """The deliveries for one destination, drained by an agent or by a relay session, whoever dialled."""

    destination = Attribute("mailsuite.mail.route.Destination")

    def next() -> Awaitable[Delivery | None]:
        """The next delivery, or None when nothing more is due. What was taken must be settled or released."""

    def batch(limit: int) -> Awaitable[Sequence[Delivery]]:
        """Up to `limit` deliveries at once; empty when nothing more is due."""

    def settle(delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Report what became of the recipients, in their order. The spool writes it down with others, in groups."""

    def release(delivery: Delivery) -> None:
        """Give a delivery back: no attempt was made. Does nothing for one that is settled or was released before."""

    def fail(outcome: Outcome) -> None:
        """The destination as a whole came to this outcome: its host cannot be reached, or its domain does not exist.

        What this run holds, what is ready and what else is due is settled with it. After a deferred outcome the
        destination is left alone for a while: `next` and `batch` have nothing more.
        """


class ILingeringRun(IQueueRun):
    """A run that can say whether more is likely to come in a moment, and wait for it."""

    expects_more = Attribute(
        "bool: whether mail has been coming so fast that a connection had better stay for a moment"
    )

    def more() -> Any:  # noqa: ANN401 - interfaces know nothing of Twisted
        """A `Deferred[bool]`: fires with True when there may be more to take, or with False after a moment.

        Whoever waits may fire it with False, or cancel it.
        """


class IDeliveryAgent(Interface):
    """Delivers, as a plugin: found by `twisted.plugin` under `IDeliveryAgentMaker`, or given to the service by hand."""

    name = Attribute("str: what `Destination.agent` says")
    concurrency = Attribute("int: how many runs this agent may have at once for one destination")
    batch = Attribute("int: a further run begins beside others where at least that many deliveries are waiting")

    def deliver(run: Any) -> Awaitable[None]:
        """Drain an `IQueueRun`. Whatever it has neither settled nor released when it ends is released.

        Raises nothing for a failed delivery, that is an outcome; an exception is a defect: what it has in its hands
        is put on hold, with the traceback in its history; of several, the one that raises when it is alone.
        """


class IDeliveryAgentMaker(Interface):
    """A plugin (in the package `mailsuite.plugins`, any distribution may add to it) that builds a delivery agent."""

    name = Attribute("str: the agent's name in the configuration and in destinations")

    def make(options: dict[str, Any], parts: Any) -> Any:  # noqa: ANN401 - an interface cannot name those below it
        """Build the `IDeliveryAgent` from its table in the configuration; `parts` is an `IAgentParts`.

        Raises `ValueError` with one sentence where an option is wrong.
        """


class IAgentParts(Interface):
    """What the service lends to agents."""

    reactor = Attribute("the reactor: IReactorTime, IReactorTCP, IReactorThreads")
    hostname = Attribute("str: our own host name")
    data_directory = Attribute("pathlib.Path: where relative paths begin")

    def in_thread(function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run blocking work in the thread pool."""


class INextHops(Interface):
    """Turns a relay destination into hosts to dial, in order of preference."""

    def find(destination: Destination) -> Awaitable[Sequence[Any]]:
        """The `NextHop`s to dial. Raises `Unroutable`, with the outcome, where there are none."""
