"""What can be seen to be wrong with the settings before anything starts."""

from __future__ import annotations

import os
import socket

from twisted.logger import Logger

from mailsuite.config import Settings
from mailsuite.net.listener import ListenError, NotHandedOver, parse_endpoint
from mailsuite.net.tls import ClientTLS, TLSSettingsError
from mailsuite.service.agents import try_agents
from mailsuite.service.endpoints import is_on_loopback, place_of
from mailsuite.service.errors import StartError
from mailsuite.service.on_demand import check_customers
from mailsuite.service.pulls import make_plans
from mailsuite.service.routes import configured_srs_secret, make_routes, optional_path
from mailsuite.service.state import load_tls
from mailsuite.service.tls_policies import make_client_tls

_log = Logger()


def preflight(settings: Settings) -> None:
    """Look at everything that can be looked at without starting. Raises `StartError` for the first fault."""
    _check_listeners(settings)
    _check_data_directory(settings)
    try:
        if settings.tls.certificate is not None:
            load_tls(settings)
        make_client_tls(settings)
    except TLSSettingsError as error:
        raise StartError(f"tls: {error}") from None
    _check_certificates(settings)
    try_agents(settings)
    make_routes(settings)
    configured_srs_secret(settings)
    check_customers(settings)
    make_plans(settings)


def serving_as_root(settings: Settings) -> None:
    """Refuse to serve strangers as root, unless the settings allow it. Raises `StartError`."""
    if settings.allow_root:
        _log.warn("serving as root, as allow_root says: whoever breaks in has the machine")
        return
    open_to_all = [listen.endpoint for listen in settings.listen if not is_on_loopback(listen.endpoint)]
    if open_to_all:
        raise StartError(
            f"listen: {open_to_all[0]!r} would serve strangers as root; start with `twistd --uid USER --gid GROUP` "
            "(ports are bound before root is dropped), let systemd open the ports, or set allow_root = true"
        )
    _log.warn("serving as root, on the loopback only")


def _check_listeners(settings: Settings) -> None:
    for listen in settings.listen:
        try:
            parse_endpoint(object(), listen.endpoint)
        except NotHandedOver:
            continue  # only the process that systemd starts has its sockets; it looks again when it listens
        except ListenError as error:
            raise StartError(f"listen: {error}") from None
    endpoints = [listen.endpoint for listen in settings.listen]
    dual_stack = _is_dual_stack()
    for number, endpoint in enumerate(endpoints):
        for before in endpoints[:number]:
            if place_of(endpoint).collides(place_of(before), dual_stack=dual_stack):
                raise StartError(f"listen: {endpoint!r} has the port of {before!r}; give one of them another")


def _check_certificates(settings: Settings) -> None:
    """That what routes show of us can be shown."""
    for number, route in enumerate(settings.route):
        if route.certificate is None:
            continue
        try:
            ClientTLS(certificate=settings.path(route.certificate), key=optional_path(settings, route.key))
        except TLSSettingsError as error:
            raise StartError(f"route[{number}].certificate: {error}") from None


def _is_dual_stack() -> bool:
    """Whether a socket of IPv6 takes IPv4 as well."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            return probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
    except OSError:  # there is no IPv6
        return False


def _check_data_directory(settings: Settings) -> None:
    """That it is a directory, or can become one, and that whoever runs this may write there."""
    directory = settings.data_directory
    there = next(path for path in (directory, *directory.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        reason = f"{there} is not a directory"
    elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        reason = "this user may not write there" if there == directory else f"this user may not make it in {there}"
    else:
        return
    raise StartError(
        f"data_directory = {str(directory)!r} cannot be used ({reason}); make it for the user who serves and check as "
        "that one, or choose another"
    )
