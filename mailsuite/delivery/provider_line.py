"""The line to a provider: dials it, lets a pull session talk, and tells how that ended.

A pull with which nothing goes on any more is ended, also where the provider keeps the line alive.

The addresses of the host are tried in their order until one greets us; from there on a failure is the provider's own
word, and asking at another of its doors would only repeat it (and use up attempts at the password).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsuite.delivery.agents.relay import Addresses, InThread
from mailsuite.delivery.pulls import PullPlan
from mailsuite.delivery.tasks import uncancelled
from mailsuite.mail import replies
from mailsuite.mail.password_file import PasswordUnreadable, read_password
from mailsuite.mail.reply import Reply
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import TLSFailed
from mailsuite.session.handover import Session
from mailsuite.session.pulling import PullEnd, PullProgress, PullResult, PullSession, PullStage
from mailsuite.wire.core import Core

_MOST_ADDRESSES: Final = 5
_NOT_REACHED: Final = frozenset({PullStage.CONNECTING, PullStage.GREETING, PullStage.STARTTLS})

Progress = Callable[[PullProgress], object]


class IsLine(Protocol):
    """A connection that was dialled."""

    def finished(self) -> Deferred[Exception | None]:
        """See `mailsuite.net.connection.Connection.finished`."""

    def shutdown(self, reply: Reply) -> None:
        """See `mailsuite.net.connection.Connection.shutdown`."""

    def abort(self) -> None:
        """End it now."""


class DialsLines(Protocol):
    """What is asked of the dialer."""

    async def dial(
        self,
        host: str,
        port: int,
        core: Core,
        session: Session,
        *,
        tls: Any = None,  # noqa: ANN401 - as there
        source_address: str | None = None,
    ) -> IsLine:
        """See `mailsuite.net.dialer.Dialer.dial`."""


class MakesTLS(Protocol):
    """What is asked of the TLS settings."""

    def for_host(self, hostname: str, mode: str) -> Any:  # noqa: ANN401 - what Twisted's startTLS takes
        """See `mailsuite.net.tls.ClientTLS.for_host`."""


@dataclass(frozen=True, slots=True)
class LineSettings:
    """What we call ourselves, the address that connections leave from, and how many seconds a pull may stand still."""

    hostname: str
    source_address: str | None = None
    patience: float = 900.0


class ProviderLine:
    """Holds pulls, each over a connection of its own.

    `turn` makes the pair that takes a plan's mail in (None where only ETRN is said). `addresses` gives the addresses of
    a host; without it that is the dialer's business. `clock` ends pulls with which nothing goes on: no stage begins, no
    content comes, nothing is refused.
    """

    def __init__(
        self,
        dialer: DialsLines,
        tls: MakesTLS,
        in_thread: InThread,
        settings: LineSettings,
        *,
        turn: Callable[[PullPlan], tuple[Core, Session]] | None = None,
        addresses: Addresses | None = None,
        clock: IReactorTime,
    ) -> None:
        self._dialer = dialer
        self._tls = tls
        self._in_thread = in_thread
        self._settings = settings
        self._turn = turn
        self._addresses = addresses
        self._clock = clock
        self._lines: set[IsLine] = set()

    async def pull(self, plan: PullPlan, *, dry_run: bool = False, progress: Progress | None = None) -> PullEnd:
        """Ask the provider, and take in what comes. Raises nothing for what can go wrong outside: that is an end."""
        if progress is not None:
            progress(PullProgress(PullStage.CONNECTING))
        try:
            addresses: Sequence[str] = [plan.host] if self._addresses is None else await self._addresses(plan.host)
        except DnsFailure as failure:
            return _of_dns(failure)
        if plan.password_file is not None:
            try:  # it may have been changed since the start
                plan = replace(plan, password=await self._in_thread(read_password, plan.password_file))
            except PasswordUnreadable as error:
                return _unreached(str(error))
        end = _unreached(f"{plan.host} has no address")
        for address in addresses[:_MOST_ADDRESSES]:
            end = await self._try(plan, address, dry_run=dry_run, progress=progress)
            if end.result.is_success or end.stage not in _NOT_REACHED:
                break
        return end

    async def close(self, grace: float, clock: IReactorTime) -> None:
        """End all lines: politely where the provider is sending, and for good after `grace` seconds."""
        for line in list(self._lines):
            line.shutdown(replies.SHUTTING_DOWN)
        limit = clock.callLater(grace, self._abort)
        for line in list(self._lines):
            await line.finished()
        if limit.active():
            limit.cancel()

    def _abort(self) -> None:
        for line in list(self._lines):
            line.abort()

    async def _try(self, plan: PullPlan, address: str, *, dry_run: bool, progress: Progress | None) -> PullEnd:
        """Dial one address, and see the session to its end."""
        creator = None if plan.tls == "none" else self._tls.for_host(plan.host, plan.tls)
        turn = self._turn
        standstill = _Standstill(self._clock, self._settings.patience, progress)
        session = PullSession(
            plan.settings(self._settings.hostname, dry_run=dry_run),
            turn=None if turn is None else lambda: turn(plan),
            tls=None if creator is None else lambda: creator,
            in_thread=self._in_thread,
            progress=standstill.progress,
        )
        try:
            line = await self._dialer.dial(
                address,
                plan.port,
                session.core(),
                session,
                tls=creator if plan.tls == "implicit" else None,
                source_address=self._settings.source_address,
            )
        except ConnectFailed as failure:  # with implicit TLS the handshake is part of it
            return _unreached(f"cannot connect to {plan.host}: {failure}", _judge(failure))
        except DnsFailure as failure:
            return _of_dns(failure)
        self._lines.add(line)
        standstill.watch(line)
        try:
            ending = await _see_off(line)
        finally:
            standstill.leave()
            self._lines.discard(line)
        end = session.end
        if standstill.has_ended_it and not end.result.is_success:
            what = f"nothing has come for {self._settings.patience:.0f} seconds, and the line was closed ({end.stage})"
            return replace(end, result=PullResult.TEMPORARY, text=what)
        if isinstance(ending, TLSFailed) and not end.result.is_success:
            end = replace(end, result=_judge(ending), text=f"TLS with {plan.host} has failed: {ending}")
        return end


class _Standstill:
    """Ends a line with which nothing goes on for some time, and passes on what does. It begins with `watch`."""

    def __init__(self, clock: IReactorTime, limit: float, progress: Progress | None) -> None:
        self._clock = clock
        self._limit = limit
        self._progress = progress
        self._line: IsLine | None = None
        self._alarm: IDelayedCall | None = None
        self.has_ended_it = False

    def progress(self, progress: PullProgress) -> None:
        """Something goes on."""
        if self._alarm is not None and self._alarm.active():
            self._alarm.reset(self._limit)
        if self._progress is not None:
            self._progress(progress)

    def watch(self, line: IsLine) -> None:
        """This is the line."""
        self._line = line
        self._alarm = self._clock.callLater(self._limit, self._end)

    def leave(self) -> None:
        """The line has ended."""
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()

    def _end(self) -> None:
        assert self._line is not None
        self.has_ended_it = True
        self._line.abort()


async def _see_off(line: IsLine) -> Exception | None:
    """Wait for a connection's end. When we are cancelled it is broken off, and its session ends first."""
    try:
        return await line.finished()
    except CancelledError:
        line.abort()
        await uncancelled(line.finished())
        raise


def _judge(failure: TLSFailed | ConnectFailed) -> PullResult:
    """A line may break in a handshake as anywhere; a certificate that does not convince will not do so in a minute."""
    return PullResult.UNAVAILABLE if "certificate" in str(failure) else PullResult.TEMPORARY


def _of_dns(failure: DnsFailure) -> PullEnd:
    result = PullResult.TEMPORARY if failure.temporary else PullResult.UNAVAILABLE
    return PullEnd(PullStage.CONNECTING, result, str(failure))


def _unreached(text: str, result: PullResult = PullResult.TEMPORARY) -> PullEnd:
    return PullEnd(PullStage.CONNECTING, result, text)
