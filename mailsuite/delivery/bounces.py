"""Bounces, and the other reports: who hears what became of a message, and in which words (RFC 3461, RFC 5321 6.1).

The sender is told of what he asked for, of failures and delays where he has not said what he wants, and of success at a
server that will not tell him only where he wants to know. The null reverse-path gets no report (RFC 5321 section
4.5.5); what has none and fails goes to the postmaster, where the settings say so, but never twice. A report that nobody
would take is dropped with a line in the log: its sender cannot be told.

A message that must travel by TLS only is never returned whole, and its reports ask for the same (RFC 8689 section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from twisted.logger import Logger

from mailsuite.delivery.gathering import Case
from mailsuite.interfaces import DirectoryUnavailable, IRouter, Refused
from mailsuite.mail import steps
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event
from mailsuite.mail.options import PLAIN, MessageOptions, Notify, Return
from mailsuite.mail.origin import Origin
from mailsuite.mail.plain import plain
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Report, Result
from mailsuite.mail.reports import EVENTS, HEADER_LIMIT, Reported, compose
from mailsuite.mail.route import Target

_POSTMASTER: Final = Address("postmaster", "")  # RFC 5321 section 4.1.1.3: our own
_GRAVEST: Final = (Result.FAILED, Result.DEFERRED, Result.RELAYED, Result.DELIVERED)


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What reports are like.

    `double_bounces`: the postmaster reads what fails and has no sender. `return_size` is the largest message, in
    octets, that is returned whole to whom wants it; `gather` how many seconds one report waits for more of the same
    message.
    """

    double_bounces: bool = False
    return_size: int = 50 * 1024
    gather: float = 5.0


DEFAULTS: Final = ReportSettings()


class Bounces:
    """Composes reports and routes them to their readers. `hostname` is the host that reports."""

    _log = Logger()

    def __init__(self, router: IRouter, hostname: str, settings: ReportSettings = DEFAULTS) -> None:
        self.settings = settings
        self._router = router
        self._hostname = hostname

    def is_told(self, delivery: Delivery, recipient: Recipient, outcome: Outcome) -> bool:
        """Whether somebody hears of this outcome; of a deferred one when it is late."""
        event = EVENTS.get(outcome.result)
        if event is None:
            return False
        if delivery.reverse_path is None:
            # A notice that the postmaster does not get is not told to the postmaster.
            return event is Notify.FAILURE and self.settings.double_bounces and not _is_for_postmaster(recipient)
        by_trace = outcome.result is Result.RELAYED and delivery.message.envelope.options.by_trace
        if by_trace and recipient.options.notify != Notify(0):
            return True  # RFC 2852 section 4.1.4
        if outcome.dsn_passed_on:
            return False  # RFC 3461 section 5.2.1; by LMTP as well: who has said DSN there reports the delivery
        return recipient.options.wants(event)

    def excerpt(self, message: Message) -> int:
        """How many octets of a message a report on its failure needs."""
        return self.settings.return_size if self._is_returned(message) else HEADER_LIMIT

    async def compose(
        self, case: Case, reported: Sequence[Reported], now: float, *, others: int = 0
    ) -> tuple[Report | None, Event]:
        """The report about these recipients of a case, with the step for its history; None where nobody can be told.

        `others` is how many more recipients the message waits for.

        Raises `DirectoryUnavailable` where it is not known, now, whether its reader takes mail.
        """
        message = case.message
        reader = case.reader or _POSTMASTER
        outcomes = [one.outcome for one in reported]
        results = {outcome.result for outcome in outcomes}
        targets = await self._targets(message, reader)
        if isinstance(targets, str):
            return None, self.untold(case, outcomes, steps.DROPPED, targets, now)
        # RFC 3461 section 6.2: without a failure only the header is returned.
        whole = Result.FAILED in results and self._is_returned(message)
        content = await self._read(case, self.settings.return_size if whole else HEADER_LIMIT)
        # Unique without chance: of a recipient of a message the same is told once, or at another time.
        key = reported[0].recipient.key
        message_id = f"<{message.queue_id}.{key}.{int(now * 1000)}@{self._hostname}>"
        composed = compose(
            message,
            reader,
            reported,
            content,
            whole=whole and len(content) == message.size,
            hostname=self._hostname,
            now=now,
            message_id=message_id,
            others=others,
        )
        envelope = Envelope(None, composed.body, composed.smtputf8, options=_options(message))
        report = Report(envelope, composed.octets, tuple(targets), Origin(message_id=message_id))
        return report, steps.reported(message, reader, _gravest(outcomes), now)

    def untold(self, case: Case, outcomes: Sequence[Outcome], why: str, text: str, now: float) -> Event:
        """The step for a report that is put off or dropped: see `steps.untold`."""
        return steps.untold(case.message, case.reader or _POSTMASTER, why, _gravest(outcomes), text, now)

    def _is_returned(self, message: Message) -> bool:
        """Whether all of a message that fails is returned (RFC 3461 section 4.3)."""
        options = message.envelope.options
        wanted = message.envelope.reverse_path is None or options.ret is Return.FULL
        return wanted and not options.require_tls and message.size <= self.settings.return_size

    async def _targets(self, message: Message, reader: Address) -> Sequence[Target] | str:
        """Where the report goes, or why it goes nowhere."""
        try:
            targets: Sequence[Target] = await self._router.resolve(
                reader, None, trusted=True, sender=None, is_report=True
            )
        except Refused as refused:
            if refused.reply.is_transient:  # a customer whose mail is held is over quota, or cannot be asked
                raise DirectoryUnavailable(f"no report to <{reader}>: {refused.reply}") from None
            self._log.warn(
                "{queue_id}: no report to <{reader}>: {reply}",
                queue_id=message.queue_id,
                reader=plain(str(reader)),
                reply=str(refused.reply),
            )
            return str(refused.reply)
        return targets or "nobody would get it"

    async def _read(self, case: Case, limit: int) -> bytes:
        octets = case.content.in_memory()
        if octets is not None:
            return octets[:limit]
        chunks: list[bytes] = []
        try:
            while limit > 0 and (chunk := await case.content.read(sum(map(len, chunks)), limit)):
                chunks.append(chunk)
                limit -= len(chunk)
        except OSError as error:  # the sender is told all the same
            self._log.error(
                "{queue_id}: cannot read the header: {error}", queue_id=case.message.queue_id, error=str(error)
            )
        return b"".join(chunks)


def _gravest(outcomes: Sequence[Outcome]) -> Result:
    results = {outcome.result for outcome in outcomes}
    return next(result for result in _GRAVEST if result in results)


def _is_for_postmaster(recipient: Recipient) -> bool:
    addresses = chain([recipient.address], () if recipient.original is None else [recipient.original])
    return any(address.local_part.lower() == _POSTMASTER.local_part for address in addresses)


def _options(message: Message) -> MessageOptions:
    """What is asked for a report: RFC 6710 section 4.6, RFC 8689 section 5."""
    options = message.envelope.options
    if options is PLAIN:
        return PLAIN
    return MessageOptions(require_tls=options.require_tls, priority=options.priority)
