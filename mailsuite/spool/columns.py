"""Envelopes, messages, options and targets as columns."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.options import NO_WISHES, PLAIN, MessageOptions, RecipientOptions
from mailsuite.mail.queue import Message
from mailsuite.mail.route import Destination, Target
from mailsuite.spool.rows import Row

ENVELOPE = "reverse_local_part, reverse_domain, body, smtputf8, submitter, options"
ENVELOPE_WIDTH = 6
MESSAGE = f"key, queue_id, arrived, size, in_file, {ENVELOPE}"


def envelope_row(envelope: Envelope) -> Row:
    """The columns of `ENVELOPE`."""
    reverse = envelope.reverse_path
    return (
        None if reverse is None else reverse.local_part,
        None if reverse is None else reverse.domain,
        envelope.body.value,
        envelope.smtputf8,
        envelope.submitter,
        message_options(envelope.options),
    )


def envelope_of(row: Row) -> Envelope:
    """The envelope of these columns."""
    local_part, domain, body, smtputf8, submitter, options = row
    asked = PLAIN if options is None else MessageOptions.from_text(options)
    return Envelope(address_of(local_part, domain), Body(body), bool(smtputf8), submitter, asked)


def message_of(row: Row) -> Message:
    """The message of the columns `MESSAGE`."""
    return Message(row[1], envelope_of(row[5:]), row[3], row[2])


def message_options(options: MessageOptions) -> str | None:
    """As a column; nearly always None."""
    return None if options is PLAIN else options.to_text() or None


def recipient_options(options: RecipientOptions) -> str | None:
    """As a column; nearly always None."""
    return None if options is NO_WISHES else options.to_text() or None


def targets_text(targets: Sequence[Target]) -> str:
    """Targets as JSON."""
    return json.dumps([_plain(target) for target in targets], separators=(",", ":"))


def targets_of(text: str) -> tuple[Target, ...]:
    """The targets of such a text."""
    return tuple(_target(*values) for values in json.loads(text))


def _plain(target: Target) -> list[str | None]:
    address, original, reverse = target.address, target.original, target.reverse_path
    values = [
        address.local_part,
        address.domain,
        str(target.destination),
        None if original is None else original.local_part,
        None if original is None else original.domain,
    ]
    more = [
        recipient_options(target.options),
        None if reverse is None else reverse.local_part,
        None if reverse is None else reverse.domain,
        target.rule or None,
    ]
    return [*values, *more] if any(more) else values


def _target(  # noqa: PLR0913, PLR0917 - columns
    local_part: str,
    domain: str,
    destination: str,
    original: str | None,
    original_domain: str | None,
    options: str | None = None,
    reverse: str | None = None,
    reverse_domain: str | None = None,
    rule: str | None = None,
) -> Target:
    return Target(
        Address(local_part, domain),
        Destination.parse(destination),
        address_of(original, original_domain),
        NO_WISHES if options is None else RecipientOptions.from_text(options),
        address_of(reverse, reverse_domain),
        rule or "",
    )


def address_of(local_part: str | None, domain: str | None) -> Address | None:
    """The address of two columns, which are both NULL where there is none."""
    return None if local_part is None or domain is None else Address(local_part, domain)
