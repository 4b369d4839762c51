"""What the relay agent is told, and what its runs share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from mailsuite.delivery.agents.relay.health import Health
from mailsuite.delivery.agents.relay.lookups import Lookups
from mailsuite.delivery.agents.relay.slots import Slots
from mailsuite.delivery.own_addresses import NOWHERE, OwnAddresses
from mailsuite.interfaces import INextHops, ITLSPolicies
from mailsuite.mail.tls_policy import TLSPolicy
from mailsuite.session.handover import Session
from mailsuite.wire.core import Core

InThread = Callable[..., Awaitable[Any]]
Addresses = Callable[[str], Awaitable[Sequence[str]]]


class IsConnection(Protocol):
    """A connection that was dialled."""

    def finished(self) -> Deferred[Exception | None]:
        """See `mailsuite.net.connection.Connection.finished`."""

    def abort(self) -> None:
        """End it now."""


class Dials(Protocol):
    """What is asked of the dialer."""

    async def dial(
        self,
        host: str,
        port: int,
        core: Core,
        session: Session,
        *,
        tls: Any = None,  # noqa: ANN401 - as there
        source_address: str | None = None,
        addresses: Sequence[str] | None = None,
        failed: Callable[[str, str], object] | None = None,
    ) -> IsConnection:
        """See `mailsuite.net.dialer.Dialer.dial`."""


class MakesTLS(Protocol):
    """What is asked of the TLS settings."""

    def for_policy(
        self, hostname: str, policy: TLSPolicy, *, certificate: Path | None = None, key: Path | None = None
    ) -> Any:  # noqa: ANN401 - what Twisted's startTLS takes
        """See `mailsuite.net.tls.ClientTLS.for_policy`."""


@dataclass(frozen=True, slots=True)
class RelayAgentSettings:
    """What the configuration says of the relay agent.

    `hostname` is what we call ourselves. `concurrency` is how many connections there may be at once to one destination,
    `connections` in all, `connections_per_source` from one source address. `attempts` is how many addresses are tried
    in one run. `source_address` is where connections leave from that have none of their route. An address that has
    failed rests for `rest` seconds, after each further failure longer, up to `longest_rest`: less than destinations do.
    Hosts that MX records name are left out where their addresses are `own`.
    """

    hostname: str
    concurrency: int = 5
    connections: int = 200
    attempts: int = 5
    source_address: str | None = None
    connections_per_source: int | None = None
    rest: float = 30.0
    longest_rest: float = 240.0
    own: OwnAddresses = NOWHERE


@dataclass(frozen=True, slots=True)
class Shared:
    """What all runs of the agent share."""

    settings: RelayAgentSettings
    next_hops: INextHops
    dialer: Dials
    tls: MakesTLS
    policies: ITLSPolicies
    in_thread: InThread
    addresses: Addresses
    health: Health
    slots: Slots
    lookups: Lookups
