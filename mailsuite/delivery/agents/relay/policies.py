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
        # Nobody asks here whether an MX record is signed.
        return TLSPolicy(hop.tls, mx_proved=not domain)

    def note(self, result: TLSResult) -> None:
        """Nobody counts."""


def label(policy: TLSPolicy) -> str:
    """A policy in a word, for the history: who has made it, or the mode where that is the configuration."""
    name = _NAMES.get(policy.source, policy.mode)
    if policy.source is PolicySource.DANE and not policy.mx_proved:
        # RFC 7672 section 2.2.1: such a delivery is not to be taken for a secure one.
        name = f"{name} (MX not signed)"
    return f"{name} (testing)" if policy.testing else name


def mode_of(policy: TLSPolicy, hop: NextHop) -> str:
    """The mode that a connection is held by: one that is only tested leaves the configuration in force."""
    return hop.tls if policy.testing and policy.mode in _STRICT else policy.mode


def relaxed(hop: NextHop) -> TLSPolicy:
    """What holds for mail whose sender would have no policy heeded: the configuration, as far as that needs none.

    Where DANE is demanded, there are no records to hold a certificate against, so TLS is as good as it comes.
    """
    return TLSPolicy("opportunistic" if hop.tls == "dane" else hop.tls)
