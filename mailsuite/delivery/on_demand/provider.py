"""The provider's side of on-demand mail relay: turns for ATRN, flushes for ETRN, over one queue of held mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.delivery.on_demand.flushes import Flushes, Hurry
from mailsuite.delivery.on_demand.held_run import HeldQueue, Returns, TakesOutcomes
from mailsuite.delivery.on_demand.nodes import EtrnPolicy, Nodes
from mailsuite.delivery.on_demand.record import Record
from mailsuite.delivery.on_demand.turns import Turn, Turns
from mailsuite.interfaces import ICustomers, IDeliveryAgent, IOnDemand, IRouter, ISpool
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Identity, Peer


@dataclass(frozen=True, slots=True)
class OnDemandSettings:
    """Who may ask by ETRN, and the most messages in one turn or flush."""

    etrn: EtrnPolicy = field(default_factory=EtrnPolicy)
    turn_messages: int = 10_000


_DEFAULTS: Final = OnDemandSettings()


@implementer(IOnDemand)
class OnDemand(Service):
    """See `IOnDemand`. Stop it when sessions have ended, and before the scheduler, which writes outcomes down.

    `settlements` and `hurry` are the scheduler's. `relay` serves ETRN: a relay agent that finds its hosts by
    `hops.HeldHops`.
    """

    def __init__(
        self,
        customers: ICustomers,
        router: IRouter,
        spool: ISpool,
        settlements: TakesOutcomes,
        clock: IReactorTime,
        *,
        relay: IDeliveryAgent,
        hurry: Hurry,
        settings: OnDemandSettings = _DEFAULTS,
    ) -> None:
        self._returns = Returns(spool, clock)
        self._record = Record(spool, clock.seconds)
        queue = HeldQueue(spool, settlements, clock, self._returns, settings.turn_messages)
        self._turns = Turns(customers, queue, self._record)
        nodes = Nodes(customers, router, settings.etrn)
        self._flushes = Flushes(customers, nodes, self._turns, queue, relay, hurry, self._record)

    async def begin_turn(self, identity: Identity, domains: Sequence[str], peer: Peer) -> Turn:
        return await self._turns.begin(identity, domains, peer)

    async def start_queue(self, node: str, identity: Identity | None, peer: Peer) -> Reply:
        return await self._flushes.start(node, identity, peer)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._flushes.stop()
        self._turns.stop()
        await self._record.written()
        self._returns.stop()
