"""The service: builds every part from the settings and joins them. The only module that constructs across rooms.

`makeService(settings)` returns an `IService` for `twistd`, for an `Application` of your own, or to be started by hand.
Ports are bound in `privilegedStartService`, before twistd drops root.

What a user can do wrong is a `StartError`: one sentence that names the file or the key and the cure.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsuite import config, plugins
from mailsuite.accounts.names import login_key, written
from mailsuite.accounts.portal import make_authenticator
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.accounts.snapshot import Directory
from mailsuite.config import Listen, Settings, split_host_port
from mailsuite.delivery.agents.relay import RelayAgent, RelayAgentSettings
from mailsuite.delivery.next_hops import NextHops
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Route, Routes
from mailsuite.delivery.scheduler import Scheduler, SchedulerSettings
from mailsuite.interfaces import DirectoryUnavailable, IAgentParts, IDeliveryAgent, IDeliveryAgentMaker, SpoolError
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.route import NextHop
from mailsuite.net.dialer import Dialer
from mailsuite.net.factory import ConnectionFactory
from mailsuite.net.limits import ConnectionLimits
from mailsuite.net.listener import Listener, ListenError, NotHandedOver, parse_endpoint
from mailsuite.net.resolver import Resolver, system_resolver
from mailsuite.net.selfsigned import make_self_signed
from mailsuite.net.timeouts import Timeouts
from mailsuite.net.tls import ClientTLS, ServerTLS, TLSSettingsError
from mailsuite.session.inbound import Door
from mailsuite.session.loglines import LogLines
from mailsuite.spool.opening import was_used
from mailsuite.spool.sqlite import SqliteSpool
from mailsuite.wire import sasl
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.offer import Offer

_log = Logger()

_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
# Without TLS nothing is offered that shows the password (RFC 4954 section 4).
_IN_PLAINTEXT = (b"SCRAM-SHA-256", b"CRAM-MD5")
_UNDER_TLS = (*_IN_PLAINTEXT, b"PLAIN", b"LOGIN")


class StartError(Exception):
    """The service cannot be built or started; one sentence names what is wrong and the cure."""


def makeService(
    settings: Settings,
    *,
    reactor: Any = None,
    owner: tuple[int, int] | None = None,
    on_failure: Callable[[Exception], object] | None = None,
) -> IService:
    """The mail server as a service. Raises `StartError` for what is wrong with the settings.

    `reactor` is the global one by default. `owner` are the user and group that root will be dropped for: they get what
    is written before that. `on_failure` is called with the error when the service cannot start after all (a port in
    use, a broken spool); by default it is logged.
    """
    if reactor is None:
        from twisted.internet import reactor as global_reactor

        reactor = global_reactor
    preflight(settings)
    return MailService(settings, reactor, owner, on_failure or _log_failure)


def _log_failure(error: Exception) -> None:
    _log.critical("mailsuite cannot start: {error}", error=error)


def serving_as_root(settings: Settings) -> None:
    """Refuse to serve strangers as root, unless the settings allow it. Raises `StartError`."""
    if settings.allow_root:
        _log.warn("serving as root, as allow_root says: whoever breaks in has the machine")
        return
    open_to_all = [listen.endpoint for listen in settings.listen if not _on_loopback(listen.endpoint)]
    if open_to_all:
        raise StartError(
            f"listen: {open_to_all[0]!r} would serve strangers as root; start with `twistd --uid USER --gid GROUP` "
            "(ports are bound before root is dropped), let systemd open the ports, or set allow_root = true"
        )
    _log.warn("serving as root, on the loopback only")


def preflight(settings: Settings) -> None:
    """Look at everything that can be looked at without starting. Raises `StartError` for the first fault."""
    for listen in settings.listen:
        try:
            parse_endpoint(object(), listen.endpoint)
        except NotHandedOver:
            continue  # only the process that systemd starts has its sockets; it looks again when it listens
        except ListenError as error:
            raise StartError(f"listen: {error}") from None
    try:
        if settings.tls.certificate is not None:
            _load_tls(settings)
        ClientTLS(_path(settings, settings.relay.ca_file))
    except TLSSettingsError as error:
        raise StartError(f"tls: {error}") from None
    _local_agent(settings, _AgentParts(settings, Clock(), _in_no_thread))  # made to see that its options are right
    _routes(settings)


def _in_no_thread(_function: Callable[..., Any], *_args: Any) -> Deferred[Any]:
    raise StartError("a delivery agent cannot work before the service runs; make it wait for its first run")


@dataclass(frozen=True, slots=True)
class State:
    """What lies in the data directory from the start: made where it is missing, else read."""

    tls: ServerTLS
    decoy_key: bytes  # of the salts of accounts that do not exist; with another one they would change at a restart

    @classmethod
    def prepare(cls, settings: Settings, seconds: Callable[[], float], owner: tuple[int, int] | None) -> State:
        """Make or read it; what root makes is given to `owner`. Raises `StartError`, `TLSSettingsError`."""
        directory = settings.data_directory
        try:
            _look_for_accounts(settings)
            before = set(directory.iterdir()) if directory.exists() else None
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = cls(_load_tls(settings, seconds), _decoy_key(directory))
            if owner is not None and os.geteuid() == 0:
                made = [directory] if before is None else []
                made += [path for path in directory.iterdir() if path not in (before or ())]
                for path in made:
                    os.chown(path, *owner)
        except OSError as error:
            raise StartError(
                f"data_directory = {str(directory)!r} cannot be used ({error.strerror}); make it for the user who "
                "serves, or choose another one"
            ) from None
        return state


def _look_for_accounts(settings: Settings) -> None:
    """Refuse to begin without accounts over a queue: mail for our own domains would leave for their MX."""
    path = settings.path(settings.accounts.file)
    if was_used(str(settings.path(settings.spool.directory))) and not path.exists():
        raise StartError(
            f"accounts.file: {path} is missing, but a server with these settings has run before, and without its "
            "domains their mail would be sent away; restore it, or begin anew with `mailsuite domain add example.org`"
        )


def _decoy_key(directory: Path) -> bytes:
    path = directory / "decoy.key"
    if path.exists():
        return path.read_bytes()
    key = secrets.token_bytes(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key


# ------------------------------------------------------------------------------------------- the service


class MailService(Service):
    """The whole server: starts directory, spool, scheduler, listeners in this order, and stops them the other way.

    Where a port cannot be opened nothing else is started.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        owner: tuple[int, int] | None,
        on_failure: Callable[[Exception], object],
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._on_failure = on_failure
        self._started: Deferred[None] | None = None
        self._is_bound: bool | None = None  # not tried yet
        self._parts = parts = Parts(settings, reactor)
        self.spool = parts.spool
        self.directory = parts.directory
        self.scheduler = parts.scheduler
        self.listeners: list[Listener] = []

    def privilegedStartService(self) -> None:
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._is_bound = False
        try:
            state = State.prepare(self._settings, self._parts.seconds, self._owner)
            self.listeners = [self._parts.listener(listen, state) for listen in self._settings.listen]
            for listener in self.listeners:
                listener.privilegedStartService()
            self._is_bound = True
        except (ListenError, TLSSettingsError, StartError) as error:
            self._on_failure(error)

    def startService(self) -> None:
        if self._is_bound is None:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        if self._is_bound:
            self._started = Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    async def _start(self) -> None:
        try:
            self.directory.startService()
            await self.directory.refresh()  # first: a spool that was used without a directory is one whose file is lost
            await self.spool.start()
        except (SpoolError, DirectoryUnavailable) as error:
            self._on_failure(error)
            return
        self.scheduler.startService()
        for listener in self.listeners:
            listener.startService()

    def _failed(self, failure: Failure) -> None:
        _log.failure("the start has met a defect", failure)
        self._on_failure(failure.value)  # type: ignore[arg-type]

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._is_bound = None
        if self._started is not None:
            await self._started
        stopping = [listener.stopService() for listener in self.listeners]
        for stopped in stopping:
            await stopped
        if self.scheduler.running:
            await self.scheduler.stopService()
        if self.directory.running:
            await self.directory.stopService()
        await self.spool.stop()


