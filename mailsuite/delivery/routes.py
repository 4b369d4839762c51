"""Routes: what the configuration says about where mail goes. Plain data, and one look-up.

A route counts where all of its conditions fit; of those that count the first one is taken. How a destination is spoken
to, when it is tried again and how fast it gets its mail belong to the destination: what leads to one name must say the
same of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

from mailsuite.delivery.pacing import Pacing
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.mail.address import Address, domain_key
from mailsuite.mail.route import HOLD, RELAY, Destination, NextHop

_MX = "mx:"
_NULL = "<>"
_ACCOUNT = re.compile(r"(.+?)@(?:\[|mx:)")


@dataclass(frozen=True)
class Route:
    """One rule. `pattern` is a domain key, `.domain` for all of its sub-domains, or `*` for every domain.

    `recipient` is an address, with `*` for anything in its local part; `sender` is one, or `@domain` for all of its, or
    `<>` for the null one. Either `next_hops`, in the order in which they are tried, or `agent`, or `hold`; or none of
    these: then the domain's own MX is asked, and spoken to `like` that. `relay` lets strangers send there through us.
    `retry` and `pacing` are for what it leads to, where that differs from all others. `name` is how people know it.
    """

    pattern: str = "*"
    next_hops: tuple[NextHop, ...] = ()
    hold: bool = False
    relay: bool = False
    recipient: str | None = None
    sender: str | None = None
    agent: str | None = None
    like: NextHop | None = None
    retry: RetrySchedule | None = None
    pacing: Pacing | None = None
    name: str = field(default="", compare=False)

    def fits(self, address: Address, sender: Address | None) -> bool:
        """Whether all conditions are met."""
        return (
            self._fits_domain(address.domain_key)
            and (self._local_part is None or self._fits_recipient(address))
            and (self.sender is None or self._fits_sender(sender))
        )

    @property
    def is_specific(self) -> bool:
        """Whether it is for a domain or a recipient that it names; else it is for all others."""
        return self.pattern != "*" or self.recipient is not None

    @property
    def leads(self) -> bool:
        """Whether it leads somewhere of its own, not to the MX of a domain."""
        return bool(self.next_hops) or self.hold or self.agent is not None

    @property
    def has_conditions(self) -> bool:
        """Whether it looks at more than the domain."""
        return self.recipient is not None or self.sender is not None

    @property
    def is_guarded(self) -> bool:
        """Whether it lends credentials of ours to a sender: that must be the one whom it names, not a forged one."""
        return self.sender is not None and any(hop.username is not None for hop in self.next_hops)

    @property
    def key(self) -> str:
        """What it can be found by: its pattern, or the domain of its recipient."""
        if self.recipient is None:
            return self.pattern
        return domain_key(self.recipient.rpartition("@")[2])

    @cached_property
    def rule(self) -> str:
        """What chose a destination, in words."""
        to = f"to {self.recipient}" if self.recipient is not None else self.pattern
        conditions = [to, self.sender and f"from {self.sender}"]
        return f"{self.name or 'route'} ({', '.join(filter(None, conditions))})"

    @cached_property
    def _local_part(self) -> re.Pattern[str] | None:
        if self.recipient is None:
            return None
        parts = self.recipient.rpartition("@")[0].split("*")
        return re.compile(".*".join(map(re.escape, parts)), re.IGNORECASE | re.DOTALL)

    def _fits_domain(self, key: str) -> bool:
        if self.pattern.startswith("."):
            return key.endswith(self.pattern)
        return self.pattern in ("*", key)

    def _fits_recipient(self, address: Address) -> bool:
        assert self._local_part is not None
        return address.domain_key == self.key and self._local_part.fullmatch(address.local_part) is not None

    def _fits_sender(self, sender: Address | None) -> bool:
        if sender is None or self.sender == _NULL:
            return sender is None and self.sender == _NULL
        assert self.sender is not None
        local, _, domain = self.sender.rpartition("@")
        return sender.domain_key == domain_key(domain) and local.casefold() in ("", sender.local_part.casefold())


class _Rules(NamedTuple):
    """All that is said of one destination."""

    hops: tuple[NextHop, ...]
    retry: RetrySchedule | None
    pacing: Pacing | None


def _differing(one: _Rules, other: _Rules) -> Sequence[str]:
    """What two routes say differently, by the names of the configuration."""
    keys: dict[str, None] = {}
    for mine, its in zip(one.hops, other.hops, strict=False):
        keys.update(dict.fromkeys(each.name for each in fields(mine) if _differ(mine, its, each.name)))
    said = list(keys)
    said += [] if one.retry == other.retry else ["when it is tried again"]
    said += [] if one.pacing == other.pacing else ["how fast it is sent to"]
    return said


def _differ(one: object, other: object, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


class Routes:
    """All routes, in order. Without one that fits the MX of the domain is asked.

    `default` says how to speak to hosts that MX records name: its `host` is replaced by each of them. `retry` and
    `pacing` are for every destination of which no route says more. Raises `ValueError` where two routes lead to one
    destination and differ in what they say of it: by its name they would be one.
    """

    def __init__(
        self,
        routes: Iterable[Route] = (),
        *,
        default: NextHop | None = None,
        retry: RetrySchedule | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        self._default = default or NextHop("", use_mx=True)
        self._retry = retry or RetrySchedule()
        self._pacing = pacing or Pacing()
        self._rules: dict[str, _Rules] = {}
        self._found: dict[str, list[tuple[int, Route]]] = {}
        self._of_recipients: dict[str, list[Route]] = {}
        leading: dict[str, Route] = {}  # the first to each destination
        for number, route in enumerate(routes):
            self._found.setdefault(route.key, []).append((number, route))
            if route.recipient is not None and route.leads:
                self._of_recipients.setdefault(route.key, []).append(route)
            destination = _configured(route)
            if destination is not None:
                rules = _Rules(route.next_hops, route.retry, route.pacing)
                first = self._rules.setdefault(str(destination), rules)
                said_by = leading.setdefault(str(destination), route)
                if first != rules:
                    raise ValueError(
                        f"two routes lead to {destination.name or destination.agent} with different settings: "
                        f"{said_by.name} and {route.name} differ in {', '.join(_differing(first, rules))}; "
                        "give them the same"
                    )
            elif route.has_conditions and (route.like, route.retry, route.pacing) != (None, None, None):
                raise ValueError("what is said of the hosts of a domain's MX holds for all of its mail")

    def route(self, address: Address, sender: Address | None = None, *, proven: bool = True) -> Route | None:
        """The route that is taken, or None. One that is guarded counts only where the sender is `proven`."""
        return _first(self._candidates(address.domain_key), address, sender, proven=proven)

    def route_of_recipient(
        self, address: Address, sender: Address | None = None, *, proven: bool = True
    ) -> Route | None:
        """The route that is taken among those which name their recipient: they come before mailboxes and aliases."""
        if not self._of_recipients:
            return None
        return _first(self._of_recipients.get(address.domain_key, ()), address, sender, proven=proven)

    def may_relay(self, address: Address, sender: Address | None = None) -> bool:
        """Whether strangers may send to this address through us."""
        route = self.route(address, sender, proven=False)
        return route is not None and route.relay

    def names(self, domain: str) -> bool:
        """Whether there is a route for this very domain, or for those above it; one for all others is none."""
        return any(route.pattern != "*" or route.recipient for route in self._candidates(domain_key(domain)))

    def destination(self, address: Address, sender: Address | None = None) -> Destination:
        """Where mail for an address goes that is not local."""
        return self.destination_by(self.route(address, sender), address)

    def destination_by(self, route: Route | None, address: Address) -> Destination:
        """Where a route leads to; None stands for no route at all."""
        if route is None:
            return Destination(RELAY, address.domain_key)
        if route.hold:
            return Destination(HOLD, address.domain_key)
        return _configured(route) or Destination(RELAY, address.domain_key)

    def next_hops(self, destination: Destination) -> tuple[NextHop, ...]:
        """The configured next hops that a destination names; none where it is the name of a domain."""
        rules = self._rules.get(str(destination))
        return () if rules is None else rules.hops

    def like(self, domain: str) -> NextHop:
        """How to speak to the hosts that the MX of a domain names: their `host` takes the place of this one's."""
        route = self._of_domain(domain)
        return self._default if route is None or route.like is None else route.like

    def retry(self, destination: Destination) -> RetrySchedule:
        """When what waits for a destination is tried again."""
        rules = self._said_of(destination)
        return rules.retry or self._retry

    def pacing(self, destination: Destination) -> Pacing:
        """How fast a destination gets its mail."""
        rules = self._said_of(destination)
        return rules.pacing or (self._pacing if destination.agent == RELAY else Pacing())

    def destinations_at(self, host: str) -> list[Destination]:
        """The destinations whose configured next hops have this host, at whatever port."""
        key = domain_key(host)
        return [
            Destination.parse(name)
            for name, rules in self._rules.items()
            if any(domain_key(hop.host) == key and not hop.use_mx for hop in rules.hops)
        ]

    def _said_of(self, destination: Destination) -> _Rules:
        rules = self._rules.get(str(destination))
        if rules is not None:
            return rules
        route = self._of_domain(destination.name) if destination.agent == RELAY else None
        return _Rules((), None, None) if route is None else _Rules((), route.retry, route.pacing)

    def _of_domain(self, domain: str) -> Route | None:
        """The route that speaks of the MX of a domain."""
        for route in self._candidates(domain_key(domain)):
            if not route.has_conditions:
                return None if route.hold or _configured(route) is not None else route
        return None

    def _candidates(self, key: str) -> Iterator[Route]:
        """The routes that may fit a domain, in their order."""
        if not self._found:
            return iter(())
        found = [*self._found.get(key, ()), *self._found.get("*", ())]
        dot = key.find(".")
        while dot >= 0:
            found += self._found.get(key[dot:], ())
            dot = key.find(".", dot + 1)
        found.sort(key=itemgetter(0))
        return (route for _, route in found)


