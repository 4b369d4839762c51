"""The delivery agents: the one place where they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.plugin import getPlugins
from zope.interface import implementer

from mailsuite import plugins
from mailsuite.config import Settings
from mailsuite.delivery.agents.relay import RelayAgent, RelayAgentSettings
from mailsuite.interfaces import IAgentParts, IDeliveryAgent, IDeliveryAgentMaker, INextHops
from mailsuite.net.dialer import Dialer
from mailsuite.net.resolver import Resolver
from mailsuite.net.tls import ClientTLS
from mailsuite.service.errors import StartError


@implementer(IAgentParts)
class AgentParts:
    """What delivery agents are lent."""

    def __init__(self, settings: Settings, reactor: Any, in_thread: Callable[..., Deferred[Any]]) -> None:
        self.reactor = reactor
        self.hostname = settings.hostname
        self.data_directory = settings.data_directory
        self.in_thread = in_thread


def make_relay_agent(
    settings: Settings, lent: IAgentParts, next_hops: INextHops, resolver: Resolver, dialer: Dialer, tls: ClientTLS
) -> RelayAgent:
    """The agent for everything that leaves by SMTP: what is queued, and what is held where ETRN asks for it."""
    return RelayAgent(
        next_hops,
        dialer,
        tls,
        lent.in_thread,
        RelayAgentSettings(
            settings.hostname,
            concurrency=settings.relay.concurrency,
            source_address=settings.relay.source_address,
        ),
        addresses=resolver.addresses,
    )


def make_local_agent(settings: Settings, lent: IAgentParts) -> IDeliveryAgent:
    """The agent for local mailboxes, a plugin. Raises `StartError`."""
    maker = _maker(settings.local.agent)
    try:
        agent: IDeliveryAgent = maker.make(settings.local.options, lent)
    except ValueError as error:
        raise StartError(f"local.options: {error}") from None
    return agent


def _maker(name: str) -> IDeliveryAgentMaker:
    makers = {maker.name: maker for maker in getPlugins(IDeliveryAgentMaker, plugins)}
    if name not in makers:
        known = ", ".join(sorted(makers)) or "none"
        raise StartError(f"local.agent = {name!r}: there is no such delivery agent; those installed are: {known}")
    return makers[name]


def try_local_agent(settings: Settings) -> None:
    """Make the local agent, to see that its options are right. Raises `StartError`."""
    make_local_agent(settings, AgentParts(settings, Clock(), _in_no_thread))


def _in_no_thread(_function: Callable[..., Any], *_args: Any) -> Deferred[Any]:
    raise StartError("a delivery agent cannot work before the service runs; make it wait for its first run")