class Parts:
    """Everything that is built once, and from it each listener."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self._log_lines = LogLines(reactor)
        self._timeouts = Timeouts(command=settings.limits.command_time, data_block=settings.limits.content_time)
        chance = SystemRandom()
        reader = DirectoryReader(settings.path(settings.accounts.file))
        self.directory = Directory(
            reader,
            reactor,
            self.in_thread,
            delimiter=settings.accounts.subaddress_delimiter,
            postmaster=None if settings.accounts.postmaster is None else parse_mailbox(settings.accounts.postmaster),
        )
        self._authenticator = make_authenticator(
            reader, reactor, self.in_thread, default_domain=settings.accounts.default_domain
        )
        self.spool = SqliteSpool(
            settings.path(settings.spool.directory), reactor, spill=settings.spool.large, reserve=settings.spool.reserve
        )
        routes = _routes(settings)
        self._router = Router(self.directory, routes, local_agent=settings.local.agent)
        resolver = Resolver(system_resolver(reactor, _name_servers(settings)), reactor, chance)
        self.scheduler = Scheduler(
            self.spool,
            [
                _local_agent(settings, _AgentParts(settings, reactor, self.in_thread)),
                self._relay_agent(routes, resolver),
            ],
            self._router,
            reactor,
            hostname=settings.hostname,
            chance=chance.random,
            settings=SchedulerSettings(retry=_retry(settings), grace=settings.stop_time),
        )
        self._limits = ConnectionLimits(settings.limits.connections, settings.limits.connections_per_address)

    def _relay_agent(self, routes: Routes, resolver: Resolver) -> RelayAgent:
        settings = self._settings
        return RelayAgent(
            NextHops(routes, resolver, [settings.hostname]),
            Dialer(self._reactor, timeouts=self._timeouts, resolver=resolver),
            ClientTLS(_path(settings, settings.relay.ca_file)),
            self.in_thread,
            RelayAgentSettings(
                settings.hostname,
                concurrency=settings.relay.concurrency,
                source_address=settings.relay.source_address,
            ),
            addresses=resolver.addresses,
        )

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run blocking work in the reactor's thread pool."""
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args)

    def listener(self, listen: Listen, state: State) -> Listener:
        """One listener, with its own door. Raises `ListenError`."""
        implicit = listen.tls == "implicit"
        factory = ConnectionFactory(
            partial(self._door(listen, state).open, secure=implicit),
            self._reactor,
            timeouts=self._timeouts,
            limits=self._limits,
            tls=state.tls if implicit else None,
        )
        return Listener(self._reactor, listen.endpoint, factory, grace=self._settings.stop_time)

    def _sasl(self, decoy_key: bytes) -> sasl.ServerParameters:
        default_domain = self._settings.accounts.default_domain

        def canonical(name: str) -> str:
            key = login_key(name, default_domain)
            return name.casefold() if key is None else written(key)

        return sasl.ServerParameters(
            hostname=self._settings.hostname.encode("ascii", "replace"),
            clock=self._reactor.seconds,
            decoy_key=decoy_key,
            canonical=canonical,
        )

    def _door(self, listen: Listen, state: State) -> Door:
        settings = self._settings
        submission = listen.service == "submission"
        has_auth = submission if listen.auth is None else listen.auth
        plain = Offer(
            settings.hostname,
            lmtp=listen.service == "lmtp",
            max_size=settings.limits.message_size or None,
            starttls=listen.tls == "starttls",
            mechanisms=_IN_PLAINTEXT if has_auth and not submission else (),
            require_tls=submission,
            require_auth=submission,
            line_ends=LineEndRule(settings.receive.line_ends),
            max_errors=settings.limits.errors,
        )
        external = (b"EXTERNAL",) if settings.tls.client_ca is not None else ()
        secure = replace(
            plain, starttls=False, require_tls=False, mechanisms=(*_UNDER_TLS, *external) if has_auth else ()
        )
        return Door(
            settings.hostname,
            plain,
            secure,
            self._router,
            self.spool,
            self.seconds,
            authenticator=self._authenticator if has_auth else None,
            sasl=self._sasl(state.decoy_key),
            tls=(lambda: state.tls) if plain.starttls else None,
            submission=submission,
            trusted=(*listen.trusted, *(_LOOPBACK if settings.receive.trust_loopback else ())),
            max_recipients=settings.limits.recipients,
            log=self._log_lines,
        )


