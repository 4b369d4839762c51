"""The whole server as one service: what starts and stops, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsuite.admin.control import Control
from mailsuite.config import Settings, SettingsError
from mailsuite.interfaces import DirectoryUnavailable, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.route import HOLD
from mailsuite.net.listener import ListenError
from mailsuite.net.tls import TLSSettingsError
from mailsuite.service.doubts import doubts
from mailsuite.service.errors import StartError
from mailsuite.service.listeners import make_listener
from mailsuite.service.parts import Parts
from mailsuite.service.preflight import preflight
from mailsuite.service.pulls import make_puller
from mailsuite.service.state import State
from mailsuite.service.steps import Step, service, snapshot, together

_log = Logger()


def makeService(
    settings: Settings,
    *,
    reactor: Any = None,
    owner: tuple[int, int] | None = None,
    on_failure: Callable[[Exception], object] | None = None,
) -> MailService:
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


async def _nothing() -> None:
    """Takes a step back that has left nothing."""


def _log_failure(error: Exception) -> None:
    _log.critical("mailsuite cannot start: {error}", error=error)


class MailService(Service):
    """The whole server: takes its steps in order when it starts, and takes them back the other way when it stops.

    Where a port cannot be opened nothing else is started. `spool`, `directory`, `scheduler` and `puller` are for
    programs that it is a part of; where nothing is `scheduled`, mail is pulled only when they ask for it.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        owner: tuple[int, int] | None,
        on_failure: Callable[[Exception], object],
        *,
        scheduled: bool = True,
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._on_failure = on_failure
        self._started: Deferred[None] | None = None
        self._is_bound: bool | None = None  # not tried yet
        self._state: State | None = None
        self._parts = parts = Parts(settings, reactor, on_failure)
        self.spool = parts.spool
        self.directory = parts.directory
        self.scheduler = parts.scheduler
        self.puller = make_puller(parts, scheduled=scheduled)
        self._control = Control(settings.data_directory, self.puller, parts.managing, reactor)
        self._listening = together()  # the step of the listeners, once they are made
        self._begun: list[Step] = []

    def _steps(self) -> list[Step]:
        """What starts, in this order. Whatever else is to start and stop with the server is a line here."""
        parts = self._parts
        return [
            # First: a spool that was used without a directory is one whose file is lost.
            snapshot(parts.directory),
            snapshot(parts.customers),  # before what is queued is routed: it would leave for their MX
            Step(parts.spool.start, parts.spool.stop),
            Step(_nothing, parts.validating.stop),
            # Begins before who counts for it, so that it ends after them.
            *([Step(parts.tls_reports.start, parts.tls_reports.stop)] if parts.tls_reports else []),
            Step(parts.tls_policies.start, parts.tls_policies.stop),
            service(parts.scheduler),
            service(parts.on_demand),
            service(parts.holding),
            # Stops when nobody asks any more.
            service(parts.commands),
            # Last: whatever brings mail in.
            self._listening,
            Step(self._tell_doubts, _nothing),
            *([service(self.puller)] if self._settings.pull else []),
            service(self._control),
        ]

    async def _tell_doubts(self) -> None:
        parts = self._parts

        def is_held(domain: str) -> bool:
            return parts.router.destination(Address("postmaster", domain)).agent == HOLD

        for doubt in doubts(self._settings, parts.directory.domains, is_held=is_held):
            _log.warn("{doubt}", doubt=doubt)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._is_bound = False
        try:
            state = self._state = State.prepare(self._settings, self._parts.seconds, self._owner)
            if self._parts.rewriting is not None and state.srs_secret is not None:
                self._parts.rewriting.use(state.srs_secret)
            listeners = [make_listener(listen, self._parts, state) for listen in self._settings.listen]
            self._listening = together(*map(service, listeners))
            for listener in listeners:
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

    async def ready(self) -> None:
        """Wait until all has started, or something could not."""
        if self._started is not None:
            await self._started

    async def reload(self, read: Callable[[], Settings] | None = None) -> None:
        """Read anew what can be: certificate and key, accounts, customers, lists of recipients.

        Password files are read when a password is needed. What cannot be read is logged, and what was read before stays
        in force. `read` reads the configuration, only to tell whether the server must be started again; it raises
        `SettingsError`.
        """
        await self.ready()
        parts = self._parts
        if not self.running or self._state is None:
            return
        works: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("certificate", lambda: parts.in_thread(self._reload_certificate)),
            ("accounts", parts.directory.refresh),
            ("customers and their recipients", parts.customers.refresh),
        ]
        done = []
        for what, work in works:
            try:
                await work()
                done.append(what)
            except (TLSSettingsError, DirectoryUnavailable) as error:
                _log.error("{error}; the {what} from before stay in force", error=error, what=what)
        if done:
            _log.info("read anew: {done}; password files are read when they are needed", done=", ".join(done))
        if read is not None:
            await self._compare(read)

    def _reload_certificate(self) -> None:
        assert self._state is not None
        self._state.tls.reload()

    async def _compare(self, read: Callable[[], Settings]) -> None:
        try:
            is_changed = await self._parts.in_thread(read) != self._settings
        except SettingsError as error:
            _log.error("{error} The server goes on with the configuration from its start", error=error)
            return
        if is_changed:
            _log.warn("the configuration has changed: restart the server, it is read at the start only")

    async def _start(self) -> None:
        try:
            for step in self._steps():
                self._begun.append(step)
                await step.start()
        except (SpoolError, DirectoryUnavailable, StartError) as error:
            self._on_failure(error)

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
        begun, self._begun = self._begun, []
        if self._listening not in begun:
            begun.append(self._listening)  # ports are open before it is begun
        for step in reversed(begun):
            try:
                await step.stop()
            except Exception:  # noqa: BLE001 - a defect of one part is no reason to leave the others as they are
                _log.failure("a part of the server could not be stopped")
