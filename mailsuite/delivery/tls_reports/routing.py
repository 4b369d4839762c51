"""How reports travel: as all mail does, but by connections of their own.

RFC 8460 section 3 wants them delivered whatever is wrong with TLS, and their connections in no report: two servers
would report to each other on nothing but reports for ever. So what would be relayed is queued for an agent of another
name, which is the relay agent with policies that demand nothing, and count nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from zope.interface import implementer

from mailsuite.delivery.agents.relay import RelayAgent
from mailsuite.delivery.pacing import DestinationRules, Pacing
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.interfaces import INextHops, ITLSPolicies
from mailsuite.mail.address import Address
from mailsuite.mail.route import RELAY, Destination, NextHop, Target
from mailsuite.mail.tls_policy import TLSPolicy, TLSResult

TLS_REPORTS: Final = "tls-reports"

_LIFETIME: Final = 86400.0  # seconds that a report is tried: RFC 8460 section 5.5

Reroute = Callable[[Address, Destination, Address | None], Destination]


def aside(target: Target) -> Target:
    """A report's target: where it would be relayed, by the agent for reports."""
    return replace(target, destination=_reporting(target.destination))


def keep_aside(reroute: Reroute) -> Reroute:
    """A `reroute` under which reports that wait stay with their agent."""

    def rerouted(address: Address, present: Destination, sender: Address | None = None) -> Destination:
        destination = reroute(address, present, sender)
        return _reporting(destination) if present.agent == TLS_REPORTS else destination

    return rerouted


def report_agent(relay: RelayAgent) -> RelayAgent:
    """The agent for reports, which shares with the relay agent what that knows of hosts, and its connections."""
    return relay.beside(TLS_REPORTS, Undemanding(), _AsRelayed)


@implementer(ITLSPolicies)
class Undemanding:
    """TLS where it is offered; what the configuration says of its own next hops still holds: it knows them."""

    async def policy(self, domain: str, hop: NextHop) -> TLSPolicy:
        return TLSPolicy("opportunistic" if domain and hop.tls not in ("none", "implicit") else hop.tls)

    def note(self, result: TLSResult) -> None:
        """Not counted."""


@implementer(INextHops)
class _AsRelayed:
    """Next hops of what would be relayed."""

    def __init__(self, inner: INextHops) -> None:
        self._inner = inner

    async def find(self, destination: Destination) -> Sequence[Any]:
        found: Sequence[Any] = await self._inner.find(Destination(RELAY, destination.name))
        return found


class ReportRules:
    """When and how fast: as for the destination itself, but not for longer than a day."""

    def __init__(self, inner: DestinationRules) -> None:
        self._inner = inner

    def retry(self, destination: Destination) -> RetrySchedule:
        if destination.agent != TLS_REPORTS:
            return self._inner.retry(destination)
        schedule = self._inner.retry(Destination(RELAY, destination.name))
        return replace(schedule, lifetime=min(schedule.lifetime, _LIFETIME))

    def pacing(self, destination: Destination) -> Pacing:
        agent = RELAY if destination.agent == TLS_REPORTS else destination.agent
        return self._inner.pacing(destination._replace(agent=agent))


def _reporting(destination: Destination) -> Destination:
    return destination._replace(agent=TLS_REPORTS) if destination.agent == RELAY else destination
