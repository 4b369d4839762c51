"""From settings to what routing, retrying and resolving are told, passwords read from their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mailsuite import config
from mailsuite.config import Settings, split_host_port
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.routes import Route, Routes
from mailsuite.mail import password_file
from mailsuite.mail.address import literal_of
from mailsuite.mail.route import NextHop
from mailsuite.service.endpoints import place_of
from mailsuite.service.errors import StartError


def make_routes(settings: Settings) -> Routes:
    """The routes with their passwords. Raises `StartError`."""
    relay = settings.relay
    default = NextHop("", port=relay.port, use_mx=True, tls=relay.tls)
    try:
        return Routes((_route(settings, route) for route in settings.route), default=default)
    except ValueError as error:
        raise StartError(f"route: {error}") from None


def _route(settings: Settings, route: config.Route) -> Route:
    if route.next_hop is None:
        return Route(route.domain, hold=route.hold, relay=route.relay)
    host, port = split_host_port(route.next_hop, 465 if route.tls == "implicit" else 25)
    password = None if route.password is None else route.password.get_secret_value()
    if route.password_file is not None:
        password = read_password(settings, route.password_file, f"route {route.domain}")
    hop = NextHop(
        host,
        port,
        tls=route.tls,
        username=route.username,
        password=password,
        lmtp=route.lmtp,
        password_file=optional_path(settings, route.password_file),
    )
    return Route(route.domain, hop, hold=route.hold, relay=route.relay)


def read_password(settings: Settings, file: Path, owner: str) -> str:
    """The first line of a password file; `owner` names its table in the error. Raises `StartError`."""
    try:
        return password_file.read_password(settings.path(file))
    except password_file.PasswordUnreadable as error:
        raise StartError(f"{owner}: {error}") from None


def make_retry(settings: Settings) -> RetrySchedule:
    """When deliveries are tried again."""
    retry = settings.retry
    return RetrySchedule(
        first=max(retry.first, 1.0),
        maximum=max(retry.longest, retry.first, 1.0),
        jitter=retry.jitter,
        lifetime=retry.expire,
        bounce_lifetime=retry.expire_bounces,
        destination_maximum=max(min(retry.longest, 3600.0), 1.0),
    )


def name_servers(settings: Settings) -> list[tuple[str, int]] | None:
    """The DNS servers to ask; None for those of the system."""
    return None if settings.relay.resolver is None else [split_host_port(settings.relay.resolver, 53)]


def own_literals(settings: Settings) -> Iterator[str]:
    """The address literals (RFC 5321 section 4.1.3) of the interfaces that listeners are bound to."""
    for listen in settings.listen:
        address = place_of(listen.endpoint).address
        if address is not None and not address.is_unspecified:
            yield literal_of(address)


def optional_path(settings: Settings, path: Path | None) -> Path | None:
    """Where a path of the configuration lies, if there is one."""
    return None if path is None else settings.path(path)
