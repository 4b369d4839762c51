"""The router behind a turned line: at the customer's, whoever sends is the provider that has held the mail.

A 550 from us would have it return the mail to its senders, so that is said of users that we do not have alone. A domain
that is not ours here, since nobody has added it yet or the directory of accounts is new, is answered 450: the mail
stays where it is held. Nothing is relayed onward by the route of all other domains, or without a route to its MX: that
leads back to the provider.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import IRouter, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.mail.session import Identity


@implementer(IRouter)
class TurnedRouter:
    """Takes mail for what is ours: local domains, those that are held here, and those with a route of their own."""

    def __init__(self, router: Router, routes: Routes) -> None:
        self._router = router
        self._routes = routes

    async def resolve(
        self,
        recipient: Address,
        submitter: Identity | None,
        *,
        trusted: bool,
        sender: Address | None = None,
        is_report: bool = False,
    ) -> Sequence[Target]:
        """See `IRouter`. Relaying onward is permitted to the provider, whatever `trusted` says of its address."""
        del is_report  # none comes this way
        del submitter, trusted
        if not self._is_ours(recipient, sender):
            raise Refused(replies.NOT_OUR_DOMAIN)
        return await self._router.resolve_for_provider(recipient, sender)

    def destination(self, address: Address, sender: Address | None = None) -> Destination:
        return self._router.destination(address, sender)

    def explain(self, address: Address, sender: Address | None = None) -> Sequence[str]:
        return self._router.explain(address, sender)

    def _is_ours(self, address: Address, sender: Address | None) -> bool:
        destination = self.destination(address, sender)
        if destination.agent == HOLD or destination != self._routes.destination(address, sender):
            return True  # it is held here, or local
        route = self._routes.route(address, sender, proven=False)
        return route is not None and route.is_specific
