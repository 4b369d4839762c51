"""On-demand mail relay at the customer's: the pulls from the settings, and what holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import SystemRandom
from typing import Final

from mailsuite import config
from mailsuite.config import Settings, split_host_port
from mailsuite.delivery.provider_line import LineSettings, ProviderLine
from mailsuite.delivery.puller import Puller, PullerSettings
from mailsuite.delivery.pulls import PullPlan
from mailsuite.delivery.push import Pusher
from mailsuite.delivery.routes import Routes
from mailsuite.delivery.turned import TurnedRouter
from mailsuite.mail.timetable import Timetable
from mailsuite.service.errors import StartError
from mailsuite.service.parts import Parts
from mailsuite.service.routes import make_routes, optional_path, read_password
from mailsuite.session.handover import Session
from mailsuite.session.inbound import Door
from mailsuite.wire.core import Core
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.nodes import parse_node
from mailsuite.wire.smtp.offer import Offer

_ATRN_PORT: Final = 366  # RFC 2645 section 4
_ETRN_PORT: Final = 25
# The provider has taken in much that we refuse, for mailboxes that nobody has: that is no attack on us, and a line that
# were ended for it would be ended again and again.
_MAX_ERRORS: Final = 1_000_000


def make_plans(settings: Settings) -> list[PullPlan]:
    """The pulls of the configuration, with their passwords. Raises `StartError`."""
    return [_plan(settings, pull) for pull in settings.pull]


def make_puller(parts: Parts, *, scheduled: bool = True) -> Puller:
    """What pulls. Where it is not `scheduled`, only when it is asked to. Raises `StartError`."""
    settings = parts.settings
    routes = make_routes(settings)
    line = ProviderLine(
        parts.dialer,
        parts.client_tls,
        parts.in_thread,
        LineSettings(settings.hostname, settings.relay.source_address),
        turn=_turn(parts, routes),
        addresses=parts.resolver.addresses,
        clock=parts.reactor,
    )
    return Puller(
        make_plans(settings),
        line,
        Pusher(routes, parts.scheduler, parts.reactor, wake_hosts=parts.wake_hosts),
        parts.spool,
        parts.reactor,
        chance=SystemRandom().random,
        settings=PullerSettings(grace=settings.stop_time, scheduled=scheduled),
    )


def _plan(settings: Settings, pull: config.Pull) -> PullPlan:
    etrn = pull.method == "etrn"
    for domain in pull.domains:
        if parse_node(domain) is None:
            raise StartError(f"pull {pull.name}: {pull.method.upper()} cannot ask for {domain!r}; name a whole domain")
    host, port = split_host_port(pull.provider, _ETRN_PORT if etrn else _ATRN_PORT)
    password = None if pull.password is None else pull.password.get_secret_value()
    if pull.password_file is not None:
        password = read_password(settings, pull.password_file, f"pull {pull.name}")
    return PullPlan(
        pull.name,
        host,
        port,
        etrn=etrn,
        domains=pull.domains,
        tls=pull.tls,
        username=pull.username,
        password=password,
        password_file=optional_path(settings, pull.password_file),
        interval=pull.interval,
        jitter=pull.jitter,
        times=tuple(map(Timetable.parse, pull.times)),
        at_start=pull.at_start,
        retry_first=pull.retry_first,
        retry_longest=pull.retry_longest,
        push=pull.push,
        push_host=pull.push_host,
    )


def _turn(parts: Parts, routes: Routes) -> Callable[[PullPlan], tuple[Core, Session]]:
    """What takes a provider's mail in, made anew for each turn."""
    settings = parts.settings
    offer = Offer(
        settings.hostname,
        max_size=settings.limits.message_size or None,
        checkpoint=settings.on_demand.checkpoint,
        dsn=True,
        requiretls=True,
        line_ends=LineEndRule(settings.receive.line_ends),
        max_errors=_MAX_ERRORS,
    )
    door = Door(
        settings.hostname,
        offer,
        offer,
        TurnedRouter(parts.router, routes),
        parts.spool,
        parts.seconds,
        max_recipients=settings.limits.recipients,
        log=parts.log_lines,
        checkpoints=parts.checkpoints,
        quota=parts.quota,
    )
    return partial(_open, door)


def _open(door: Door, plan: PullPlan) -> tuple[Core, Session]:
    turned = door.for_turn(frozenset(plan.domains), plan.host)
    # A bare ATRN asks for all that is ours there: then the router alone knows what is ours here.
    return (turned if plan.domains else replace(turned, domains=None)).open()
