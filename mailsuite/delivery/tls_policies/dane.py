"""DANE for SMTP: which TLSA records hold for a host, and which names (RFC 7672 section 2.2).

Nothing is decided here but that; what a lookup that fails means is in section 2.1.2: the host is not to be used now.

Known limit: where the MX records are not signed, TLSA records of the host are heeded all the same (section 2.2.1 leaves
that to us); the host is then proved, but not that it serves the domain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from mailsuite.mail.tls_policy import TLSA
from mailsuite.net.dane import usable
from mailsuite.net.dnssec import Answer, AsksDns, LookupFailed

_MOST_RECORDS: Final = 50  # of one host are looked at


class DaneRecords(NamedTuple):
    """What DNSSEC vouches for.

    `records` are all TLSA records, `usable` those that we can go by; neither has any where DANE does not apply. `names`
    are those that a certificate of usage 2 may be for, the TLSA base domain first. `mx_is_secure` says that the host is
    proved to serve the domain.
    """

    records: tuple[TLSA, ...] = ()
    usable: tuple[TLSA, ...] = ()
    names: tuple[str, ...] = ()
    mx_is_secure: bool = False


class NotItsHost(Exception):
    """The signed MX records of a domain do not name the host: whoever told us so has lied, or tells of yesterday."""


class Dane:
    """Asks `dns`, as long as `applies` says that its word on DNSSEC can be taken."""

    def __init__(self, dns: AsksDns, applies: Callable[[], Awaitable[bool]]) -> None:
        self._dns = dns
        self._applies = applies

    async def records(self, domain: str, host: str, port: int) -> DaneRecords | None:
        """What holds for a host that serves a domain, or that the configuration names (then `domain` is empty).

        None where no word on DNSSEC can be taken at all. Raises `LookupFailed`, `NotItsHost`.
        """
        if not await self._applies():
            return None
        # RFC 7672 section 3.2.2; what the configuration names may be called so, too.
        mx_is_secure, others = await self._mail_exchange(domain, host) if domain else (True, (host,))
        for base in await self._candidates(host):
            answer = await self._dns.ask(f"_{port}._tcp.{base}", "TLSA")
            if answer.secure and answer.records:
                records = tuple(answer.records[:_MOST_RECORDS])
                return DaneRecords(records, usable(records), _distinct(base, *others), mx_is_secure)
        return DaneRecords(mx_is_secure=mx_is_secure)

    async def _mail_exchange(self, domain: str, host: str) -> tuple[bool, tuple[str, ...]]:
        """Whether the way from the domain to the host is secure, and the names that the domain adds then."""
        answer = await self._dns.ask(domain, "MX")
        if not answer.secure:
            # RFC 7672 section 3.2.2: then the host's name is the only one.
            return False, ()
        hosts = answer.records or (domain, answer.canonical)
        if host not in hosts:
            raise NotItsHost(f"the signed MX records of {domain} do not name {host}")
        return True, _distinct(domain, answer.canonical)

    async def _candidates(self, host: str) -> tuple[str, ...]:
        """The TLSA base domains to try (RFC 7672 section 2.2.2); none where DANE does not apply.

        Addresses are asked for first, because there are name servers that know no TLSA, in zones that are not signed.
        """
        answer = await self._addresses(host)
        if not answer.records:
            return ()  # the host cannot be reached; that is found out elsewhere
        if answer.secure:
            return _distinct(answer.canonical, host)
        if answer.canonical == host:
            return ()
        # An alias in a signed zone may lead out of it, and still have records of its own.
        return (host,) if (await self._dns.ask(host, "CNAME")).secure else ()

    async def _addresses(self, host: str) -> Answer:
        failure = None
        answer = None
        for kind in ("A", "AAAA"):
            try:
                answer = await self._dns.ask(host, kind)
            except LookupFailed as failed:
                failure = failed
            else:
                if answer.records:
                    return answer
        if failure is not None:
            raise failure
        assert answer is not None
        return answer


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
