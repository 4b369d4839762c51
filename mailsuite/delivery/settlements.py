"""Settlements: what became of deliveries, judged, reported and written down in groups.

An agent says what happened in one attempt. Here it is decided what follows: a deferred recipient gets its next
attempt, or is given up when its time is over; failed recipients get a report. Then all that has gathered goes to the
spool in one call, while the next group gathers. A spool that fails is asked again until it works: what it has not
written down stays under its lease, nothing is lost, and `is_behind` keeps more from being taken.

Reports are composed one in each turn of the reactor: a queue that expires whole does not stall it.

What is deferred under `hold` stays held: how long is the business of who holds it, not of the retry schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsuite.delivery.bounces import Bounces
from mailsuite.delivery.retry import RetrySchedule, span
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import DirectoryUnavailable, ISpool, SpoolError
from mailsuite.mail.plain import plain
from mailsuite.mail.queue import Delivery, Outcome, Recipient, Result, Settlement
from mailsuite.mail.route import HOLD
from mailsuite.mail.status import EnhancedStatus

_MAX_GROUP: Final = 500
_MAX_BEHIND: Final = 2000  # settlements that wait; more than that, and nothing new is taken from the spool
_FIRST_PAUSE: Final = 1.0  # seconds before a spool that failed is asked again; doubled each time
_LONGEST_PAUSE: Final = 30.0
_EXPIRED: Final = EnhancedStatus(4, 4, 7)
_LOCAL_ERROR: Final = EnhancedStatus(4, 3, 0)
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
        retry: RetrySchedule,
        *,
        chance: Callable[[], float],
        deferred: Callable[[float], None],
        caught_up: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._bounces = bounces
        self._clock = clock
        self._retry = retry
        self._chance = chance
        self._deferred = deferred
        self._caught_up = caught_up
        self._pending: list[Settlement] = []
        self._unreported: deque[tuple[Delivery, tuple[Outcome, ...]]] = deque()
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
        return not (self._pending or self._unreported or self._writing or self._reporting)

    def add(self, delivery: Delivery, outcomes: Sequence[Outcome], *, not_before: float = 0.0) -> None:
        """Settle a delivery: outcomes in the order of its recipients; no next attempt is sooner than `not_before`."""
        if len(outcomes) != len(delivery.recipients):
            raise ValueError(f"{len(outcomes)} outcomes for {len(delivery.recipients)} recipients")
        if all(outcome.result in _GONE for outcome in outcomes):
            self._put(Settlement(delivery, outcomes))
            return
        # One for all recipients: those that are deferred together come back together, for one transaction.
        chance = self._chance()
        judged = tuple(
            self._judge(delivery, recipient, outcome, not_before, chance)
            for recipient, outcome in zip(delivery.recipients, outcomes, strict=True)
        )
        failed = any(outcome.result is Result.FAILED for outcome in judged)
        if failed and delivery.message.envelope.reverse_path is not None:
            self._unreported.append((delivery, judged))
            if not self._reporting:
                self._reporting = True
                self._clock.callLater(0, self._start, self._report)
        else:
            self._put(Settlement(delivery, judged))

    def drained(self) -> Deferred[None]:
        """Fires when all that was settled is written down, or was abandoned."""
        waiter: Deferred[None] = Deferred()
        if self.is_idle or self._abandoned:
            waiter.callback(None)
        else:
            self._waiters.append(waiter)
        return waiter

    def abandon(self) -> None:
        """Stop, even while the spool fails. What is not written down is found again when the spool is opened."""
        self._abandoned = True
        self._tasks.cancel()
        self._tell_waiters()

    def _judge(
        self, delivery: Delivery, recipient: Recipient, outcome: Outcome, not_before: float, chance: float
    ) -> Outcome:
        message = delivery.message
        if outcome.result is Result.DEFERRED and delivery.destination.agent != HOLD:
            now = self._clock.seconds()
            at = self._retry.next_attempt(message, recipient.attempts, now, chance)
            if at is None:
                # RFC 3464 section 2.3.3: the action is failed, the status stays that of a temporary failure.
                age = span(now - message.arrived)
                text = f"Given up after {age}: {outcome.text}"
                outcome = replace(outcome, result=Result.FAILED, status=_EXPIRED, text=text)
            else:
                at = max(at, not_before)
                outcome = replace(outcome, next_attempt=at)
                self._deferred(at)
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

    def _put(self, settlement: Settlement) -> None:
        self._pending.append(settlement)
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
            group = self._pending[: 1 if singly else _MAX_GROUP]
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
                if len(group) > 1:
                    singly = len(group)
                    continue
                queue_id = group[0].delivery.message.queue_id
                self._log.failure("{queue_id}: cannot be settled, stays under lease", queue_id=queue_id)
            else:
                self._log_gone(group)
            pause, singly = _FIRST_PAUSE, max(singly - 1, 0)
            was_behind, self._failing = self.is_behind, False
            del self._pending[: len(group)]
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

    async def _report(self) -> None:
        while self._unreported:
            self._put(await self._reported(*self._unreported[0]))
            self._unreported.popleft()
            if self._unreported:
                await deferLater(self._clock, 0)
        self._reporting = False
        self._tell_idle()

    async def _reported(self, delivery: Delivery, judged: tuple[Outcome, ...]) -> Settlement:
        """Add the report; where it cannot be made now, its recipients are tried again and fail again later."""
        pairs = list(zip(delivery.recipients, judged, strict=True))
        failures = [(recipient, outcome) for recipient, outcome in pairs if outcome.result is Result.FAILED]
        now = self._clock.seconds()
        try:
            report = await self._bounces.compose(delivery, failures, now)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender must learn of the failure one day
            queue_id = delivery.message.queue_id
            if isinstance(error, DirectoryUnavailable):
                self._log.error("{queue_id}: no report yet: {error}", queue_id=queue_id, error=str(error))
            else:
                self._log.failure("{queue_id}: no report yet", queue_id=queue_id)
            return Settlement(delivery, tuple(self._put_off(recipient, outcome, now) for recipient, outcome in pairs))
        return Settlement(delivery, judged, () if report is None else (report,))

    def _put_off(self, recipient: Recipient, outcome: Outcome, now: float) -> Outcome:
        if outcome.result is not Result.FAILED:
            return outcome
        at = now + self._retry.interval(recipient.attempts, self._chance())
        self._deferred(at)
        return replace(outcome, result=Result.DEFERRED, status=outcome.status.of_class(4), next_attempt=at)

    def _tell_idle(self) -> None:
        if self.is_idle:
            self._tell_waiters()

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)
