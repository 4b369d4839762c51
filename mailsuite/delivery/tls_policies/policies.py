"""Which policy a connection has: DANE's, else MTA-STS's, else that of the configuration.

Rules
- "none", "implicit", and "verified" for a host that the configuration names are the operator's last word: nothing is
  asked. Nor is it for addresses and hosts on this machine.
- Where DANE applies, MTA-STS is not heeded (RFC 8461 section 2). TLSA records that cannot be used demand TLS, and no
  certificate (RFC 7672 section 2.2); then MTA-STS may demand one. Nor do they say that a host serves the domain, where
  its MX records are not signed: whoever forges those may have TLSA records of his own, so MTA-STS is asked for that.
- What the MX of a domain names must have a name: an address or a socket there is barred.
- A lookup that fails bars the host for now (RFC 7672 section 2.1.2).
- What is raised here has been noted for the reports already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.tasks import Tasks
from mailsuite.delivery.tls_policies.dane import Dane, DaneRecords, NotItsHost
from mailsuite.delivery.tls_policies.mta_sts import MtaSts
from mailsuite.delivery.tls_policies.sts_cache import Stored
from mailsuite.delivery.tls_policies.sts_policy import Mode
from mailsuite.interfaces import Barred, ITLSPolicies
from mailsuite.mail.address import domain_key
from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import PolicySource, TLSFailureKind, TLSPolicy, TLSResult
from mailsuite.net.addresses import parse_address
from mailsuite.net.dane import as_text
from mailsuite.net.dnssec import LookupFailed

_REFRESH_INTERVAL: Final = 3600.0


@implementer(ITLSPolicies)
class TLSPolicies:
    """Knows what TLS a connection must have.

    Without `dane` or `sts` these are not heeded. `sink` gets every `TLSResult`, for the reports of RFC 8460. `chance`
    gives numbers from 0 to 1, to spread work in time.
    """

    _log = Logger()

    def __init__(
        self,
        dane: Dane | None,
        sts: MtaSts | None,
        clock: IReactorTime,
        *,
        sink: Callable[[TLSResult], object],
        chance: Callable[[], float],
    ) -> None:
        self._dane = dane
        self._sts = sts
        self._clock = clock
        self._sink = sink
        self._chance = chance
        self._tasks = Tasks()
        self._alarm: IDelayedCall | None = None

    async def start(self) -> None:
        """Begin to fetch policies anew from time to time."""
        if self._sts is not None:
            self._alarm = self._clock.callLater(_REFRESH_INTERVAL * (0.05 + 0.2 * self._chance()), self._refresh)

    async def stop(self) -> None:
        """End what is under way; whoever waits for a policy is cancelled."""
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None
        self._tasks.cancel()
        if self._sts is not None:
            self._sts.stop()
        await self._tasks.finished()

    def note(self, result: TLSResult) -> None:
        self._sink(result)

    async def policy(self, domain: str, hop: NextHop) -> TLSPolicy:
        configured = TLSPolicy(hop.tls, mx_proved=not domain)
        if hop.tls in ("none", "implicit") or (hop.tls == "verified" and not domain):
            return configured
        host = domain_key(hop.host.rstrip("."))
        if _has_no_name(host):
            if domain and host != domain_key(domain):
                # RFC 5321 section 5.1 and RFC 1035 section 3.3.9: an MX record names a host, by its domain name.
                why = f"the MX records of {domain} lead to {host}, which is no name of a host"
                raise self._barred(domain, host, configured, why, TLSFailureKind.VALIDATION)
            # RFC 7672 section 2.2: DANE has nothing to say of an address.
            return self._unless_dane_is_demanded(domain, host, configured, "an address has no TLSA records")
        policy = await self._by_dane(domain, host, hop.port, configured)
        if self._sts is None or (policy.mode == "dane" and policy.mx_proved):
            return policy
        # RFC 8461 section 3.4: of a smart host it is that one's policy.
        stored = await self._sts.policy(domain or host)
        return policy if stored is None or not stored.is_active else self._by_sts(domain or host, host, policy, stored)

    # ----------------------------------------------------------------------------------------- DANE

    async def _by_dane(self, domain: str, host: str, port: int, configured: TLSPolicy) -> TLSPolicy:
        found = None
        if self._dane is not None:
            try:
                found = await self._dane.records(domain, host, port)
            except (LookupFailed, NotItsHost) as failure:
                policy = replace(configured, source=PolicySource.DANE)
                raise self._barred(domain, host, policy, str(failure), TLSFailureKind.DNSSEC_INVALID) from None
        if found is None:
            why = "DNSSEC cannot be relied upon here: see `dane` of [relay]"
            return self._unless_dane_is_demanded(domain, host, configured, why)
        return self._by_records(domain, host, configured, found)

    def _by_records(self, domain: str, host: str, configured: TLSPolicy, found: DaneRecords) -> TLSPolicy:
        policy = replace(configured, mx_proved=found.mx_is_secure)
        if found.records:
            policy = replace(policy, source=PolicySource.DANE, text=tuple(map(as_text, found.records)))
        if configured.mode == "dane" and domain and not found.mx_is_secure:
            # RFC 7672 section 2.2.1
            return self._unless_dane_is_demanded(domain, host, policy, f"the MX records of {domain} are not signed")
        if found.usable:
            return replace(policy, mode="dane", tlsa=found.usable, names=found.names)
        if found.records:
            why = "none of its TLSA records can be used"
            self.note(TLSResult(domain or host, policy, host, failure=TLSFailureKind.TLSA_INVALID, reason=why))
            policy = self._unless_dane_is_demanded(domain, host, policy, why)
            # RFC 7672 section 2.2: the host has promised TLS.
            return policy if policy.mode == "verified" else replace(policy, mode="required")
        return self._unless_dane_is_demanded(domain, host, policy, "it has no TLSA records that DNSSEC vouches for")

    def _unless_dane_is_demanded(self, domain: str, host: str, policy: TLSPolicy, why: str) -> TLSPolicy:
        """RFC 7672 section 6: where it is, mail waits."""
        if policy.mode != "dane":
            return policy
        raise self._barred(domain, host, policy, f"{host} is to be proved by DANE, but {why}", _DANE_REQUIRED)

    # -------------------------------------------------------------------------------------- MTA-STS

    def _by_sts(self, policy_domain: str, host: str, policy: TLSPolicy, stored: Stored) -> TLSPolicy:
        """RFC 8461 section 5."""
        demanded = stored.policy
        by_dane = policy
        policy = replace(policy, source=PolicySource.MTA_STS, text=demanded.text, mx_patterns=demanded.mx)
        fits = demanded.allows(host)
        why = f"the MTA-STS policy of {policy_domain} does not name {host}"
        if demanded.mode is Mode.ENFORCE:
            if not fits:
                raise self._barred(policy_domain, host, policy, why, TLSFailureKind.VALIDATION)
            if by_dane.mode == "dane":
                # RFC 8461 section 2: what proves the host is left to DANE.
                return replace(by_dane, mx_proved=True)
            return replace(policy, mode="verified", mx_proved=True)
        if not fits:
            self.note(TLSResult(policy_domain, policy, host, failure=TLSFailureKind.VALIDATION, reason=why))
        if by_dane.mode == "dane":
            return by_dane
        # What the configuration demands is not up for testing.
        return policy if policy.mode == "verified" else replace(policy, testing=True)

    # ------------------------------------------------------------------------------------- the rest

    def _barred(self, domain: str, host: str, policy: TLSPolicy, why: str, failure: TLSFailureKind) -> Barred:
        self.note(TLSResult(domain or host, policy, host, failure=failure, reason=why))
        return Barred(why, failure)

    def _refresh(self) -> None:
        assert self._sts is not None
        self._tasks.start(self._refresh_once(self._sts), "fetching MTA-STS policies anew")

    async def _refresh_once(self, sts: MtaSts) -> None:
        try:
            await sts.refresh()
        finally:
            if self._alarm is not None:
                self._alarm = self._clock.callLater(_REFRESH_INTERVAL, self._refresh)


_DANE_REQUIRED: Final = TLSFailureKind.DANE_REQUIRED


def _has_no_name(host: str) -> bool:
    return (
        host.startswith("/")
        or parse_address(host.strip("[]")) is not None
        or host == "localhost"
        or host.endswith(".localhost")
    )
