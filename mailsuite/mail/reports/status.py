"""The part of a report that programs read: message/delivery-status (RFC 3464 section 2), or its UTF-8 form (RFC 6533).

An Original-Recipient is what the sender's ORCPT has said, and only that (RFC 3461 section 6.3). The address that he
gave, where an alias led elsewhere, has a field of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mailsuite.mail.options import Notify
from mailsuite.mail.queue import Message, Outcome, Recipient, Result
from mailsuite.mail.reports.fields import ascii_line, field, mta_name, one_line, original_recipient, typed_address
from mailsuite.mail.trace import date_time

EVENTS = {
    Result.FAILED: Notify.FAILURE,
    Result.DEFERRED: Notify.DELAY,
    Result.DELIVERED: Notify.SUCCESS,
    Result.RELAYED: Notify.SUCCESS,
}
"""What a sender may ask to be told of, by what has happened (RFC 3461 section 4.1)."""


class Reported(NamedTuple):
    """A recipient that a report tells of: what became of it in the attempt that ended `at` some time.

    `until` is how long the delivery of a delayed one will be tried. `before` is what the attempt before came to, where
    this outcome was none.
    """

    recipient: Recipient
    outcome: Outcome
    at: float
    until: float | None = None
    before: str | None = None


def status_fields(message: Message, reported: Sequence[Reported], hostname: str, *, utf8: bool) -> str:
    """The fields of the message, then a group of fields for each recipient (RFC 3464 section 2.1)."""
    return "\r\n".join([_of_message(message, hostname), *(_of_recipient(one, utf8=utf8) for one in reported)])


def _of_message(message: Message, hostname: str) -> str:
    options = message.envelope.options
    fields = []
    if options.envid is not None:  # RFC 3464 section 2.2.1: as it was given, and only where it was
        fields.append(field("Original-Envelope-Id", ascii_line(options.envid)))
    fields.append(field("Reporting-MTA", f"dns; {hostname}"))
    fields.append(field("Arrival-Date", date_time(message.arrived)))
    if options.deliver_by is not None:
        fields.append(field("Deliver-By-Date", date_time(options.deliver_by)))  # RFC 2852 section 5
    fields.append(field("X-Queue-Id", ascii_line(message.queue_id)))
    return "".join(fields)


def _of_recipient(reported: Reported, *, utf8: bool) -> str:
    recipient, outcome = reported.recipient, reported.outcome
    fields = []
    orcpt = recipient.options.orcpt
    original = None if orcpt is None else original_recipient(orcpt, utf8=utf8)
    if original is not None:
        fields.append(field("Original-Recipient", original))
    fields.append(field("Final-Recipient", typed_address(recipient.address, utf8=utf8)))
    fields.append(field("Action", outcome.result.value))
    fields.append(field("Status", str(outcome.status)))
    if outcome.remote is not None:  # RFC 3464 section 2.3.5: only where a remote host was involved
        fields.append(field("Remote-MTA", f"dns; {mta_name(outcome.remote)}"))
    if outcome.reply is not None:
        said = (one_line if utf8 else ascii_line)(str(outcome.reply))
        fields.append(field("Diagnostic-Code", f"smtp; {said}"))
    fields.append(field("Last-Attempt-Date", date_time(reported.at)))
    if reported.until is not None and outcome.result is Result.DEFERRED:
        # RFC 3464 section 2.3.9: in no other report.
        fields.append(field("Will-Retry-Until", date_time(reported.until)))
    if recipient.original is not None:
        fields.append(field("X-Original-Recipient", typed_address(recipient.original, utf8=utf8)))
    return "".join(fields)
