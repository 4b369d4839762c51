"""Routes: what the configuration says about where mail for a domain goes. Plain data, and one look-up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mailsuite.mail.address import domain_key
from mailsuite.mail.route import HOLD, RELAY, Destination, NextHop


@dataclass(frozen=True, slots=True)
class Route:
    """One rule. `pattern` is a domain key, `.domain` for all of its sub-domains, or `*` for every domain.

    Either `next_hop`, or `hold`, or neither: then the domain's own MX is asked. `relay` lets strangers send to it
    through us.
    """

    pattern: str
    next_hop: NextHop | None = None
    hold: bool = False
    relay: bool = False

    def fits(self, domain: str) -> bool:
        """Whether the rule is for this domain (a domain key)."""
        if self.pattern.startswith("."):
            return domain.endswith(self.pattern)
        return self.pattern in ("*", domain)


class Routes:
    """All routes, in order; the first that fits is taken. Without one the MX of the domain is asked.

    `default` says how to speak to hosts that MX records name: its `host` is replaced by each of them. Raises
    `ValueError` where two routes name one next hop and differ in how to speak to it: by its name they would be one.
    """

    def __init__(self, routes: Iterable[Route] = (), *, default: NextHop | None = None) -> None:
        self._routes = tuple(routes)
        self._hops: dict[str, NextHop] = {}
        for route in self._routes:
            if route.next_hop is not None:
                name = _hop_name(route.next_hop)
                if self._hops.setdefault(name, route.next_hop) != route.next_hop:
                    raise ValueError(f"two routes lead to {name} with different settings: give them the same")
        self.default = default or NextHop("", use_mx=True)

    def route(self, domain: str) -> Route | None:
        """The route for a domain, or None."""
        key = domain_key(domain)
        return next((route for route in self._routes if route.fits(key)), None)

    def may_relay(self, domain: str) -> bool:
        """Whether strangers may send to this domain through us."""
        route = self.route(domain)
        return route is not None and route.relay

    def names(self, domain: str) -> bool:
        """Whether there is a route for this very domain, or for those above it; one for all others is none."""
        route = self.route(domain)
        return route is not None and route.pattern != "*"

    def has_next_hop(self, domain: str) -> bool:
        """Whether a next hop is configured for this very domain, or for those above it; one for all others is none."""
        route = self.route(domain)
        return route is not None and route.next_hop is not None and route.pattern != "*"

    def destination(self, domain: str) -> Destination:
        """Where mail for a domain that is not local goes."""
        route = self.route(domain)
        key = domain_key(domain)
        if route is None:
            return Destination(RELAY, key)
        if route.hold:
            return Destination(HOLD, key)
        if route.next_hop is None:
            return Destination(RELAY, key)
        return Destination(RELAY, _hop_name(route.next_hop))

    def next_hop(self, destination: Destination) -> NextHop | None:
        """The configured next hop that a destination names; None where it is the name of a domain."""
        return self._hops.get(destination.name)

    def destinations_at(self, host: str) -> list[Destination]:
        """The destinations whose configured next hop is this host, at whatever port."""
        key = domain_key(host)
        return [Destination(RELAY, name) for name, hop in self._hops.items() if domain_key(hop.host) == key]


def _hop_name(hop: NextHop) -> str:
    """`[host]:port`, in brackets as operators write a host whose MX is not asked, with the user where there is one.

    Two routes to one host with different credentials are two destinations: their mail never shares a connection.
    """
    user = "" if hop.username is None else f"{hop.username}@"
    return f"{user}[{hop.host}]:{hop.port}"
