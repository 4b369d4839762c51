"""What the relay agent has around it, watched: the DNS, the next hops, the TLS policies and the dialer.

Each passes on what it is asked, and tells what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsuite.admin.send.certificates import Handshake
from mailsuite.admin.send.steps import Teller
from mailsuite.admin.send.watching import Trial, watched
from mailsuite.delivery.next_hops import Unroutable
from mailsuite.interfaces import Barred, INextHops, ITLSPolicies
from mailsuite.mail.route import Destination, NextHop
from mailsuite.mail.tls_policy import PolicySource, TLSPolicy, TLSResult
from mailsuite.net.dialer import ConnectFailed, Dialer
from mailsuite.net.resolver import MX, NULL_MX, DnsFailure
from mailsuite.net.tls import TLSFailed
from mailsuite.session.handover import Session
from mailsuite.wire.core import Core

_MODES = {
    "none": "no TLS",
    "opportunistic": "TLS where it is offered, any certificate",
    "required": "TLS, any certificate",
    "verified": "TLS with a certificate that proves the name",
    "dane": "TLS with a certificate that DANE proves",
    "implicit": "TLS from the first octet, with a certificate that proves the name",
}
_SOURCES = {
    PolicySource.CONFIGURED: "by the configuration",
    PolicySource.DANE: "by DANE (TLSA records that DNSSEC vouches for)",
    PolicySource.MTA_STS: "by MTA-STS",
}


class AsksDNS(Protocol):
    """What is asked of the resolver."""

    async def mx(self, domain: str) -> Sequence[MX]:
        """See `mailsuite.net.resolver.Resolver.mx`."""

    async def addresses(self, host: str) -> Sequence[str]:
        """See `mailsuite.net.resolver.Resolver.addresses`."""


class WatchedDNS:
    """The resolver; each answer is told."""

    def __init__(self, resolver: AsksDNS, teller: Teller) -> None:
        self._resolver = resolver
        self._teller = teller

    async def mx(self, domain: str) -> list[MX]:
        try:
            records = list(await self._resolver.mx(domain))
        except DnsFailure as failure:
            self._teller.wrong("dns", f"MX of {failure}")
            raise
        if records == [NULL_MX]:
            self._teller.wrong("dns", f"MX of {domain}: a null MX, the domain takes no mail")
        else:
            said = ", ".join(f"{one.preference} {one.host}" for one in records)
            self._teller.ok("dns", f"MX of {domain}: {said}")
        return records

    async def addresses(self, host: str) -> Sequence[str]:
        try:
            found = await self._resolver.addresses(host)
        except DnsFailure as failure:
            self._teller.wrong("dns", f"addresses of {failure}")
            raise
        if list(found) != [host]:
            self._teller.ok("dns", f"addresses of {host}: {', '.join(found)}")
        return found


@implementer(INextHops)
class WatchedHops:
    """Next hops; what they are is told."""

    def __init__(self, hops: INextHops, teller: Teller) -> None:
        self._hops = hops
        self._teller = teller

    async def find(self, destination: Destination) -> Sequence[NextHop]:
        try:
            hops: Sequence[NextHop] = await self._hops.find(destination)
        except Unroutable as unroutable:
            self._teller.wrong("next hops", unroutable.outcome.text)
            raise
        named = "\n".join(f"{hop.host} port {hop.port}" for hop in hops)
        self._teller.ok("next hops", named or "none")
        return hops


@implementer(ITLSPolicies)
class WatchedPolicies:
    """What TLS must be, and by whose word. What comes of a trial is counted for nobody's report."""

    def __init__(self, policies: ITLSPolicies, teller: Teller) -> None:
        self._policies = policies
        self._teller = teller

    async def policy(self, domain: str, hop: NextHop) -> TLSPolicy:
        try:
            policy: TLSPolicy = await self._policies.policy(domain, hop)
        except Barred as barred:
            self._teller.wrong("tls policy", f"no mail may go to {hop.host}: {barred} ({barred.failure.value})")
            raise
        self._teller.ok("tls policy", _in_words(hop, policy))
        return policy

    def note(self, result: TLSResult) -> None:
        """Heard, and not counted."""


def _in_words(hop: NextHop, policy: TLSPolicy) -> str:
    said = f"{hop.host}: {_MODES.get(policy.mode, policy.mode)}, {_SOURCES[policy.source]}"
    if policy.testing:
        said += ", only tested: nothing follows from a failure"
    lines = [said]
    lines += [f"TLSA {one.usage} {one.selector} {one.matching} {one.data.hex()}" for one in policy.tlsa]
    if policy.source is PolicySource.MTA_STS:
        lines += policy.text
    return "\n".join(lines)


class WatchedDialer:
    """Dials, and watches what is said on the connection."""

    def __init__(self, dialer: Dialer, teller: Teller, trial: Trial, *, now: float, ca_file: Path | None) -> None:
        self._dialer = dialer
        self._teller = teller
        self._trial = trial
        self._now = now
        self._ca_file = ca_file

    async def dial(
        self,
        host: str,
        port: int,
        core: Core,
        session: Session,
        *,
        tls: Any = None,  # noqa: ANN401 - as there
        **options: Any,
    ) -> _WatchedEnd:
        """As `mailsuite.net.dialer.Dialer.dial`."""
        if self._trial.is_over:
            raise ConnectFailed("nothing was to be sent")
        handshake = Handshake(self._teller, host, self._now, self._ca_file)
        talk = watched(session, self._teller, self._trial, handshake)
        addresses = options.get("addresses") or [host]
        named = "" if list(addresses) == [host] else f" at {', '.join(addresses)}"
        self._teller.note("connect", host if host.startswith("/") else f"{host} port {port}{named}")
        implicit = None if tls is None else handshake.creator(tls)

        async def begin(conversation: Any) -> Any:  # noqa: ANN401 - a session
            self._teller.ok("connect", f"connected to {conversation.peer}, from {conversation.local}")
            return await talk(conversation)

        try:
            connection = await self._dialer.dial(host, port, core, begin, tls=implicit, **options)
        except ConnectFailed as failure:
            if failure.tls is None:
                self._teller.wrong("connect", str(failure))
            else:
                handshake.failed(str(failure))
            raise
        return _WatchedEnd(connection, handshake, self._teller)


class _WatchedEnd:
    """A connection whose end is told."""

    def __init__(self, connection: Any, handshake: Handshake, teller: Teller) -> None:  # noqa: ANN401 - a Connection
        self._connection = connection
        self._handshake = handshake
        self._teller = teller
        connection.finished().addCallback(self._tell)

    def finished(self) -> Deferred[Exception | None]:
        finished: Deferred[Exception | None] = self._connection.finished()
        return finished

    def abort(self) -> None:
        self._connection.abort()

    def _tell(self, ending: Exception | None) -> None:
        if isinstance(ending, TLSFailed):
            self._handshake.failed(str(ending))
        elif ending is not None:
            self._teller.note("connect", f"the connection has ended: {ending}")
