"""Settlements: what became of deliveries, judged, reported and written down in groups.

An agent says what happened in one attempt. Here it is decided what follows: a deferred recipient gets its next
attempt, or is given up when its time is over; whoever wants to hear of it gets a report. Then all that has come
together goes to the spool in one call, while the next group does. A spool that fails is asked again until it works:
what it has not written down stays under its lease, nothing is lost, and `is_behind` keeps more from being taken.

Who has got a message is written down at once, whatever becomes of the other recipients: a crash must not send it twice.
What has failed, or is late, and is to be reported waits a while for more of the same message (`gathering`).
Reports are composed one in each turn of the reactor: a queue that expires whole does not stall it. Where one cannot be
made now, what has failed is tried again, and fails again later; what was delivered stays delivered, and nobody is told.

What is deferred under `hold` stays held: how long is the business of who holds it, not of the retry schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsuite.delivery.bounces import Bounces
from mailsuite.delivery.gathering import Case, Gathering, Part
from mailsuite.delivery.pacing import DestinationRules
from mailsuite.delivery.retry import RetrySchedule, deadline_of, is_greylisting, span
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import DirectoryUnavailable, ISpool, SpoolError
from mailsuite.mail import steps
from mailsuite.mail.history import Event
from mailsuite.mail.options import ByMode
from mailsuite.mail.plain import plain
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Report, Result, Settlement
from mailsuite.mail.reports import Reported
from mailsuite.mail.route import HOLD
from mailsuite.mail.status import EnhancedStatus

_MAX_GROUP: Final = 500
_MAX_BEHIND: Final = 2000  # settlements that wait; more than that, and nothing new is taken from the spool
_FIRST_PAUSE: Final = 1.0  # seconds before a spool that failed is asked again; doubled each time
_LONGEST_PAUSE: Final = 30.0
_EXPIRED: Final = EnhancedStatus(4, 4, 7)
_TOO_LATE: Final = EnhancedStatus(5, 4, 7)
_GONE: Final = (Result.DELIVERED, Result.RELAYED)


class Settlements:
    """Takes outcomes, writes them to the spool.

    `chance` gives random numbers from 0 up to 1. `deferred` is told the time of each next attempt, `caught_up` is
    called when `is_behind` may have ended.
    """

    _log = Logger()

    def __init__(
        self,
        spool: ISpool,
        bounces: Bounces,
        clock: IReactorTime,
        rules: DestinationRules,
        *,
        chance: Callable[[], float],
        deferred: Callable[[float], None],
        caught_up: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._bounces = bounces
        self._clock = clock
        self._rules = rules
        self._chance = chance
        self._deferred = deferred
        self._caught_up = caught_up
        # What is in one tuple is written down in one transaction.
        self._pending: list[tuple[Settlement, ...]] = []
        self._gathering = Gathering(clock, bounces.settings.gather, self._close)
        self._unreported: deque[Case] = deque()
        self._tasks = Tasks()
        self._abandoned = False
        self._writing = False
        self._reporting = False
        self._failing = False
        self._waiters: list[Deferred[None]] = []

    @property
    def is_behind(self) -> bool:
        """Whether nothing new should be taken: the spool fails, or cannot keep up."""
        return self._failing or len(self._pending) + len(self._unreported) > _MAX_BEHIND

    @property
    def is_idle(self) -> bool:
        """Whether all that was settled is written down."""
        return not (self._pending or self._unreported or self._gathering or self._writing or self._reporting)

    def add(
        self,
        delivery: Delivery,
        outcomes: Sequence[Outcome],
        *,
        not_before: float = 0.0,
        seconds: float | None = None,
        events: Sequence[Event] = (),
    ) -> None:
        """Settle a delivery: outcomes in the order of its recipients; no next attempt is sooner than `not_before`.

        `seconds` is how long the attempt took; `events` are written down with it.
        """
        if len(outcomes) != len(delivery.recipients):
            raise ValueError(f"{len(outcomes)} outcomes for {len(delivery.recipients)} recipients")
        now = self._clock.seconds()
        if _is_plain(delivery, outcomes):
            step = steps.attempt(delivery, outcomes, now, seconds)
            self._put((Settlement(delivery, outcomes, events=(step, *events)),))
            return
        # One for all recipients: those that are deferred together come back together, for one transaction.
        chance = self._chance()
        retry = self._rules.retry(delivery.destination)
        judged = [
            self._judge(delivery, recipient, outcome, retry, now, not_before, chance)
            for recipient, outcome in zip(delivery.recipients, outcomes, strict=True)
        ]
        self._sort(Part(delivery, judged, now, seconds, events), retry)

    def drained(self) -> Deferred[None]:
        """Fires when all that was settled is written down, or was abandoned. What is gathered waits no longer."""
        waiter: Deferred[None] = Deferred()
        if not self._abandoned:
            self._gathering.close_all()
        if self.is_idle or self._abandoned:
            waiter.callback(None)
        else:
            self._waiters.append(waiter)
        return waiter

    def abandon(self) -> None:
        """Stop, even while the spool fails. What is not written down is found again when the spool is opened."""
        self._abandoned = True
        self._gathering.forget()
        self._tasks.cancel()
        self._tell_waiters()

    # ---------------------------------------------------------------------------------------- judging

    def _judge(
        self,
        delivery: Delivery,
        recipient: Recipient,
        outcome: Outcome,
        retry: RetrySchedule,
        now: float,
        not_before: float,
        chance: float,
    ) -> Outcome:
        message = delivery.message
        if outcome.result is Result.DEFERRED and delivery.destination.agent != HOLD:
            at = retry.next_attempt(message, recipient.attempts, now, chance, greylisted=is_greylisting(outcome))
            if at is None:
                # RFC 3464 section 2.3.3: the action is failed, the status stays that of a temporary failure; but where
                # the sender has set the time, RFC 2852 section 4.1.3 names another.
                deadline = deadline_of(message)
                status = _EXPIRED if deadline is None or deadline > now else _TOO_LATE
                text = f"Given up after {span(now - message.arrived)}: {outcome.text}"
                outcome = replace(outcome, result=Result.FAILED, status=status, text=text)
            else:
                outcome = replace(outcome, next_attempt=max(at, not_before))
        if outcome.result not in _GONE:
            self._log.info(
                "{queue_id}: to=<{address}> {result} {status} {remote}{text}",
                queue_id=message.queue_id,
                address=plain(str(recipient.address)),
                result=outcome.result.value,
                status=str(outcome.status),
                remote=f"{outcome.remote}: " if outcome.remote else "",
                text=plain(outcome.text),
            )
        return outcome

    def _sort(self, part: Part, retry: RetrySchedule) -> None:
        """What is reported of a delivery takes its way to a report, the rest is written down."""
        delivery = part.delivery
        is_late = delivery.destination.agent != HOLD and _is_late(delivery.message, retry, part.at)
        succeeded: list[int] = []
        to_gather: list[int] = []
        for number, (recipient, outcome) in enumerate(zip(delivery.recipients, part.outcomes, strict=True)):
            if outcome.result is Result.DEFERRED and (not is_late or recipient.delay_told):
                continue
            if self._bounces.is_told(delivery, recipient, outcome):
                (succeeded if outcome.result in _GONE else to_gather).append(number)
        told = {*succeeded, *to_gather}
        rest = [number for number in range(len(delivery.recipients)) if number not in told]
        # Whichever goes first takes the events along.
        if rest:
            self._put((self._settlement(_some(part, rest)),))
            part = part._replace(events=())
        if succeeded:
            self._close(Case.of(_some(part, succeeded), self._bounces.excerpt(delivery.message)))
            part = part._replace(events=())
        if to_gather:
            self._gathering.add(_some(part, to_gather), self._bounces.excerpt(delivery.message))

    def _settlement(self, part: Part, reports: Sequence[Report] = (), delay_told: Sequence[int] = ()) -> Settlement:
        for outcome in part.outcomes:
            if outcome.next_attempt is not None:
                self._deferred(outcome.next_attempt)
        step = steps.attempt(part.delivery, part.outcomes, part.at, part.seconds)
        return Settlement(part.delivery, part.outcomes, reports, delay_told, (step, *part.events))

    # ---------------------------------------------------------------------------------------- writing

    def _put(self, together: tuple[Settlement, ...]) -> None:
        self._pending.append(together)
        if not self._writing:
            self._writing = True
            # The rest of this turn's settlements join it.
            self._clock.callLater(0, self._start, self._write)

    def _start(self, loop: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        if not self._abandoned:
            self._tasks.start(loop(), "settling")

    async def _write(self) -> None:
        pause, singly = _FIRST_PAUSE, 0
        while self._pending:
            taken = self._pending[: 1 if singly else _MAX_GROUP]
            group = list(chain.from_iterable(taken))
            try:
                await self._spool.settle(group)
            except SpoolError as error:
                self._failing = True
                count = len(self._pending)
                self._log.error("the spool failed, {count} settlements wait: {error}", count=count, error=str(error))
                await deferLater(self._clock, pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - a defect, ours or the spool's: find the one that it hangs on
                if len(taken) > 1:
                    singly = len(taken)
                    continue
                queue_id = group[0].delivery.message.queue_id
                self._log.failure("{queue_id}: cannot be settled, stays under lease", queue_id=queue_id)
            else:
                self._log_gone(group)
            pause, singly = _FIRST_PAUSE, max(singly - 1, 0)
            was_behind, self._failing = self.is_behind, False
            del self._pending[: len(taken)]
            if was_behind and not self.is_behind:
                self._caught_up()
        self._writing = False
        self._tell_idle()

    def _log_gone(self, group: Sequence[Settlement]) -> None:
        """Say who has got what. A group is one event of the log: an event for each recipient would cost too much."""
        lines = [
            plain(
                f"{settled.delivery.message.queue_id}: to=<{recipient.address}> {outcome.result.value} {outcome.status}"
                + (f" {outcome.remote}: {outcome.text}" if outcome.remote else "")
            )
            for settled in group
            for recipient, outcome in zip(settled.delivery.recipients, settled.outcomes, strict=True)
            if outcome.result in _GONE
        ]
        if lines:
            self._log.info("{lines}", lines="\n".join(lines))

    # -------------------------------------------------------------------------------------- reporting

    def _close(self, case: Case) -> None:
        self._unreported.append(case)
        if not self._reporting:
            self._reporting = True
            self._clock.callLater(0, self._start, self._report)

    async def _report(self) -> None:
        while self._unreported:
            case = self._unreported[0]
            together = await self._reported(case)
            self._unreported.popleft()
            self._put(together)
            if self._unreported:
                await deferLater(self._clock, 0)
        self._reporting = False
        self._tell_idle()

    async def _reported(self, case: Case) -> tuple[Settlement, ...]:
        """All of a case with its report, to be written down together."""
        queue_id = case.message.queue_id
        now = self._clock.seconds()
        try:
            composed = await self._bounces.compose(case, self._told(case), now)
        except CancelledError:
            raise
        except DirectoryUnavailable as error:
            self._log.error("{queue_id}: no report yet: {error}", queue_id=queue_id, error=str(error))
        except Exception:  # noqa: BLE001 - whatever it is, the sender must learn of the failure one day
            self._log.failure("{queue_id}: no report yet", queue_id=queue_id)
        else:
            first, *others = case.parts
            reports: tuple[Report, ...] = ()
            if composed is not None:
                report, step = composed
                reports, first = (report,), first._replace(events=(*first.events, step))
            return (
                self._settlement(first, reports, _late_keys(first)),
                *(self._settlement(part, (), _late_keys(part)) for part in others),
            )
        return tuple(self._settlement(self._put_off(part, now)) for part in case.parts)

    def _told(self, case: Case) -> Sequence[Reported]:
        return [
            Reported(recipient, outcome, part.at, self._rules.retry(part.delivery.destination).expires(case.message))
            for part in case.parts
            for recipient, outcome in zip(part.delivery.recipients, part.outcomes, strict=True)
        ]

    def _put_off(self, part: Part, now: float) -> Part:
        """Have what has failed tried again, and fail again, later."""
        retry, chance = self._rules.retry(part.delivery.destination), self._chance()
        outcomes = [
            replace(
                outcome,
                result=Result.DEFERRED,
                status=outcome.status.of_class(4),
                next_attempt=now + retry.interval(recipient.attempts, chance),
            )
            if outcome.result is Result.FAILED
            else outcome
            for recipient, outcome in zip(part.delivery.recipients, part.outcomes, strict=True)
        ]
        return part._replace(outcomes=outcomes)

    def _tell_idle(self) -> None:
        if self.is_idle:
            self._tell_waiters()

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


def _is_plain(delivery: Delivery, outcomes: Sequence[Outcome]) -> bool:
    """Whether everybody has got it, and nobody wants to hear of that. Nearly all that is settled is of this kind."""
    if delivery.message.envelope.options.by_trace:
        return False
    for recipient, outcome in zip(delivery.recipients, outcomes, strict=True):
        if outcome.result not in _GONE or recipient.options.notify is not None:
            return False
    return True


def _is_late(message: Message, retry: RetrySchedule, now: float) -> bool:
    """Whether the sender should know by now that a message has not arrived yet (RFC 3461 section 5.2.5)."""
    options = message.envelope.options
    if options.by_mode is ByMode.NOTIFY and options.deliver_by is not None and options.deliver_by <= now:
        return True  # RFC 2852 section 4.1.3
    begins = message.arrived if options.hold_until is None else max(message.arrived, options.hold_until)
    return retry.delay_report > 0 and now - begins >= retry.delay_report


def _late_keys(part: Part) -> Sequence[int]:
    pairs = zip(part.delivery.recipients, part.outcomes, strict=True)
    return [recipient.key for recipient, outcome in pairs if outcome.result is Result.DEFERRED]


def _some(part: Part, numbers: Sequence[int]) -> Part:
    """What a part says of some of its recipients."""
    recipients = part.delivery.recipients
    if len(numbers) == len(recipients):
        return part
    chosen = tuple(recipients[number] for number in numbers)
    outcomes = [part.outcomes[number] for number in numbers]
    return part._replace(delivery=replace(part.delivery, recipients=chosen), outcomes=outcomes)
