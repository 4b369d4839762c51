"""The delivery agents: the one place where they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.plugin import getPlugins
from zope.interface import implementer

from mailsuite import plugins
from mailsuite.config import Settings
from mailsuite.delivery.agents.relay import RelayAgent, RelayAgentSettings
from mailsuite.interfaces import IAgentParts, IDeliveryAgent, IDeliveryAgentMaker, INextHops, IQueueRun, ITLSPolicies
from mailsuite.net.dialer import Dialer
from mailsuite.net.resolver import Resolver
from mailsuite.net.tls import ClientTLS
from mailsuite.service.errors import StartError
from mailsuite.service.routes import own_addresses, shortest_waits

_REST: Final = 30.0  # seconds for which a host that has failed is left alone, where destinations wait that long
_LONGEST_REST: Final = 240.0


@implementer(IAgentParts)
class AgentParts:
    """What delivery agents are lent."""

    def __init__(self, settings: Settings, reactor: Any, in_thread: Callable[..., Deferred[Any]]) -> None:
        self.reactor = reactor
        self.hostname = settings.hostname
        self.data_directory = settings.data_directory
        self.in_thread = in_thread


def make_relay_agent(
    settings: Settings,
    lent: IAgentParts,
    next_hops: INextHops,
    resolver: Resolver,
    dialer: Dialer,
    tls: ClientTLS,
    policies: ITLSPolicies | None = None,
) -> RelayAgent:
    """The agent for everything that leaves by SMTP: what is queued, and what is held where ETRN asks for it.

    Without `policies` TLS is by the configuration alone.
    """
    relay = settings.relay
    # Half of what destinations wait at first: it is their schedule that counts.
    first, longest = shortest_waits(settings)
    return RelayAgent(
        next_hops,
        dialer,
        tls,
        lent.in_thread,
        RelayAgentSettings(
            settings.hostname,
            concurrency=max(relay.concurrency, *(route.concurrency or 0 for route in settings.route), 0),
            connections=relay.connections,
            source_address=relay.source_address,
            connections_per_source=relay.connections_per_source,
            rest=min(_REST, first / 2),
            longest_rest=min(_LONGEST_REST, longest / 2),
            own=own_addresses(settings),
        ),
        addresses=resolver.addresses,
        clock=lent.reactor,
        policies=policies,
    )


@implementer(IDeliveryAgent)
class NamedAgent:
    """An agent under the name that the configuration gives it: several of one kind are different agents."""

    def __init__(self, name: str, agent: IDeliveryAgent) -> None:
        self.name = name
        self.concurrency: int = agent.concurrency
        self.batch: int = agent.batch
        self._agent = agent

    async def deliver(self, run: IQueueRun) -> None:
        await self._agent.deliver(run)


def make_agents(settings: Settings, lent: IAgentParts) -> list[IDeliveryAgent]:
    """The agent for local mailboxes, and those of [[agent]]: all of them plugins. Raises `StartError`."""
    local = settings.local
    agents = [_made("local.agent", local.agent, "local.options", local.options, lent)]
    for number, table in enumerate(settings.agent):
        key = f"agent[{number}]"
        agents.append(NamedAgent(table.name, _made(f"{key}.type", table.type, f"{key}.options", table.options, lent)))
    return agents


def _made(type_key: str, name: str, options_key: str, options: dict[str, Any], lent: IAgentParts) -> IDeliveryAgent:
    makers = {maker.name: maker for maker in getPlugins(IDeliveryAgentMaker, plugins)}
    if name not in makers:
        known = ", ".join(sorted(makers)) or "none"
        raise StartError(f"{type_key} = {name!r}: there is no such delivery agent; those installed are: {known}")
    try:
        agent: IDeliveryAgent = makers[name].make(options, lent)
    except ValueError as error:
        raise StartError(f"{options_key}: {error}") from None
    return agent


def try_agents(settings: Settings) -> None:
    """Make the agents, to see that their options are right. Raises `StartError`."""
    make_agents(settings, AgentParts(settings, Clock(), _in_no_thread))


def _in_no_thread(_function: Callable[..., Any], *_args: Any) -> Deferred[Any]:
    raise StartError("a delivery agent cannot work before the service runs; make it wait for its first run")
