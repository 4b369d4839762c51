"""The server's end of the control socket."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from mailsuite import __version__
from mailsuite.admin.control.language import (
    Ended,
    Manage,
    NetworkUp,
    Ping,
    Progressed,
    Pull,
    Status,
    selection_of,
)
from mailsuite.admin.control.place import NAME, ControlError, cannot_be_made, remove_stale, short_path
from mailsuite.delivery.active import DestinationStatus
from mailsuite.delivery.provider_line import Progress
from mailsuite.delivery.puller import UnknownPull
from mailsuite.mail.selection import Managed, QueueAction, Selection
from mailsuite.session.pulling import PullEnd, PullProgress, PullStage

_log = Logger()

_PROGRESS_EVERY: Final = 0.2  # seconds
MOST_CONNECTIONS: Final = 32
_LONGEST_TEXT: Final = 2000  # characters; a value of AMP has at most 65535 octets
_LONGEST_VALUE: Final = 60_000  # octets
_LONGEST_ERROR: Final = 200  # characters, of a destination


class Pulls(Protocol):
    """What is asked of the puller."""

    @property
    def names(self) -> list[str]:
        """See `mailsuite.delivery.puller.Puller.names`."""

    async def pull(self, name: str, *, dry_run: bool = False, progress: Progress | None = None) -> PullEnd:
        """See `mailsuite.delivery.puller.Puller.pull`."""

    def network_up(self) -> list[str]:
        """See `mailsuite.delivery.puller.Puller.network_up`."""


class ManagesQueue(Protocol):
    """What is asked of `mailsuite.delivery.managing.Managing`."""

    async def manage(self, action: QueueAction, selection: Selection, *, by: str) -> Managed:
        """See there."""

    def status(self) -> Sequence[DestinationStatus]:
        """See there."""


class _Served(amp.AMP):
    """One command's connection, at the server's end."""

    def __init__(
        self, pulls: Pulls, queue: ManagesQueue, seconds: Callable[[], float], over: Callable[[_Served], object]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pulls = pulls
        self._queue = queue
        self._seconds = seconds
        self._over = over
        self._waiting: set[Deferred[Any]] = set()
        self._lost = False

    @Ping.responder
    def ping(self) -> dict[str, Any]:
        return {"version": __version__, "pid": os.getpid()}

    @Pull.responder
    def pull(self, names: list[str], dry_run: bool) -> Deferred[dict[str, Any]]:  # noqa: FBT001 - AMP calls it
        return self._wait_for(self._pull(names, dry_run=dry_run))

    @NetworkUp.responder
    def network_up(self) -> dict[str, Any]:
        return {"names": self._pulls.network_up()}  # the puller logs how they end

    @Manage.responder
    def manage(self, action: str, selection: str, by: str) -> Deferred[dict[str, Any]]:
        return self._wait_for(self._manage(action, selection, by))

    @Status.responder
    def status(self) -> dict[str, Any]:
        return {"destinations": _status_text(self._queue.status())}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        for waiting in list(self._waiting):
            waiting.cancel()  # the pull goes on
        self._over(self)

    async def _manage(self, action: str, selection: str, by: str) -> dict[str, Any]:
        done = await self._queue.manage(QueueAction(action), selection_of(selection), by=by)
        if done.recipients:
            _log.info(
                "queue {action} by {by}: {messages} message{s}, {recipients} recipient{es}",
                action=action,
                by=by,
                messages=done.messages,
                recipients=done.recipients,
                s="" if done.messages == 1 else "s",
                es="" if done.recipients == 1 else "s",
            )
        return {"messages": done.messages, "recipients": done.recipients, "busy": done.busy}

    async def _pull(self, names: Sequence[str], *, dry_run: bool) -> dict[str, Any]:
        unknown = [name for name in names if name not in self._pulls.names]
        if unknown:
            known = ", ".join(self._pulls.names) or "there is none"
            raise UnknownPull(
                f"the running server has no pull {unknown[0]!r}; those it has: {known}; restart it where the "
                "configuration has changed"
            )
        wanted = list(dict.fromkeys(names)) or self._pulls.names
        ending = [Deferred.fromCoroutine(self._pull_one(name, dry_run=dry_run)) for name in wanted]
        try:
            for ended in ending:
                await ended
        except CancelledError:
            for ended in ending:
                ended.addErrback(_is_cancelled)
                ended.cancel()
            raise
        return {}

    async def _pull_one(self, name: str, *, dry_run: bool) -> None:
        told_at = 0.0
        stage: PullStage | None = None

        def tell(progress: PullProgress) -> None:
            nonlocal told_at, stage
            now = self._seconds()
            if progress.stage is stage and now - told_at < _PROGRESS_EVERY:
                return
            told_at, stage = now, progress.stage
            self._tell(
                Progressed,
                name=name,
                stage=str(progress.stage),
                messages=progress.messages,
                octets=progress.octets,
            )

        end = await self._pulls.pull(name, dry_run=dry_run, progress=tell)
        self._tell(
            Ended,
            name=name,
            stage=str(end.stage),
            result=str(end.result),
            text=end.text[:_LONGEST_TEXT],
            messages=end.messages,
            octets=end.octets,
            refusals=end.refusals,
            seconds=end.seconds,
        )

    def _tell(self, command: type[amp.Command], **arguments: Any) -> None:
        if not self._lost:
            self.callRemote(command, **arguments)  # type: ignore[no-untyped-call]

    def _wait_for(self, work: Awaitable[dict[str, Any]]) -> Deferred[dict[str, Any]]:
        async def wait() -> dict[str, Any]:
            return await work

        waiting = Deferred.fromCoroutine(wait())
        self._waiting.add(waiting)

        def over(result: Any) -> Any:  # noqa: ANN401 - passed on
            self._waiting.discard(waiting)
            if self._lost and isinstance(result, Failure) and result.check(CancelledError):  # type: ignore[no-untyped-call]
                return {}  # nobody hears it
            return result

        return waiting.addBoth(over)


class _ServedFactory(Factory):
    """Serves commands, so many at once: whoever may open the socket shall not use up our descriptors."""

    noisy = False

    def __init__(self, pulls: Pulls, queue: ManagesQueue, seconds: Callable[[], float]) -> None:
        self._pulls = pulls
        self._queue = queue
        self._seconds = seconds
        self.connections: set[_Served] = set()

    def buildProtocol(self, addr: object) -> TwistedProtocol | None:
        if len(self.connections) >= MOST_CONNECTIONS:
            _log.warn("the control socket has {count} connections already", count=len(self.connections))
            return None
        served = _Served(self._pulls, self._queue, self._seconds, self.connections.discard)
        self.connections.add(served)
        return served


class Control(Service):
    """The server's end, in the data directory. It starts after the spool, and stops before it."""

    def __init__(
        self,
        directory: Path,
        pulls: Pulls,
        queue: ManagesQueue,
        reactor: Any,  # noqa: ANN401 - IReactorUNIX, IReactorTime
    ) -> None:
        self._path = directory / NAME
        self._reactor = reactor
        self._factory = _ServedFactory(pulls, queue, reactor.seconds)
        self._port: Any = None
        self._held = ExitStack()  # the path, for as long as it is listened at

    @property
    def connections(self) -> frozenset[amp.AMP]:
        """Those of commands, at present."""
        return frozenset(self._factory.connections)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        try:
            self._listen()
        except ControlError as error:
            _log.error("{error}", error=error)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    def _listen(self) -> None:
        remove_stale(self._path)
        path = self._held.enter_context(short_path(self._path))
        try:
            # Its mode is set before it is listened at: until then nobody is let in, whoever may open it. A umask would
            # be that of the whole process, in which threads write files.
            self._port = self._reactor.listenUNIX(path, self._factory, mode=0o600)
        except (CannotListenError, OSError) as error:
            self._held.close()
            reason = getattr(error, "socketError", error)
            raise cannot_be_made(self._path, reason) from None

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            try:
                self._path.touch()  # Twisted's port does not close where somebody has removed its path
                await maybeDeferred(port.stopListening)
            except OSError as error:
                _log.info("{path}: {reason}", path=str(self._path), reason=error.strerror or error)
        self._held.close()
        for served in list(self._factory.connections):
            if served.transport is not None:
                served.transport.loseConnection()


def _is_cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)  # type: ignore[no-untyped-call]


def _status_text(status: Sequence[DestinationStatus]) -> str:
    """As JSON: those with the most to tell, and no more than one value of AMP holds."""
    ranked = sorted(status, key=lambda one: (one.runs, one.ready, one.failures), reverse=True)
    rows: list[str] = []
    size = 2
    for one in ranked:
        row = json.dumps(
            {
                "destination": str(one.destination),
                "runs": one.runs,
                "allowed": one.allowed,
                "ready": one.ready,
                "failures": one.failures,
                "up_at": one.up_at,
                "rate": round(one.rate, 3),
                "last_error": None if one.last_error is None else one.last_error[:_LONGEST_ERROR],
            }
        )
        size += len(row) + 1  # all of it ASCII
        if size > _LONGEST_VALUE:
            break
        rows.append(row)
    return f"[{','.join(rows)}]"
