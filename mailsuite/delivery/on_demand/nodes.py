"""Nodes: what the argument of ETRN means here, and for whom (RFC 1985 sections 5.3 and 8).

A node is a domain; `@domain` is the domain with its sub-domains; `#name` is a customer: all of its domains. Customers
may ask for what is theirs, from their networks or logged in. Whoever may ask for any node may also ask for what is
queued for other hosts: a domain whose backup MX we are, or mail that was deferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from mailsuite.interfaces import ICustomers, IRouter, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address, domain_key, is_domain
from mailsuite.mail.customer import Customer
from mailsuite.mail.networks import is_within
from mailsuite.mail.route import HOLD, RELAY, Destination
from mailsuite.mail.session import Identity, Peer


@dataclass(frozen=True, slots=True)
class EtrnPolicy:
    """Who may ask by ETRN: `who` is "none", "customers" (for their own), "authenticated" or "any".

    From `networks` any node may be asked for, unless `who` is "none". `interval` is the least time in seconds between
    two starts for one destination.
    """

    who: str = "customers"
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    interval: float = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a node stands for: held domains, or all that is held or relayed at a domain and below (`suffix`), or one
    destination that mail is relayed to. `subject` is whom it is about, for the record.
    """  # noqa: D205 - one sentence

    subject: str
    domains: tuple[str, ...] = ()
    suffix: str | None = None
    relayed: Destination | None = None


class Nodes:
    """Knows what nodes mean, by the customers and the routes of now."""

    def __init__(self, customers: ICustomers, router: IRouter, policy: EtrnPolicy) -> None:
        self._customers = customers
        self._router = router
        self.policy = policy

    def wanted(self, node: str, identity: Identity | None, peer: Peer) -> Wanted:
        """What this peer asks for. Raises `Refused`: 458, 459, 501, 502."""
        if self.policy.who == "none":
            raise Refused(replies.NOT_IMPLEMENTED)
        anything = self._may_ask_for_any(identity, peer)
        if node.startswith("#"):
            return self._of_queue(node, identity, peer, anything=anything)
        key = domain_key(node.removeprefix("@"))
        if not is_domain(key):
            raise Refused(replies.BAD_ARGUMENTS)
        if node.startswith("@"):
            return self._of_suffix(node, key, identity, peer, anything=anything)
        return self._of_domain(node, key, identity, peer, anything=anything)

    def _of_queue(self, node: str, identity: Identity | None, peer: Peer, *, anything: bool) -> Wanted:
        customer = self._customers.customer(node[1:])
        if customer is not None and (anything or self._is_theirs(customer, identity, peer)):
            return Wanted(customer.name, customer.domains)
        raise unable(node) if anything else not_allowed(node, "it is not yours")

    def _of_suffix(self, node: str, key: str, identity: Identity | None, peer: Peer, *, anything: bool) -> Wanted:
        if anything:
            if "." not in key:
                raise not_allowed(node, "name more than a top-level domain")  # RFC 1985 section 8
            return Wanted(node, suffix=key)
        owners: list[str] = []
        domains: list[str] = []
        for customer in self._customers.customers():
            if self._is_theirs(customer, identity, peer):
                below = [domain for domain in customer.domains if is_below(domain, key)]
                domains += below
                owners += [customer.name] if below else []
        if not domains:
            raise not_allowed(node, "it is not yours")
        return Wanted(owners[0], tuple(domains))

    def _of_domain(self, node: str, key: str, identity: Identity | None, peer: Peer, *, anything: bool) -> Wanted:
        customer = self._customers.customer_of(key)
        if customer is not None and (anything or self._is_theirs(customer, identity, peer)):
            return Wanted(customer.name, (key,))
        if not anything:
            raise not_allowed(node, "it is not yours")
        destination = self._router.destination(Address("postmaster", key))
        if destination.agent == HOLD:
            return Wanted(key, (key,))
        return Wanted(key, relayed=destination if destination.agent == RELAY else None)

    def _may_ask_for_any(self, identity: Identity | None, peer: Peer) -> bool:
        if self.policy.who == "any" or (self.policy.who == "authenticated" and identity is not None):
            return True
        return is_within(peer.host, self.policy.networks)

    def _is_theirs(self, customer: Customer, identity: Identity | None, peer: Peer) -> bool:
        if identity is not None and identity.customer is not None and customer.is_at_home(peer.host):
            known = self._customers.customer(identity.customer)
            if known is not None and known.name == customer.name:
                return True
        return customer.has_network_of(peer.host)


def is_below(domain: str, suffix: str) -> bool:
    """Whether a domain is this one or one of its sub-domains."""
    return domain == suffix or domain.endswith(f".{suffix}")


def unable(node: str, why: str = "") -> Refused:
    """458: the queue cannot be started."""
    text = f"Unable to queue messages for node {node}"
    return Refused(replies.ETRN_UNABLE.saying(f"{text}: {why}" if why else text))


def not_allowed(node: str, reason: str) -> Refused:
    """459: it is not for this peer."""
    return Refused(replies.ETRN_NOT_ALLOWED.saying(f"Node {node} not allowed: {reason}"))
