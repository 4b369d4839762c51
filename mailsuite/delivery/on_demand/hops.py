"""Where mail that is held goes when ETRN asks for it: the customer's own server, or the MX of the domain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from zope.interface import implementer

from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import ICustomers, INextHops
from mailsuite.mail.customer import Customer
from mailsuite.mail.route import HOLD, RELAY, Destination, NextHop

_HOST_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+))(?::(\d{1,5}))?")


@implementer(INextHops)
class HeldHops:
    """Finds hosts for `hold` destinations; all others are left to `relayed`, which is asked for MX as well.

    A customer's own server is spoken to as `routes` say of the hosts that the MX of its domain names.
    """

    def __init__(self, customers: ICustomers, relayed: INextHops, routes: Routes) -> None:
        self._customers = customers
        self._relayed = relayed
        self._routes = routes

    async def find(self, destination: Destination) -> Sequence[Any]:
        if destination.agent != HOLD:
            return await self._relayed.find(destination)
        customer = self._customers.customer_of(destination.name)
        hop = None if customer is None else customers_hop(customer, self._routes.like(destination.name))
        if hop is not None:
            return (hop,)
        return await self._relayed.find(Destination(RELAY, destination.name))


def customers_hop(customer: Customer, like: NextHop) -> NextHop | None:
    """The customer's own server (`host`, `host:port`, `[2001:db8::1]:port`), if it has one, spoken to `like` that."""
    if customer.next_hop is None:
        return None
    match = _HOST_PORT.fullmatch(customer.next_hop)
    if match is None:
        return None
    return replace(like, host=match[1] or match[2], port=int(match[3] or 25), use_mx=False)