def is_configured(destination: Destination) -> bool:
    """Whether a destination of the relay agent names next hops of the configuration: its mail is there by our will."""
    return "]:" in destination.name or _MX in destination.name


def account_of(destination: Destination) -> str | None:
    """The account that we have at the first next hop which a destination names, if it names one."""
    match = _ACCOUNT.match(destination.name) if destination.agent == RELAY else None
    return None if match is None else match[1]


def _first(routes: Iterable[Route], address: Address, sender: Address | None, *, proven: bool) -> Route | None:
    return next((one for one in routes if one.fits(address, sender) and (proven or not one.is_guarded)), None)


def _configured(route: Route) -> Destination | None:
    """The destination that a route gives its name to."""
    if route.agent is not None:
        return Destination(route.agent)
    if route.next_hops and not route.hold:
        return Destination(RELAY, ",".join(map(_hop_name, route.next_hops)))
    return None


def _hop_name(hop: NextHop) -> str:
    """`[host]:port`, in brackets as operators write a host whose MX is not asked, with the user where there is one.

    One whose MX is asked is `mx:host`. Two routes to one host with different credentials are two destinations: their
    mail never shares a connection.
    """
    user = "" if hop.username is None else f"{hop.username}@"
    return f"{user}{_MX}{hop.host}" if hop.use_mx else f"{user}[{hop.host}]:{hop.port}"
