"""Next hops: the hosts that a relay destination means, in the order in which to try them (RFC 5321 section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Final, Protocol

from zope.interface import implementer

from mailsuite.delivery.own_addresses import NOWHERE, OwnAddresses
from mailsuite.delivery.routes import Routes, is_configured
from mailsuite.interfaces import INextHops
from mailsuite.mail.address import domain_key, is_address_literal, parse_literal
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import Destination, NextHop
from mailsuite.mail.status import EnhancedStatus
from mailsuite.net.addresses import parse_address
from mailsuite.net.resolver import MX, NULL_MX, DnsFailure, NoUsableHost

_LOOP: Final = EnhancedStatus(5, 4, 6)


class Unroutable(Exception):
    """There is no host for a destination, for now or for good; `outcome` says it of every recipient."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class MailExchanges(Protocol):
    """What is asked of the resolver."""

    async def mx(self, domain: str) -> list[MX]:
        """See `mailsuite.net.resolver.Resolver.mx`."""


@implementer(INextHops)
class NextHops:
    """Explicit next hops from the routes, for all else the MX of the domain.

    `names` are the names and address literals that we ourselves go by: mail is never sent to them, nor to hosts of a
    worse or equal preference. Nor is it to an address literal that is `own`; whoever dials the hosts looks at theirs.
    """

    def __init__(
        self, routes: Routes, resolver: MailExchanges, names: Sequence[str], own: OwnAddresses = NOWHERE
    ) -> None:
        self._routes = routes
        self._resolver = resolver
        self._names = frozenset(domain_key(name) for name in names)
        self._literals = frozenset(str(parse_literal(name)) for name in names if is_address_literal(name))
        self._own = own

    async def find(self, destination: Destination) -> Sequence[NextHop]:
        configured = self._routes.next_hops(destination)
        if configured:
            return await self._of_configured(configured)
        domain = destination.name
        if is_configured(destination):
            # The routes are others now, and there may have been credentials: it waits for whoever mends that.
            raise _unroutable(Result.DEFERRED, "4.3.5", f"no route leads to {domain} any more")
        like = self._routes.like(domain)
        if is_address_literal(domain):
            return (replace(like, host=self._of_literal(domain, like.port), use_mx=False),)
        return await self._exchanges(domain, like)

    async def _of_configured(self, configured: Sequence[NextHop]) -> Sequence[NextHop]:
        """The hosts in the order of the configuration; those of an MX that gives none are left out beside others."""
        found: list[NextHop] = []
        trouble: Unroutable | None = None
        for hop in configured:
            if not hop.use_mx:
                found.append(hop)
                continue
            try:
                found += await self._exchanges(hop.host, hop)
            except Unroutable as unroutable:
                trouble = unroutable
        if found or trouble is None:
            return found
        # It is our own configuration that leads nowhere: the mail waits for whoever mends that.
        status = trouble.outcome.status.of_class(4)
        raise Unroutable(replace(trouble.outcome, result=Result.DEFERRED, status=status))

    def _of_literal(self, literal: str, port: int) -> str:
        """The address that a literal stands for; one of ours is a loop (RFC 5321 section 5.1)."""
        address = str(parse_literal(literal))
        plain = str(parse_address(address))  # IPv4 may be written as IPv6
        if {address, plain} & self._literals or self._own.answer(address, port):
            raise _unroutable(Result.FAILED, "5.4.6", f"{literal} is this host, which does not serve it")
        return address

    async def _exchanges(self, domain: str, like: NextHop) -> Sequence[NextHop]:
        """The hosts that take mail for a domain, best first, each to be spoken to `like` this one.

        Those of one preference stay in the order of the resolver, which is one of chance (RFC 5321 section 5.1).
        """
        try:
            exchanges = await self._resolver.mx(domain)
        except NoUsableHost as failure:
            raise _unroutable(Result.FAILED, "5.4.4", str(failure)) from None
        except DnsFailure as failure:
            if failure.temporary:
                raise _unroutable(Result.DEFERRED, "4.4.3", str(failure)) from None
            raise _unroutable(Result.FAILED, "5.1.2", str(failure)) from None
        if exchanges == [NULL_MX]:
            # RFC 7505 section 4.1
            raise _unroutable(Result.FAILED, "5.1.10", f"{domain} does not accept mail (null MX)")
        best_first = sorted(self._before_us(domain, exchanges), key=attrgetter("preference"))
        key = domain_key(domain)
        return [
            replace(like, host=exchange.host, use_mx=False, domain=key, preference=exchange.preference)
            for exchange in best_first
        ]

    def _before_us(self, domain: str, exchanges: list[MX]) -> list[MX]:
        """Those that are nearer to the destination than we are (RFC 5321 section 5.1)."""
        ours = [exchange.preference for exchange in exchanges if domain_key(exchange.host) in self._names]
        if not ours:
            return exchanges
        nearer = [exchange for exchange in exchanges if exchange.preference < min(ours)]
        if not nearer:
            raise Unroutable(loop_of(domain))
        return nearer


def loop_of(domain: str) -> Outcome:
    """What becomes of mail for a domain that we are the best host of, without serving it (RFC 5321 section 5.1)."""
    return Outcome(Result.FAILED, _LOOP, f"the MX records of {domain} lead to this host, which does not serve it")


def _unroutable(result: Result, status: str, text: str) -> Unroutable:
    parsed = EnhancedStatus.parse(status)
    assert parsed is not None
    return Unroutable(Outcome(result, parsed, text))
