"""From settings to what routing, retrying and resolving are told, passwords read from their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from mailsuite import config
from mailsuite.config import Settings, split_host_port
from mailsuite.delivery.own_addresses import OwnAddresses
from mailsuite.delivery.pacing import Pacing
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.routes import Route, Routes
from mailsuite.delivery.srs import Rewriting
from mailsuite.mail import password_file
from mailsuite.mail.address import literal_of
from mailsuite.mail.route import NextHop
from mailsuite.net.addresses import parse_address
from mailsuite.service.endpoints import place_of
from mailsuite.service.errors import StartError

_SMTP: Final = 25
_SUBMISSIONS: Final = 465  # RFC 8314 section 3.3
_SHORTEST_SECRET: Final = 20  # characters; whoever finds it out by trial relays through us


def make_routes(settings: Settings) -> Routes:
    """The routes with their passwords. Raises `StartError`."""
    relay = settings.relay
    default = NextHop(
        "",
        port=relay.port,
        use_mx=True,
        tls=relay.tls,
        certificate=optional_path(settings, relay.certificate),
        key=optional_path(settings, relay.key),
        source_address=relay.source_address,
    )
    try:
        return Routes(
            (_route(settings, number, route, default) for number, route in enumerate(settings.route)),
            default=default,
            retry=make_retry(settings),
            pacing=_pacing(settings),
        )
    except ValueError as error:
        raise StartError(f"route: {error}") from None


def _route(settings: Settings, number: int, route: config.Route, default: NextHop) -> Route:
    hop = _hop(settings, number, route, default)
    return Route(
        route.domain,
        tuple(_named(hop, name, route) for name in route.next_hop),
        hold=route.hold,
        relay=route.relay,
        recipient=route.recipient,
        sender=route.sender,
        agent=route.agent,
        like=None if hop == default else hop,
        retry=_retry(settings, route) if route.says_when else None,
        pacing=_pacing(settings, route) if route.says_how_fast else None,
        name=f"route[{number}]",
    )


def _hop(settings: Settings, number: int, route: config.Route, default: NextHop) -> NextHop:
    """How a route wants its next hops spoken to, or the hosts of the MX of its domains."""
    password = None if route.password is None else route.password.get_secret_value()
    if route.password_file is not None:
        password = read_password(settings, route.password_file, f"route[{number}]")
    own = route.certificate is not None
    return replace(
        default,
        tls=route.tls or default.tls,
        username=route.username,
        password=password,
        lmtp=route.lmtp,
        password_file=optional_path(settings, route.password_file),
        certificate=optional_path(settings, route.certificate) if own else default.certificate,
        key=optional_path(settings, route.key) if own else default.key,
        source_address=route.source_address or default.source_address,
    )


def _named(hop: NextHop, name: str, route: config.Route) -> NextHop:
    """The next hop of a route that is written like this."""
    if name.startswith(config.MX):
        return replace(hop, host=name.removeprefix(config.MX))
    host, port = split_host_port(name, _SUBMISSIONS if route.tls == "implicit" else _SMTP)
    return replace(hop, host=host, port=port, use_mx=False)


def read_password(settings: Settings, file: Path, owner: str) -> str:
    """The first line of a password file; `owner` names its table in the error. Raises `StartError`."""
    try:
        return password_file.read_password(settings.path(file))
    except password_file.PasswordUnreadable as error:
        raise StartError(f"{owner}: {error}") from None


def make_retry(settings: Settings) -> RetrySchedule:
    """When deliveries are tried again, where no route says more."""
    return _retry(settings, None)


def shortest_waits(settings: Settings) -> tuple[float, float]:
    """The shortest wait of any destination after a first failure, and the shortest of the longest waits."""
    schedules = [make_retry(settings), *(_retry(settings, route) for route in settings.route if route.says_when)]
    first = min(min(one.first, one.shortest) for one in schedules)
    return first, max(first, min(min((one.destination_maximum, *one.waits[-1:])) for one in schedules))


def _retry(settings: Settings, route: config.Route | None) -> RetrySchedule:
    retry = settings.retry
    lifetime, delay_report, waits = retry.expire, retry.delay_report, retry.schedule
    if route is not None:
        lifetime = lifetime if route.expire is None else route.expire
        delay_report = delay_report if route.delay_report is None else route.delay_report
        waits = route.schedule or waits
    return RetrySchedule(
        first=max(retry.first, 1.0),
        maximum=max(retry.longest, retry.first, 1.0),
        jitter=retry.jitter,
        lifetime=lifetime,
        bounce_lifetime=min(retry.expire_bounces, lifetime),
        destination_maximum=max(min(retry.longest, 3600.0), 1.0),
        waits=waits,
        greylisted=retry.greylisted,
        delay_report=delay_report,
    )


def _pacing(settings: Settings, route: config.Route | None = None) -> Pacing:
    """How fast destinations get their mail: as in [relay], but for what a route says."""
    relay = settings.relay
    most = route.concurrency if route is not None and route.concurrency is not None else relay.concurrency
    rate = route.rate if route is not None and route.rate is not None else relay.rate
    return Pacing(first=min(Pacing().first, most), most=most, rate=rate)


def srs_secret_file(settings: Settings) -> Path:
    """Where the secret of SRS lies that we make ourselves."""
    return settings.data_directory / "srs.key"


def make_rewriting(settings: Settings, seconds: Callable[[], float]) -> Rewriting | None:
    """What rewrites the senders of mail that is passed on, if anything; it needs a secret to begin."""
    domain = settings.forwarding.srs_domain
    return None if domain is None else Rewriting(domain, seconds)


def configured_srs_secret(settings: Settings) -> str | None:
    """The secret of SRS that the configuration names, if it does. Raises `StartError`."""
    forwarding = settings.forwarding
    if forwarding.srs_domain is None or forwarding.srs_secret_file is None:
        return None
    return checked_srs_secret(
        read_password(settings, forwarding.srs_secret_file, "forwarding.srs_secret_file"),
        "forwarding.srs_secret_file",
    )


def checked_srs_secret(secret: str, where: str) -> str:
    """A secret of SRS, if it is one that nobody finds out. Raises `StartError`."""
    if len(secret) < _SHORTEST_SECRET:
        raise StartError(
            f"{where}: the secret has {len(secret)} characters, and could be found out by trial; write at least "
            f"{_SHORTEST_SECRET} by chance, as `openssl rand -hex 32` makes them"
        )
    return secret


def use_known_srs_secret(settings: Settings, rewriting: Rewriting | None) -> None:
    """Rewrite as the server does, where its secret can be read; for commands, which make none."""
    if rewriting is None:
        return
    try:
        secret = configured_srs_secret(settings)
        if secret is None:
            secret = checked_srs_secret(srs_secret_file(settings).read_bytes().hex(), "srs.key")
    except (OSError, StartError):
        return
    rewriting.use(secret)


def own_names(settings: Settings) -> list[str]:
    """The names and address literals that we ourselves go by."""
    return [settings.hostname, *own_literals(settings)]


def name_servers(settings: Settings) -> list[tuple[str, int]] | None:
    """The DNS servers to ask; None for those of the system."""
    return None if settings.relay.resolver is None else [split_host_port(settings.relay.resolver, 53)]


def own_literals(settings: Settings) -> Iterator[str]:
    """The address literals (RFC 5321 section 4.1.3) of the interfaces that listeners are bound to."""
    for listen in settings.listen:
        address = place_of(listen.endpoint).address
        if address is not None and not address.is_unspecified:
            yield literal_of(address)


def own_addresses(settings: Settings) -> OwnAddresses:
    """Where this server answers, by its listeners and by `own_addresses` of [relay]."""
    told = [address for address in map(parse_address, settings.relay.own_addresses) if address is not None]
    ports, addresses, all_interfaces = set[int](), set(told), set[int]()
    if told:
        ports.add(_SMTP)  # what a gateway passes on to us comes in there
    for listen in settings.listen:
        place = place_of(listen.endpoint)
        if place.kind == "unix":
            continue
        port = int(place.name) if place.kind in ("tcp", "tcp6", "ssl") and place.name.isdigit() else 0
        ports.add(port or _SMTP)
        address = None if place.address is None else parse_address(str(place.address))
        if address is None or address.is_unspecified:
            all_interfaces.add(port or _SMTP)
        else:
            addresses.add(address)
    return OwnAddresses(frozenset(ports), frozenset(addresses), frozenset(all_interfaces))


def optional_path(settings: Settings, path: Path | None) -> Path | None:
    """Where a path of the configuration lies, if there is one."""
    return None if path is None else settings.path(path)
