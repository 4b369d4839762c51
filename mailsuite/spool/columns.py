"""Envelopes and targets as columns, for transactions that are kept under a name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.route import Destination, Target
from mailsuite.spool.entry import Row

ENVELOPE = "reverse_local_part, reverse_domain, body, smtputf8, submitter"


def envelope_row(envelope: Envelope) -> Row:
    """The columns of `ENVELOPE`."""
    reverse = envelope.reverse_path
    return (
        None if reverse is None else reverse.local_part,
        None if reverse is None else reverse.domain,
        envelope.body.value,
        envelope.smtputf8,
        envelope.submitter,
    )


def envelope_of(row: Row) -> Envelope:
    """The envelope of these columns."""
    local_part, domain, body, smtputf8, submitter = row
    return Envelope(_address(local_part, domain), Body(body), bool(smtputf8), submitter)


def targets_text(targets: Sequence[Target]) -> str:
    """Targets as JSON."""
    return json.dumps([_plain(target) for target in targets], separators=(",", ":"))


def targets_of(text: str) -> tuple[Target, ...]:
    """The targets of such a text."""
    return tuple(
        Target(Address(local_part, domain), Destination.parse(destination), _address(original, original_domain))
        for local_part, domain, destination, original, original_domain in json.loads(text)
    )


def _plain(target: Target) -> list[str | None]:
    address, original = target.address, target.original
    return [
        address.local_part,
        address.domain,
        str(target.destination),
        None if original is None else original.local_part,
        None if original is None else original.domain,
    ]


def _address(local_part: str | None, domain: str | None) -> Address | None:
    return None if local_part is None or domain is None else Address(local_part, domain)
