"""The DNS and the servers, as a walk asks them."""

from __future__ import annotations

from collections.abc import Sequence
from random import SystemRandom
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from mailsuite.admin.doctor.visit import Place, Seen, VisitSession
from mailsuite.admin.shown import ShownCertificates
from mailsuite.config import Settings
from mailsuite.delivery.provider_line import LineSettings, ProviderLine
from mailsuite.delivery.pulls import PullPlan
from mailsuite.net.dialer import ConnectFailed, Dialer, SocketPath
from mailsuite.net.resolver import MX, DnsFailure, Resolver, system_resolver
from mailsuite.net.timeouts import Timeouts
from mailsuite.net.tls import ClientTLS, TLSFailed
from mailsuite.service.routes import name_servers, optional_path
from mailsuite.session.pulling import PullEnd
from mailsuite.wire.smtp.client import SmtpClientCore

# Somebody sits before it and waits.
_TIMEOUTS: Final = Timeouts(greeting=30.0, command=30.0, response=30.0, connect=10.0, handshake=20.0, closing=5.0)
_DNS_LIMIT: Final = 15.0


class AsksAround(Protocol):
    """What a walk asks of the world."""

    async def addresses(self, host: str) -> Sequence[str]:
        """See `mailsuite.net.resolver.Resolver.addresses`."""

    async def mx(self, domain: str) -> Sequence[MX]:
        """See `mailsuite.net.resolver.Resolver.mx`."""

    async def visit(self, place: Place) -> Seen:
        """Visit a server. What goes wrong is in what was seen."""

    async def dry_run(self, plan: PullPlan) -> PullEnd:
        """See `mailsuite.delivery.provider_line.ProviderLine.pull`."""


class Network:
    """Asks for real. Raises `TLSSettingsError` where `relay.ca_file` cannot be used."""

    def __init__(self, reactor: Any, settings: Settings) -> None:  # noqa: ANN401 - the reactor has many interfaces at once
        self._reactor = reactor
        self._settings = settings
        names = system_resolver(reactor, name_servers(settings))
        self._resolver = Resolver(names, reactor, SystemRandom(), limit=_DNS_LIMIT)
        self._dialer = Dialer(reactor, timeouts=_TIMEOUTS, resolver=self._resolver)
        self._tls = ClientTLS(optional_path(settings, settings.relay.ca_file))
        self._line = ProviderLine(
            self._dialer,
            self._tls,
            self._in_thread,
            LineSettings(settings.hostname, settings.relay.source_address),
            addresses=self._resolver.addresses,
            clock=reactor,
        )

    async def addresses(self, host: str) -> Sequence[str]:
        return await self._resolver.addresses(host)

    async def mx(self, domain: str) -> Sequence[MX]:
        return await self._resolver.mx(domain)

    async def dry_run(self, plan: PullPlan) -> PullEnd:
        return await self._line.pull(plan, dry_run=True)

    async def visit(self, place: Place) -> Seen:
        watched = None if place.tls == "none" else ShownCertificates(self._tls.for_host(place.host, place.tls))
        session = VisitSession(
            place, self._settings.hostname, tls=None if place.implicit else watched, in_thread=self._in_thread
        )
        seen = session.seen
        here = place.address is not None and place.address.startswith("/")
        try:
            connection = await self._dialer.dial(
                SocketPath(place.address) if here and place.address else place.address or place.host,
                place.port,
                SmtpClientCore(),
                session,
                tls=watched if place.implicit else None,
                source_address=None if here else self._settings.relay.source_address,
            )
        except (ConnectFailed, DnsFailure) as failure:
            seen.trouble = str(failure)
            return seen
        ending = await connection.finished()
        if isinstance(ending, TLSFailed):
            seen.trouble = str(ending)
        elif ending is not None and seen.trouble is None and session.seen.plain is None:
            seen.trouble = str(ending) or "the connection was lost"
        if watched is not None:
            seen.certificate = watched.certificate()
        return seen

    def _in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:  # noqa: ANN401 - any function
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)
