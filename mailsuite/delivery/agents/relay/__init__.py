"""The relay agent: brings mail to other servers, by SMTP, and by LMTP to next hops that speak it."""

from mailsuite.delivery.agents.relay.agent import RelayAgent
from mailsuite.delivery.agents.relay.policies import ConfiguredPolicies
from mailsuite.delivery.agents.relay.settings import Addresses, Dials, InThread, IsConnection, RelayAgentSettings

__all__ = [
    "Addresses",
    "ConfiguredPolicies",
    "Dials",
    "InThread",
    "IsConnection",
    "RelayAgent",
    "RelayAgentSettings",
]
