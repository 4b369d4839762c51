"""What looks wrong with routes and pulls, though nothing forbids it: told at the start, and by `mailsuite check`.

A domain that nobody has added here is the usual one: what a provider holds for it is refused when it is pulled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from mailsuite.accounts.reader import DirectoryReader
from mailsuite.config import Settings
from mailsuite.delivery.pulls import PullPlan
from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.mail.address import domain_key
from mailsuite.service.pulls import make_plans
from mailsuite.service.routes import make_routes


def local_domains(settings: Settings) -> frozenset[str] | None:
    """The local domains (domain keys), read from the file of accounts; None where that cannot be read. Blocks."""
    path = settings.path(settings.accounts.file)
    try:
        if not path.exists():
            return frozenset()  # the server will make one, without a domain in it
        with closing(DirectoryReader(path)) as reader:
            snapshot = reader.snapshot()
    except (OSError, DirectoryUnavailable):
        return None
    return None if snapshot is None else snapshot.domains


def doubts(
    settings: Settings, local: frozenset[str] | None, *, is_held: Callable[[str], bool] | None = None
) -> Iterator[str]:
    """A sentence for each, with its cure. `local` are the local domains, None where nobody knows them.

    `is_held` says of a domain key whether its mail is held here in turn; by default that is what the configuration has.
    Raises `StartError`.
    """
    held = frozenset(domain_key(domain) for customer in settings.customer for domain in customer.domains)
    routes = make_routes(settings)
    if local is not None:
        yield from _of_routes(settings, local)
    for plan in make_plans(settings):
        if local is not None:
            yield from _of_domains(plan, routes, local, is_held or held.__contains__)
            has_any = (
                local or settings.customer or any(route.domain != "*" or route.recipient for route in settings.route)
            )
            if not plan.domains and not has_any:
                yield (
                    f"pull {plan.name}: no domain is local or has a [[route]] of its own here, so nothing that comes "
                    "is taken; add yours by `mailsuite domain add DOMAIN`"
                )
        if plan.push != "none" and not routes.destinations_at(plan.smarthost):
            yield (
                f"pull {plan.name}: it pushes, and no [[route]] leads to {plan.smarthost}, so nothing is ever sent; "
                f'add one with domain = "*" and next_hop = "{plan.smarthost}:587", or name the host of yours in '
                "push_host, or take `push` out"
            )


def _of_routes(settings: Settings, local: frozenset[str]) -> Iterator[str]:
    domain = settings.forwarding.srs_domain
    if domain is not None and domain not in local:
        yield (
            f"forwarding: {domain} is not local, so its postmaster gets no mail; add it by "
            f"`mailsuite domain add {domain}`, and see that its MX leads here"
        )
    for number, route in enumerate(settings.route):
        if route.domain in local:
            yield (
                f"route[{number}]: {route.domain} is local, so its mail does not go by a route; name those who are "
                f'meant in `recipient`, as in "*@{route.domain}", or let it go by `mailsuite domain del {route.domain}`'
            )


def _of_domains(plan: PullPlan, routes: Routes, local: frozenset[str], is_held: Callable[[str], bool]) -> Iterator[str]:
    for domain in plan.domains:
        key = domain_key(domain)
        if key not in local and not routes.names(domain) and not is_held(key):
            yield (
                f"pull {plan.name}: {domain} is asked for, and neither local nor routed here, so its mail is not taken"
                f"; add it by `mailsuite domain add {domain}`, or give it a [[route]]"
            )
