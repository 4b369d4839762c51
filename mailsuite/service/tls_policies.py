"""From settings to what TLS other servers must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mailsuite.config import Settings
from mailsuite.delivery.tls_policies import Dane, MtaSts, StsCache, TLSPolicies
from mailsuite.mail.tls_policy import TLSResult
from mailsuite.net.dnssec import SystemServers, ValidatingResolver, Validation
from mailsuite.net.https import Addresses, HttpsClient
from mailsuite.net.tls import ClientTLS
from mailsuite.service.routes import name_servers, optional_path

_CACHE: Final = "mta-sts.db"


def make_client_tls(settings: Settings, seconds: Callable[[], float] | None = None) -> ClientTLS:
    """What we show and demand where we are the client. Raises `TLSSettingsError`."""
    relay = settings.relay
    return ClientTLS(
        optional_path(settings, relay.ca_file),
        certificate=optional_path(settings, relay.certificate),
        key=optional_path(settings, relay.key),
        seconds=seconds,
    )


def make_validating_resolver(settings: Settings, reactor: Any) -> ValidatingResolver:
    """Who is asked for what DNSSEC vouches for: the `resolver` of [relay], else the system's."""
    servers = name_servers(settings)
    return ValidatingResolver(reactor, SystemServers(reactor) if servers is None else lambda: servers)


def make_tls_policies(
    settings: Settings,
    reactor: Any,
    resolver: ValidatingResolver,
    addresses: Addresses,
    in_thread: Callable[..., Any],
    sink: Callable[[TLSResult], object],
    chance: Callable[[], float],
) -> TLSPolicies:
    """What the relay agent goes by. `addresses` are those of web servers; `sink` gets what reports tell of."""
    relay = settings.relay
    dane = None
    if relay.dane != "off":
        dane = Dane(resolver, Validation(resolver, reactor).holds if relay.dane == "auto" else _always)
    sts = None
    if relay.mta_sts:
        # Not our own certificate: web servers are not to be told who we are.
        web = HttpsClient(reactor, ClientTLS(optional_path(settings, relay.ca_file)), addresses)
        sts = MtaSts(resolver, web, StsCache(settings.data_directory / _CACHE, in_thread), reactor, note=sink)
    return TLSPolicies(dane, sts, reactor, sink=sink, chance=chance)


async def _always() -> bool:
    return True
