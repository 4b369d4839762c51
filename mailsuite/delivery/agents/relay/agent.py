"""The relay agent: finds the next hop, dials, and lets a relay session drain the run.

Hosts are tried in their order until one takes mail (RFC 5321 section 5.1); how many addresses are tried in one run is
bounded. Everything that is due for a destination goes over the connection that came about. What a run does is in
`trip`, one connection in `line`; what runs know from each other is in `health`, what they share out in `slots`.

Rules
- TLS is what a policy says (`ITLSPolicies`). Where that allows plaintext, TLS that fails at the handshake is tried once
  more without, at the same address; under any other it never is. A policy that is only being tested keeps no mail.
- A run fails as a whole where no host took mail. It fails for good only where every host said so: one that could not
  be asked may take the mail tomorrow. A next hop from the configuration defers whatever it says before it takes mail:
  our own configuration must not bounce mail.
- A connection that is lost before the server has said anything about a single message counts as a host that took none.
- What demands TLS (REQUIRETLS) goes to proven hosts that offer the same, else to the next host, else back. What asks to
  do without (`TLS-Required: No`) goes out by the configuration alone, where the policy of its destination let none
  through; only the first hundred messages of a run are looked at for that.
- Where mail for a destination comes fast, a drained connection stays for a moment for the next message, as long as
  nobody waits for a slot; elsewhere QUIT goes out in one write with the last message.
- A message that makes a session raise stays in the hands of its run, and the exception goes on to the scheduler.
- A host that has failed is left alone for a while, except by what is held and was asked for: whoever asks is there.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.delivery.agents.relay.health import Health, HealthSettings
from mailsuite.delivery.agents.relay.lookups import Lookups
from mailsuite.delivery.agents.relay.policies import ConfiguredPolicies
from mailsuite.delivery.agents.relay.settings import (
    Addresses,
    Dials,
    InThread,
    MakesTLS,
    RelayAgentSettings,
    Shared,
)
from mailsuite.delivery.agents.relay.slots import Slots
from mailsuite.delivery.agents.relay.trip import Trip
from mailsuite.interfaces import IDeliveryAgent, INextHops, IQueueRun, ITLSPolicies
from mailsuite.mail.route import RELAY


@implementer(IDeliveryAgent)
class RelayAgent:
    """Relays by SMTP, and by LMTP to next hops that speak it.

    `addresses` gives the addresses of a host, and raises `DnsFailure`. Without `policies` TLS is by the configuration
    alone.
    """

    name = RELAY
    batch = 5

    def __init__(
        self,
        next_hops: INextHops,
        dialer: Dials,
        tls: MakesTLS,
        in_thread: InThread,
        settings: RelayAgentSettings,
        *,
        addresses: Addresses,
        clock: IReactorTime,
        policies: ITLSPolicies | None = None,
    ) -> None:
        self.concurrency = settings.concurrency
        self._shared = Shared(
            settings,
            next_hops,
            dialer,
            tls,
            policies or ConfiguredPolicies(),
            in_thread,
            addresses,
            Health(clock, HealthSettings(settings.rest, settings.longest_rest)),
            Slots(settings.connections, settings.connections_per_source),
            Lookups(),
        )

    def beside(self, name: str, policies: ITLSPolicies, through: Callable[[INextHops], INextHops]) -> RelayAgent:
        """An agent of another name with other policies, that finds hosts `through` what is put before the next hops.

        What is known of hosts, and the connections that there may be, it shares with this one.
        """
        other = copy(self)
        other.name = name
        other._shared = replace(self._shared, policies=policies, next_hops=through(self._shared.next_hops))  # noqa: SLF001
        return other

    async def deliver(self, run: IQueueRun) -> None:
        await Trip(run, self._shared).go()

    def wake(self) -> None:
        """Leave no host alone any longer: an operator wants the queue tried now."""
        self._shared.health.wake()

    @property
    def connections(self) -> int:
        """How many connections there are, or are being made."""
        return self._shared.slots.used