@implementer(IAgentParts)
class _AgentParts:
    """What delivery agents are lent."""

    def __init__(self, settings: Settings, reactor: Any, in_thread: Callable[..., Deferred[Any]]) -> None:
        self.reactor = reactor
        self.hostname = settings.hostname
        self.data_directory = settings.data_directory
        self.in_thread = in_thread


# ------------------------------------------------------------------------------ from settings to parts


def _routes(settings: Settings) -> Routes:
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
    hop = NextHop(
        host, port, tls=route.tls, username=route.username, password=_password(settings, route), lmtp=route.lmtp
    )
    return Route(route.domain, hop, hold=route.hold, relay=route.relay)


def _password(settings: Settings, route: config.Route) -> str | None:
    if route.password_file is None:
        return None if route.password is None else route.password.get_secret_value()
    path = settings.path(route.password_file)
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(
            f"route {route.domain}: password_file {path} cannot be read ({error}); write the password into "
            "its first line"
        ) from None


def _retry(settings: Settings) -> RetrySchedule:
    retry = settings.retry
    return RetrySchedule(
        first=max(retry.first, 1.0),
        maximum=max(retry.longest, retry.first, 1.0),
        jitter=retry.jitter,
        lifetime=retry.expire,
        bounce_lifetime=retry.expire_bounces,
        destination_maximum=max(min(retry.longest, 3600.0), 1.0),
    )


