"""TLS policies by the configuration alone: what a route or the table [relay] demands, and nothing that the DNS says."""

from __future__ import annotations

from typing import Final

from zope.interface import implementer

from mailsuite.interfaces import ITLSPolicies
from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import PolicySource, TLSPolicy, TLSResult

_NAMES: Final = {PolicySource.DANE: "dane", PolicySource.MTA_STS: "mta-sts"}
_STRICT: Final = frozenset({"verified", "dane", "implicit"})


@implementer(ITLSPolicies)
class ConfiguredPolicies:
    """Stands in where neither DANE nor MTA-STS are heeded, and nobody wants reports."""

    async def policy(self, domain: str, hop: NextHop) -> TLSPolicy:
        del domain
        return TLSPolicy(hop.tls)

    def note(self, result: TLSResult) -> None:
        """Nobody counts."""


def label(policy: TLSPolicy) -> str:
    """A policy in a word, for the history: who has made it, or the mode where that is the configuration."""
    name = _NAMES.get(policy.source, policy.mode)
    return f"{name} (testing)" if policy.testing else name


def mode_of(policy: TLSPolicy, hop: NextHop) -> str:
    """The mode that a connection is held by: one that is only tested leaves the configuration in force."""
    return hop.tls if policy.testing and policy.mode in _STRICT else policy.mode


def is_safe(policy: TLSPolicy, hop: NextHop) -> bool:
    """Whether mail that demands TLS may go this way, once the server offers REQUIRETLS.

    RFC 8689 section 4.2.1: the host must prove its name, and where an MX record has named it, that record must be
    vouched for, by DNSSEC or by MTA-STS.
    """
    return policy.proves_the_host and not (hop.domain and policy.source is PolicySource.CONFIGURED)
