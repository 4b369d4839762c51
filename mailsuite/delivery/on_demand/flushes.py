"""Flushes: ETRN starts the queue for a node over new connections, and answers at once (RFC 1985 section 5.1).

Held mail goes to the customer's own server, or to the MX of its domain, by the relay agent over a held run: where
nobody can be reached there, all stays held and nothing is counted. Mail that waits for other hosts becomes due now.

One destination is not started twice within the policy's interval (458), and one flush at a time is under way for it:
who asks again meanwhile is told that it is started.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from mailsuite.delivery.on_demand.held_run import HeldQueue
from mailsuite.delivery.on_demand.nodes import Nodes, Wanted, is_below, unable
from mailsuite.delivery.on_demand.record import Record
from mailsuite.delivery.on_demand.turns import Turns
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import ICustomers, IDeliveryAgent, SpoolError
from mailsuite.mail import replies
from mailsuite.mail.history import EventKind
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import HOLD, RELAY, Destination
from mailsuite.mail.session import Identity, Peer

_MOST_STARTS: Final = 10_000  # that are remembered

Hurry = Callable[[Sequence[Destination]], Awaitable[int]]


class Flushes:
    """Starts queues. `relay` is the agent that serves them, `hurry` makes what waits for other hosts due."""

    _log = Logger()

    def __init__(
        self,
        customers: ICustomers,
        nodes: Nodes,
        turns: Turns,
        queue: HeldQueue,
        relay: IDeliveryAgent,
        hurry: Hurry,
        record: Record,
    ) -> None:
        self._customers = customers
        self._nodes = nodes
        self._turns = turns
        self._queue = queue
        self._relay = relay
        self._hurry = hurry
        self._record = record
        self._starts: dict[Destination, float] = {}
        self._under_way: set[Destination] = set()
        self._tasks = Tasks()

    async def start(self, node: str, identity: Identity | None, peer: Peer) -> Reply:
        """See `IOnDemand.start_queue`."""
        wanted = self._nodes.wanted(node, identity, peer)
        try:
            counts = await self._counts(wanted)
            if not counts:
                return replies.ETRN_NO_MAIL.saying(f"OK, no messages waiting for node {node}")
            return await self._start(node, wanted, counts, peer)
        except SpoolError as error:
            self._log.error("no queue is started for {node}: {error}", node=node, error=str(error))
            raise unable(node) from None

    async def stop(self) -> None:
        """Break off what is under way."""
        self._tasks.cancel()
        await self._tasks.finished()

    async def _counts(self, wanted: Wanted) -> dict[Destination, int]:
        """What waits, for each destination; how much is known of held mail only. Raises `SpoolError`."""
        counts: dict[Destination, int] = {}
        if wanted.domains or wanted.suffix is not None:
            counts = {
                Destination(HOLD, one.domain): one.messages
                for one in await self._queue.spool.held()
                if one.messages and (one.domain in wanted.domains or _is_under(one.domain, wanted.suffix))
            }
        if wanted.relayed is not None or wanted.suffix is not None:
            for destination, _ in await self._queue.spool.destinations():
                below = destination.agent == RELAY and _is_under(destination.name, wanted.suffix)
                if below or destination == wanted.relayed:
                    counts[destination] = 0
        return counts

    async def _start(self, node: str, wanted: Wanted, counts: dict[Destination, int], peer: Peer) -> Reply:
        now = self._queue.clock.seconds()
        under_way = {one for one in counts if one in self._under_way}
        fresh = [one for one in counts if one not in under_way and not self._is_too_soon(one, now)]
        free = [one for one in fresh if not self._is_in_turn(one)]
        if not free:
            if under_way:
                return replies.ETRN_STARTED.saying(f"OK, queuing for node {node} started")
            raise unable(node, "a turn is under way" if fresh else "it was started a short while ago")
        self._note_starts(free, now)
        held = [one for one in free if one.agent == HOLD]
        others = [one for one in free if one.agent != HOLD]
        messages = sum(counts[one] for one in held)
        if others:
            messages += await self._hurry(others)
        reply = replies.ETRN_COUNTED.saying(f"OK, {messages} pending messages for node {node} started")
        self._record.note(EventKind.ETRN, wanted.subject, node=node, waiting=messages, address=peer.host)
        for together in self._together([one for one in held if one not in self._under_way]):
            self._under_way.update(together)
            self._tasks.start(self._flush(together, peer), f"the queue for {together[0]}")
        return reply

    def _owner(self, domain: str) -> str | None:
        customer = self._customers.customer_of(domain)
        return None if customer is None else customer.name

    def _is_too_soon(self, destination: Destination, now: float) -> bool:
        return now < self._starts.get(destination, float("-inf")) + self._nodes.policy.interval

    def _is_in_turn(self, destination: Destination) -> bool:
        customer = self._customers.customer_of(destination.name) if destination.agent == HOLD else None
        return customer is not None and not customer.shared_turns and self._turns.is_under_way(customer)

    def _note_starts(self, destinations: Sequence[Destination], now: float) -> None:
        if len(self._starts) > _MOST_STARTS:
            self._starts = {one: at for one, at in self._starts.items() if now < at + self._nodes.policy.interval}
        self._starts.update(dict.fromkeys(destinations, now))

    def _together(self, held: Sequence[Destination]) -> list[list[Destination]]:
        """What goes over one connection: all for one customer's server, or what is for one domain's MX."""
        together: dict[str, list[Destination]] = {}
        for destination in held:
            customer = self._customers.customer_of(destination.name)
            shared = customer is not None and customer.next_hop is not None
            name = f"#{customer.name}" if customer is not None and shared else destination.name
            together.setdefault(name, []).append(destination)
        return list(together.values())

    async def _flush(self, destinations: Sequence[Destination], peer: Peer) -> None:
        begun = self._queue.clock.seconds()
        owners = {one.name: self._owner(one.name) for one in destinations}

        def objection() -> str | None:
            gone = any(owner is not None and self._owner(domain) != owner for domain, owner in owners.items())
            return "the customer is gone" if gone else None

        run = self._queue.run(destinations, objection=objection)
        try:
            await self._relay.deliver(run)
        except CancelledError:
            pass  # we are stopping: what it had is given back
        except Exception:  # noqa: BLE001 - a defect: all that was not settled stays held
            self._log.failure("the queue for {destination} has met a defect", destination=str(destinations[0]))
        finally:
            run.end()
            self._under_way.difference_update(destinations)
            tally = run.tally
            customer = self._customers.customer_of(destinations[0].name)
            self._record.note(
                EventKind.ETRN,
                destinations[0].name if customer is None else customer.name,
                node=",".join(one.name for one in destinations),
                messages=tally.messages,
                octets=tally.octets,
                deferred=tally.deferred,
                failed=tally.failed,
                seconds=round(self._queue.clock.seconds() - begun, 3),
                address=peer.host,
                complete=run.trouble is None,
                text=run.trouble or "the queue was sent",
            )


def _is_under(domain: str, suffix: str | None) -> bool:
    return suffix is not None and is_below(domain, suffix)
