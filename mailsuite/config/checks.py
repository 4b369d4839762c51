"""What one key alone cannot show: faults of a whole configuration, one sentence for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from mailsuite.config.customers import customer_value
from mailsuite.config.on_demand import Customer, Pull
from mailsuite.config.relaying import MX, Agent, Forwarding, Relay, Route
from mailsuite.config.tables import TLS, Listen, Local
from mailsuite.mail.address import domain_key
from mailsuite.mail.route import HOLD, RELAY

_RESERVED = (RELAY, HOLD, "expired", "redistributed", "tls-reports")  # agents that the queue knows by itself


class Tables(Protocol):
    """The tables of a configuration that are looked at."""

    @property
    def tls(self) -> TLS: ...
    @property
    def local(self) -> Local: ...
    @property
    def relay(self) -> Relay: ...
    @property
    def forwarding(self) -> Forwarding: ...
    @property
    def listen(self) -> tuple[Listen, ...]: ...
    @property
    def agent(self) -> tuple[Agent, ...]: ...
    @property
    def route(self) -> tuple[Route, ...]: ...
    @property
    def customer(self) -> tuple[Customer, ...]: ...
    @property
    def pull(self) -> tuple[Pull, ...]: ...


def cross_check(settings: Tables) -> Iterator[str]:
    """What is wrong, one sentence for each fault."""
    if settings.tls.key is not None and settings.tls.certificate is None:
        yield "tls.key: there is no tls.certificate to go with it; name that too, or neither."
    if settings.relay.key is not None and settings.relay.certificate is None:
        yield "relay.key: there is no relay.certificate to go with it; name that too, or neither."
    if settings.relay.tls == "none" and settings.relay.dane == "on":
        yield "relay.tls: without TLS no TLSA record is heeded; set it to opportunistic, or `dane` to off."
    if settings.forwarding.srs_secret_file is not None and settings.forwarding.srs_domain is None:
        yield "forwarding.srs_secret_file: senders are rewritten only with an srs_domain; name that too, or neither."
    yield from _check_agents(settings)
    for number, route in enumerate(settings.route):
        for problem in _check_route(settings, number, route):
            yield f"route[{number}]{problem}"
    yield from _check_customers(settings)
    yield from _check_pulls(settings)
    for number, listen in enumerate(settings.listen):
        if listen.service == "submission" and listen.tls == "none":
            yield f"listen[{number}].tls: submission needs TLS; set it to starttls or implicit."


def _check_agents(settings: Tables) -> Iterator[str]:
    for number, agent in enumerate(settings.agent):
        key = f"agent[{number}].name"
        if agent.name in (*_RESERVED, settings.local.agent):
            yield f"{key}: {agent.name!r} is taken; give it another."
        elif agent.name in (other.name for other in settings.agent[:number]):
            yield f"{key}: there is another agent {agent.name!r}; give this one its own name."


def _check_route(settings: Tables, number: int, route: Route) -> Iterator[str]:
    yield from _check_way(settings, route)
    yield from _check_conditions(route)
    before = next((other for other in settings.route[:number] if _covers(other, route)), None)
    if before is not None:
        yield f": it is never reached; put it before the route for {before.recipient or before.domain!r}."
    if route.username is None and (route.password, route.password_file) != (None, None):
        yield ".username: there is a password without it; add it, or take the password out."
    yield from _check_password("", route)
    tls = route.tls or settings.relay.tls
    if route.username is not None and tls in ("none", "opportunistic"):
        yield ".tls: credentials go over TLS only; set it to required, verified, dane or implicit."
    if route.key is not None and route.certificate is None:
        yield ".key: there is no certificate to go with it; name that too, or neither."


def _check_way(settings: Tables, route: Route) -> Iterator[str]:
    ways = route.hold + bool(route.next_hop) + (route.agent is not None)
    says_more = route.relay or route.says_how or route.says_how_fast or route.says_when
    if ways > 1 or not (ways or says_more):
        yield ": say either `next_hop`, `agent` or `hold = true`."
    if route.agent is not None and route.agent not in (settings.local.agent, *(agent.name for agent in settings.agent)):
        yield f".agent: there is no [[agent]] {route.agent!r}; add it, or name another."
    if ways == 1:
        yield from _check_idle(route)
    if ways:
        return
    if route.username is not None or route.lmtp:
        yield f".{'lmtp' if route.lmtp else 'username'}: it is for a next hop of our own choice; add `next_hop`."
    if route.has_conditions and (route.says_how or route.says_how_fast or route.says_when):
        yield (
            ": what is said of the hosts of a domain's MX holds for all of its mail; add `next_hop`, or take "
            "`sender` and `recipient` out."
        )


def _check_idle(route: Route) -> Iterator[str]:
    """Keys that do nothing for what does not leave by SMTP: a sentence for each."""
    if route.next_hop:
        return
    idle = route.keys_of_how
    if route.hold:
        idle += route.keys_of_pace + route.keys_of_times
    for key in idle:
        if route.hold:
            yield f".{key}: mail that is held waits until it is asked for; take it out, or say `next_hop`."
        else:
            yield f".{key}: the agent {route.agent!r} speaks to no other server; take it out, or say `next_hop`."


def _check_conditions(route: Route) -> Iterator[str]:
    if route.relay and route.domain == "*" and (route.recipient, route.sender) == (None, None):
        yield ".relay: strangers could send anywhere through us; name the `domain` or the `recipient` that it is for."
    if route.relay and route.sender is not None:
        yield ".relay: whoever sends can forge the sender; take `relay` or `sender` out."
    if route.recipient is not None and route.domain != "*":
        yield ".domain: `recipient` has its domain already; take one of them out."
    if route.tls == "implicit" and any(hop.startswith(MX) for hop in route.next_hop or (MX,)):
        yield (
            ".tls: hosts of an MX do not speak TLS from the first octet; name the host in `next_hop`, or set it to "
            "verified."
        )


def _covers(before: Route, route: Route) -> bool:
    """Whether everything that a route is for has come to another one before."""
    if not _covers_sender(before.sender, route.sender):
        return False
    if before.recipient is not None:
        # Where the one before says only who may send, mailboxes are still before it, and not before one that leads.
        leads = before.leads or not route.leads
        return leads and route.recipient is not None and _covers_recipient(before.recipient, route.recipient)
    if route.recipient is not None and route.leads:
        return False  # it comes before the mailboxes of a local domain, whatever stands before it
    domain = route.domain if route.recipient is None else _domain_of(route.recipient)
    above = before.domain.startswith(".") and domain.endswith(before.domain)
    return above or before.domain in ("*", domain)


def _covers_sender(before: str | None, sender: str | None) -> bool:
    if before is None or sender is None or "<>" in (before, sender):
        return before in (None, sender)
    local = before.rpartition("@")[0]
    same_domain = _domain_of(before) == _domain_of(sender)
    return same_domain and local.casefold() in ("", sender.rpartition("@")[0].casefold())


def _covers_recipient(before: str, recipient: str) -> bool:
    # A `*` of the later one is taken by a `*` alone, for nothing else in a pattern means one.
    parts = map(re.escape, before.rpartition("@")[0].split("*"))
    fits = re.fullmatch(".*".join(parts), recipient.rpartition("@")[0], re.IGNORECASE | re.DOTALL)
    return fits is not None and _domain_of(before) == _domain_of(recipient)


def _domain_of(address: str) -> str:
    return domain_key(address.rpartition("@")[2])


def _check_customers(settings: Tables) -> Iterator[str]:
    names: set[str] = set()
    owners: dict[str, str] = {}
    for number, customer in enumerate(settings.customer):
        key = f"customer[{number}]"
        if customer.name.casefold() in names:
            yield f"{key}.name: there is another customer {customer.name!r}; give this one its own name."
        names.add(customer.name.casefold())
        for domain in customer.domains:
            if owners.setdefault(domain, customer.name) != customer.name:
                yield f"{key}.domains: {domain} is held for {owners[domain]!r} already; leave it to one."
        yield from _check_twice(key, customer.domains)
        yield from _check_password(key, customer)
        if customer_value(customer).is_warned_too_early:
            yield f"{key}.warning_time: it is longer than hold_time; make it shorter than that, or 0 for no warning."
        if customer.recipients == "command" and not customer.recipients_command:
            yield f'{key}.recipients_command: recipients = "command" needs it; add the command.'


def _check_pulls(settings: Tables) -> Iterator[str]:
    names: set[str] = set()
    for number, pull in enumerate(settings.pull):
        key = f"pull[{number}]"
        if pull.name in names:
            yield f"{key}.name: there is another pull {pull.name!r}; give this one its own name."
        names.add(pull.name)
        if pull.method == "atrn" and pull.username is None:
            yield f"{key}.username: ATRN needs authentication; add the customer's name there."
        if pull.method == "etrn" and not pull.domains:
            yield f"{key}.domains: ETRN asks for each by name; add them."
        yield from _check_twice(key, pull.domains)
        yield from _check_password(key, pull)
        if pull.username is not None and pull.tls == "none":
            yield f"{key}.tls: credentials go over TLS only; set it to required, verified or implicit."


def _check_password(key: str, table: Customer | Pull | Route) -> Iterator[str]:
    if table.password is not None and table.password_file is not None:
        yield f"{key}.password: it stands beside password_file; keep one of them."
    elif table.password is not None and not table.password.get_secret_value():
        yield f"{key}.password: it is empty; write the password there, or take it out."
    elif isinstance(table, Customer) or table.username is None:
        return  # a customer may have a certificate
    elif table.password is None and table.password_file is None:
        yield f"{key}.username: it needs a password; add `password` or `password_file`."


def _check_twice(key: str, domains: tuple[str, ...]) -> Iterator[str]:
    for number, domain in enumerate(domains):
        if domain in domains[:number]:
            yield f"{key}.domains: {domain} stands there twice; name it once."
