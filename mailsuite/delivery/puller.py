"""The puller: asks providers for our mail, by schedule and by command.

Each pull has its own times: an interval, times by the clock, the start of the server. One that has failed for a time
is tried again by the retry waits, which double; one that a provider refuses for good comes again at its normal time,
since only people can mend that. There are never two at once of one pull: whoever asks for one that is under way is
told of the end of that.

What became of each pull is one event of the spool's record and one line in the log; a dry run is a line only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.provider_line import Progress
from mailsuite.delivery.pulls import PullPlan
from mailsuite.delivery.tasks import Tasks, uncancelled
from mailsuite.interfaces import SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.session.pulling import PullEnd, PullProgress, PullResult, PullStage

_STOPPING: Final = PullEnd(PullStage.CONNECTING, PullResult.TEMPORARY, "the server is stopping")
_DEFECT: Final = PullEnd(PullStage.CONNECTING, PullResult.TEMPORARY, "a local error, see the log")


class UnknownPull(Exception):
    """There is no pull of that name; the text names those that exist."""


class HoldsPulls(Protocol):
    """What is asked of the line to a provider."""

    async def pull(self, plan: PullPlan, *, dry_run: bool = False, progress: Progress | None = None) -> PullEnd:
        """See `mailsuite.delivery.provider_line.ProviderLine.pull`."""

    async def close(self, grace: float, clock: IReactorTime) -> None:
        """See `mailsuite.delivery.provider_line.ProviderLine.close`."""


class Pushes(Protocol):
    """What sends mail to a provider."""

    async def push(self, host: str) -> int:
        """See `mailsuite.delivery.push.Pusher.push`."""


class Records(Protocol):
    """What is asked of the spool."""

    def record(self, events: Sequence[Event]) -> Awaitable[None]:
        """See `mailsuite.interfaces.ISpool.record`."""


@dataclass(frozen=True, slots=True)
class PullerSettings:
    """How many seconds pulls have to end at a stop; whether they come by themselves, or only when they are asked for;
    and the time zone that times by the clock are in, None for the machine's own.
    """  # noqa: D205 - one sentence

    grace: float = 10.0
    scheduled: bool = True
    zone: tzinfo | None = None


DEFAULTS: Final = PullerSettings()


class Puller(Service):
    """Pulls. The spool is started before this service, and stopped after it; what it pulls need not be listened for.

    `chance` gives random numbers from 0 up to 1.
    """

    _log = Logger()

    def __init__(
        self,
        plans: Iterable[PullPlan],
        line: HoldsPulls,
        pusher: Pushes,
        records: Records,
        clock: IReactorTime,
        *,
        chance: Callable[[], float],
        settings: PullerSettings = DEFAULTS,
    ) -> None:
        self._pulls = {plan.name: _Pull(plan) for plan in plans}
        self._line = line
        self._pusher = pusher
        self._records = records
        self._clock = clock
        self._chance = chance
        self._settings = settings
        self._tasks = Tasks()

    @property
    def names(self) -> list[str]:
        """The pulls there are, in the order of the configuration."""
        return list(self._pulls)

    def next_times(self) -> dict[str, float | None]:
        """When each pull comes by itself (a POSIX timestamp); None while it is under way, and where it does not."""
        return {name: None if pull.timer is None else pull.timer.getTime() for name, pull in self._pulls.items()}

    # ---------------------------------------------------------------------------------------- service

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if not self._settings.scheduled:
            return
        for pull in self._pulls.values():
            if pull.plan.at_start:
                self._call_at(pull, self._clock.seconds())
            else:
                self._schedule(pull)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for pull in self._pulls.values():
            pull.unschedule()
        await self._line.close(self._settings.grace, self._clock)
        self._tasks.cancel()
        await self._tasks.finished()

    # ---------------------------------------------------------------------------------------- pulling

    async def pull(self, name: str, *, dry_run: bool = False, progress: Progress | None = None) -> PullEnd:
        """Pull now, or follow the pull that is under way. Raises `UnknownPull`.

        A cancellation ends the wait, not the pull. A `dry_run` goes up to where one would ask.
        """
        pull = self._pulls.get(name)
        if pull is None:
            known = ", ".join(self._pulls) or "there is none"
            raise UnknownPull(f"there is no pull {name!r}; those in the configuration: {known}")
        while (under_way := pull.under_way) is not None and under_way.dry_run is not dry_run:
            await under_way.followed(None)
        if not self.running:
            return _STOPPING
        if under_way is None:
            under_way = pull.under_way = _UnderWay(dry_run=dry_run)
            pull.unschedule()
            self._tasks.start(self._run(pull, under_way), f"the pull {name}")
        return await under_way.followed(progress)

    def network_up(self) -> list[str]:
        """Begin all pulls now, and do not wait for them; tell their names.

        One that is under way may hang on the line of before: where it fails for a time, another follows at once.
        """
        for name, pull in self._pulls.items():
            pull.failures = 0
            if pull.under_way is not None and not pull.under_way.dry_run:
                pull.is_due_again = True
            else:
                self._tasks.start(self._pull_by_itself(name), f"the pull {name}")
        return self.names

    async def _run(self, pull: _Pull, under_way: _UnderWay) -> None:
        plan, dry_run = pull.plan, under_way.dry_run
        end = _STOPPING
        try:
            if plan.push == "before" and not dry_run:
                await self._push(plan)
            began = self._clock.seconds()
            end = await self._line.pull(plan, dry_run=dry_run, progress=under_way.tell)
            end = replace(end, seconds=self._clock.seconds() - began)
            if plan.push == "after" and not dry_run and end.stage is not PullStage.CONNECTING and self.running:
                await self._push(plan)
        except CancelledError:
            pass  # we are stopping; a push that is broken off changes nothing about the pull
        except Exception:  # noqa: BLE001 - one pull's defect must not keep it, and others, from being tried again
            self._log.failure("the pull {name} failed", name=plan.name)
            end = _DEFECT
        self._log.info("pull {name}: {said}", name=plan.name, said=describe(end))
        try:
            if not dry_run:
                pull.failures = pull.failures + 1 if end.result is PullResult.TEMPORARY else 0
                await self._record(plan, end)
        finally:
            pull.under_way = None
            is_due_again, pull.is_due_again = pull.is_due_again, False
            if is_due_again and end.result is PullResult.TEMPORARY and self.running:
                pull.failures = 0
                self._call_at(pull, self._clock.seconds())
            else:
                self._schedule(pull)
            under_way.finish(end)

    async def _push(self, plan: PullPlan) -> None:
        count = await self._pusher.push(plan.smarthost)
        if count:
            what = "1 message" if count == 1 else f"{count} messages"
            self._log.info("pull {name}: {what} pushed to {host}", name=plan.name, what=what, host=plan.smarthost)

    async def _record(self, plan: PullPlan, end: PullEnd) -> None:
        detail = {
            "provider": plan.host,
            "result": str(end.result),
            "stage": str(end.stage),
            "code": None if end.reply is None else end.reply.code,
            "messages": end.messages,
            "octets": end.octets,
            "refusals": end.refusals,
            "seconds": round(end.seconds, 3),
            "text": end.text,
        }
        try:
            event = Event(self._clock.seconds(), EventKind.PULL, plan.name, detail=detail)
            await uncancelled(self._records.record([event]))
        except SpoolError as error:
            self._log.error("the pull {name} is not recorded: {error}", name=plan.name, error=str(error))

    # --------------------------------------------------------------------------------------- schedule

    def _schedule(self, pull: _Pull) -> None:
        if self.running and self._settings.scheduled:
            now = self._clock.seconds()
            when = pull.plan.next_time(now, pull.failures, self._chance(), self._settings.zone)
            if when is not None:
                self._call_at(pull, when)

    def _call_at(self, pull: _Pull, when: float) -> None:
        pull.unschedule()
        pull.timer = self._clock.callLater(max(when - self._clock.seconds(), 0.0), self._due, pull)

    def _due(self, pull: _Pull) -> None:
        pull.timer = None
        self._tasks.start(self._pull_by_itself(pull.plan.name), f"the pull {pull.plan.name} by its schedule")

    async def _pull_by_itself(self, name: str) -> None:
        await self.pull(name)


class _Pull:
    """One plan, and how it stands with it: failures in a row, the timer of the next, the one under way.

    `is_due_again` says that another follows at once where that one fails for a time.
    """

    def __init__(self, plan: PullPlan) -> None:
        self.plan = plan
        self.failures = 0
        self.is_due_again = False
        self.timer: IDelayedCall | None = None
        self.under_way: _UnderWay | None = None

    def unschedule(self) -> None:
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()


class _UnderWay:
    """A pull that is under way, and who follows it."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._end: PullEnd | None = None
        self._last: PullProgress | None = None
        self._listeners: list[Progress] = []
        self._waiters: list[Deferred[None]] = []

    def tell(self, progress: PullProgress) -> None:
        """Tell who follows."""
        self._last = progress
        for listener in self._listeners:
            listener(progress)

    def finish(self, end: PullEnd) -> None:
        """It has ended."""
        self._end = end
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    async def followed(self, progress: Progress | None) -> PullEnd:
        """Its end; `progress` is told meanwhile how far it is."""
        if progress is not None:
            if self._last is not None:
                progress(self._last)
            self._listeners.append(progress)
        try:
            while self._end is None:
                waiter: Deferred[None] = Deferred(self._forget)
                self._waiters.append(waiter)
                await waiter
        finally:
            if progress is not None:
                self._listeners.remove(progress)
        return self._end

    def _forget(self, waiter: Deferred[None]) -> None:
        """Somebody waits no longer."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)


def describe(end: PullEnd) -> str:
    """A pull's end in one line, for people."""
    said = end.text if end.result.is_success else f"{end.result}: {end.text}"
    if end.messages or end.octets:
        messages = "1 message" if end.messages == 1 else f"{end.messages} messages"
        said += f"; {messages}, {end.octets} octets in {end.seconds:.1f} s"
    return said
