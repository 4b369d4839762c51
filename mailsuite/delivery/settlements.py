"""Settlements: what became of deliveries, judged, reported and written down.

An agent says what happened in one attempt. Here it is decided what follows: a deferred recipient gets its next
attempt, or is given up when its time is over; whoever wants to hear of it gets a report (`reporting`). Then it goes to
the spool (`writing`). Where the spool cannot keep up, `is_behind` keeps more from being taken.

Who has got a message is written down at once, whatever becomes of the other recipients: a crash must not send it twice.
What has failed, or is late, and is to be reported waits a while for more of the same message (`gathering`).
Where a report cannot be made now, it is the report that is made later, and nothing is sent again: who has failed stays
in the queue for that alone (`Settlement.unreported`), until the message would have expired and its bounce too; then
the report is dropped. What was delivered stays delivered, and what was late is told at the next attempt.

What is deferred under `hold` stays held: how long is the business of who holds it, not of the retry schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.bounces import Bounces
from mailsuite.delivery.gathering import Case, Gathering, Part
from mailsuite.delivery.pacing import DestinationRules
from mailsuite.delivery.reporting import Composed, Reporting
from mailsuite.delivery.retry import RetrySchedule, deadline_of, is_greylisting, notice_of, span
from mailsuite.delivery.writing import Writing
from mailsuite.interfaces import ISpool, SpoolError
from mailsuite.mail import steps
from mailsuite.mail.history import Event
from mailsuite.mail.plain import plain
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Report, Result, Settlement
from mailsuite.mail.reports import Reported
from mailsuite.mail.route import EXPIRED, HOLD
from mailsuite.mail.selection import QueuedRecipient, QueueState, Selection
from mailsuite.mail.status import EnhancedStatus

_MAX_BEHIND: Final = 2000  # settlements that wait; more than that, and nothing new is taken from the spool
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
        self._writing = Writing(spool, clock, self._wrote)
        self._gathering = Gathering(clock, bounces.settings.gather, self._close)
        self._reporting = Reporting(clock, self._compose, self._reported)
        self._abandoned = False
        self._was_behind = False
        self._waiters: list[Deferred[None]] = []

    @property
    def is_behind(self) -> bool:
        """Whether nothing new should be taken: the spool fails, or cannot keep up."""
        behind = self._writing.is_failing or len(self._writing) + len(self._reporting) > _MAX_BEHIND
        self._was_behind |= behind
        return behind

    @property
    def is_idle(self) -> bool:
        """Whether all that was settled is written down."""
        return self._writing.is_idle and not (self._reporting or self._gathering)

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
            self._writing.put((Settlement(delivery, outcomes, events=(step, *events)),))
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

    def mind_clock(self) -> None:
        """The clock was set back: what waits for a time is not to wait for longer."""
        self._gathering.mind_clock()

    def abandon(self) -> None:
        """Stop, even while the spool fails. What is not written down is found again when the spool is opened."""
        self._abandoned = True
        self._gathering.forget()
        self._reporting.abandon()
        self._writing.abandon()
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
        if recipient.failure is not None and outcome.result is Result.FAILED:
            return recipient.failure  # nothing was tried: only its report is missing
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
                text=plain(_said(outcome)),
            )
        return outcome

    def _sort(self, part: Part, retry: RetrySchedule) -> None:
        """What is reported of a delivery takes its way to a report, the rest is written down."""
        delivery = part.delivery
        late_at = None if delivery.destination.agent == HOLD else retry.late_at(delivery.message)
        is_late = late_at is not None and late_at <= part.at
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
            self._writing.put((self._settlement(_some(part, rest)),))
            part = part._replace(events=())
        if succeeded:
            case = Case.of(_some(part, succeeded), self._bounces.excerpt(delivery.message))
            self._reporting.add(case, succeeded=True)
            part = part._replace(events=())
        if to_gather:
            self._gathering.add(_some(part, to_gather), self._bounces.excerpt(delivery.message))

    def _settlement(self, part: Part, reports: Sequence[Report] = (), delay_told: Sequence[int] = ()) -> Settlement:
        for outcome in part.outcomes:
            if outcome.next_attempt is not None:
                self._deferred(outcome.next_attempt)
        return Settlement(part.delivery, part.outcomes, reports, delay_told, _events(part))

    def _wrote(self) -> None:
        was_behind = self._was_behind
        self._was_behind = False
        if was_behind and not self.is_behind:
            self._caught_up()
        self._tell_idle()

    # -------------------------------------------------------------------------------------- reporting

    def _close(self, case: Case) -> None:
        self._reporting.add(case, succeeded=False)

    async def _compose(self, case: Case) -> Composed:
        queued = await self._queued(case)
        told = self._told(case, queued)
        return await self._bounces.compose(case, told, self._clock.seconds(), others=_waiting(queued))

    async def _queued(self, case: Case) -> Sequence[QueuedRecipient]:
        """How it stands with all recipients of the message; none where that cannot be told."""
        try:
            found = await self._spool.select(Selection((case.message.queue_id,)), 1)
        except SpoolError as error:
            queue_id = case.message.queue_id
            self._log.error("{queue_id}: its report tells less: {error}", queue_id=queue_id, error=str(error))
            return ()
        return [recipient for message in found for recipient in message.recipients]

    def _reported(self, case: Case, composed: Composed | str) -> None:
        """Write all of a case down with its report, together."""
        if isinstance(composed, str):
            self._writing.put(tuple(self._without_report(case, part, composed) for part in case.parts))
            return
        first, *others = case.parts
        report, step = composed
        first = first._replace(events=(*first.events, step))
        self._writing.put(
            (
                self._settlement(first, () if report is None else (report,), _late_keys(first)),
                *(self._settlement(part, (), _late_keys(part)) for part in others),
            )
        )

    def _told(self, case: Case, queued: Sequence[QueuedRecipient]) -> Sequence[Reported]:
        before = {one.address: _last_error(one) for one in queued}
        return [
            Reported(
                recipient,
                _past_notice(case.message, outcome, part.at),
                part.at,
                self._rules.retry(part.delivery.destination).expires(case.message),
                before.get(recipient.address) if recipient.expired else None,
            )
            for part in case.parts
            for recipient, outcome in zip(part.delivery.recipients, part.outcomes, strict=True)
        ]

    def _without_report(self, case: Case, part: Part, why: str) -> Settlement:
        """Keep what has failed for a later report, where there is still time for one."""
        now = self._clock.seconds()
        retry, chance = self._rules.retry(part.delivery.destination), self._chance()
        is_held = part.delivery.destination.agent == HOLD  # whoever holds it will come to it again
        is_over = not is_held and now >= retry.expires(case.message) + retry.bounce_lifetime
        outcomes = list(part.outcomes)
        kept: list[int] = []
        for number, (recipient, outcome) in enumerate(zip(part.delivery.recipients, outcomes, strict=True)):
            if outcome.result is Result.FAILED and not is_over:
                again = now + retry.interval(recipient.attempts, chance)
                outcomes[number] = replace(outcome, result=Result.DEFERRED, next_attempt=again)
                if not is_held:
                    kept.append(recipient.key)
        is_late = any(outcome.result is Result.DEFERRED for outcome in outcomes)
        events = _events(part)
        if not (kept or is_late):
            queue_id = case.message.queue_id
            self._log.error("{queue_id}: its report is dropped: {why}", queue_id=queue_id, why=plain(why))
        if not any(recipient.failure for recipient in part.delivery.recipients) or not kept:
            word = steps.PUT_OFF if kept or is_late else steps.DROPPED
            events = (*events, self._bounces.untold(case, part.outcomes, word, why, now))
        for outcome in outcomes:
            if outcome.next_attempt is not None:
                self._deferred(outcome.next_attempt)
        return Settlement(part.delivery, outcomes, events=events, unreported=kept)

    def _tell_idle(self) -> None:
        if self.is_idle:
            self._tell_waiters()

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


def _events(part: Part) -> tuple[Event, ...]:
    """What the history has of a part; no attempt where none was made."""
    if any(recipient.failure for recipient in part.delivery.recipients):
        return tuple(part.events)
    return (steps.attempt(part.delivery, part.outcomes, part.at, part.seconds), *part.events)


def _is_plain(delivery: Delivery, outcomes: Sequence[Outcome]) -> bool:
    """Whether everybody has got it, and nobody wants to hear of that. Nearly all that is settled is of this kind."""
    if delivery.message.envelope.options.by_trace:
        return False
    for recipient, outcome in zip(delivery.recipients, outcomes, strict=True):
        if outcome.result not in _GONE or recipient.options.notify is not None:
            return False
    return True


def _late_keys(part: Part) -> Sequence[int]:
    pairs = zip(part.delivery.recipients, part.outcomes, strict=True)
    return [recipient.key for recipient, outcome in pairs if outcome.result is Result.DEFERRED]


def _waiting(queued: Sequence[QueuedRecipient]) -> int:
    """How many of these are still to be tried: neither under way, nor to be returned."""
    states = (QueueState.WAITING, QueueState.DUE)
    return sum(one.state in states and one.destination.agent != EXPIRED for one in queued)


def _last_error(one: QueuedRecipient) -> str | None:
    if one.last_text is None:
        return None
    return " ".join(filter(None, (f"{one.last_remote}:" if one.last_remote else "", one.last_status, one.last_text)))


def _said(outcome: Outcome) -> str:
    """What happened, for the log: in our words, with the reply's code where there was one."""
    reply, text = outcome.reply, outcome.text
    if reply is None:
        return text
    if reply.text and reply.text in text:
        return text.replace(reply.text, str(reply), 1)
    return f"{text} ({reply})"


def _past_notice(message: Message, outcome: Outcome, at: float) -> Outcome:
    """The outcome as its report names it: by a status of its own where the time is over that the sender has set."""
    notice = notice_of(message)
    if outcome.result is not Result.DEFERRED or notice is None or at < notice:
        return outcome
    return replace(outcome, status=_EXPIRED)  # RFC 2852 section 4.1.3: 4.4.7


def _some(part: Part, numbers: Sequence[int]) -> Part:
    """What a part says of some of its recipients."""
    recipients = part.delivery.recipients
    if len(numbers) == len(recipients):
        return part
    chosen = tuple(recipients[number] for number in numbers)
    outcomes = [part.outcomes[number] for number in numbers]
    return part._replace(delivery=replace(part.delivery, recipients=chosen), outcomes=outcomes)