def _name_servers(settings: Settings) -> list[tuple[str, int]] | None:
    return None if settings.relay.resolver is None else [split_host_port(settings.relay.resolver, 53)]


def _path(settings: Settings, path: Path | None) -> Path | None:
    return None if path is None else settings.path(path)


def _load_tls(settings: Settings, seconds: Callable[[], float] | None = None) -> ServerTLS:
    """The certificate of the settings, or a self-signed one. Raises `TLSSettingsError`."""
    tls = settings.tls
    if tls.certificate is None:
        certificate, key = make_self_signed(settings.data_directory, settings.hostname)
    else:
        certificate = settings.path(tls.certificate)
        key = settings.path(tls.key or tls.certificate)
    return ServerTLS(certificate, key, client_ca=_path(settings, tls.client_ca), seconds=seconds)


def _agent_maker(name: str) -> IDeliveryAgentMaker:
    makers = {maker.name: maker for maker in getPlugins(IDeliveryAgentMaker, plugins)}
    if name not in makers:
        known = ", ".join(sorted(makers)) or "none"
        raise StartError(f"local.agent = {name!r}: there is no such delivery agent; those installed are: {known}")
    return makers[name]


def _local_agent(settings: Settings, parts: IAgentParts) -> IDeliveryAgent:
    maker = _agent_maker(settings.local.agent)
    try:
        agent: IDeliveryAgent = maker.make(settings.local.options, parts)
    except ValueError as error:
        raise StartError(f"local.options: {error}") from None
    return agent


_INTERFACE = re.compile(r"(?:^|:)interface=((?:[^:\\]|\\.)*)")


def _on_loopback(endpoint: str) -> bool:
    """Whether an endpoint can be reached from this machine only."""
    if endpoint.startswith("unix:"):
        return True
    interface = _INTERFACE.search(endpoint)
    try:
        return interface is not None and ip_address(interface[1].replace("\\:", ":")).is_loopback
    except ValueError:
        return False
