"""Next hops: the hosts that a relay destination means, in the order in which to try them (RFC 5321 section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Protocol

from zope.interface import implementer

from mailsuite.delivery.routes import Routes, is_configured
from mailsuite.interfaces import INextHops
from mailsuite.mail.address import domain_key, is_address_literal, parse_literal
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import Destination, NextHop
from mailsuite.mail.status import EnhancedStatus
from mailsuite.net.resolver import MX, NULL_MX, DnsFailure


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

    `names` are the names that we ourselves go by: mail is never sent to them, nor to hosts of a worse or equal
    preference.
    """

    def __init__(self, routes: Routes, resolver: MailExchanges, names: Sequence[str]) -> None:
        self._routes = routes
        self._resolver = resolver
        self._names = frozenset(domain_key(name) for name in names)

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
            return (replace(like, host=self._of_literal(domain), use_mx=False),)
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

    def _of_literal(self, literal: str) -> str:
        """The address that a literal stands for; one of ours is a loop (RFC 5321 section 5.1)."""
        if domain_key(literal) in self._names:
            raise _unroutable(Result.FAILED, "5.4.6", f"{literal} is this host, which does not serve it")
        return str(parse_literal(literal))

    async def _exchanges(self, domain: str, like: NextHop) -> Sequence[NextHop]:
        """The hosts that take mail for a domain, best first, each to be spoken to `like` this one.

        Those of one preference stay in the order of the resolver, which is one of chance (RFC 5321 section 5.1).
        """
        try:
            exchanges = await self._resolver.mx(domain)
        except DnsFailure as failure:
            if failure.temporary:
                raise _unroutable(Result.DEFERRED, "4.4.3", str(failure)) from None
            raise _unroutable(Result.FAILED, "5.1.2", str(failure)) from None
        if exchanges == [NULL_MX]:
            # RFC 7505 section 4.1
            raise _unroutable(Result.FAILED, "5.1.10", f"{domain} does not accept mail (null MX)")
        best_first = sorted(self._before_us(domain, exchanges), key=attrgetter("preference"))
        return [replace(like, host=exchange.host, use_mx=False, domain=domain_key(domain)) for exchange in best_first]

    def _before_us(self, domain: str, exchanges: list[MX]) -> list[MX]:
        """Those that are nearer to the destination than we are (RFC 5321 section 5.1)."""
        ours = [exchange.preference for exchange in exchanges if domain_key(exchange.host) in self._names]
        if not ours:
            return exchanges
        nearer = [exchange for exchange in exchanges if exchange.preference < min(ours)]
        if not nearer:
            raise _unroutable(
                Result.FAILED, "5.4.6", f"the MX records of {domain} lead to this host, which does not serve it"
            )
        return nearer


def _unroutable(result: Result, status: str, text: str) -> Unroutable:
    parsed = EnhancedStatus.parse(status)
    assert parsed is not None
    return Unroutable(Outcome(result, parsed, text))
