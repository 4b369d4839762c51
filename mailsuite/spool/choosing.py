"""What an operator means by a selection, as conditions for SQL."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from mailsuite.mail.selection import QueueState, Selection
from mailsuite.spool.patterns import address_part, contains, domains, stars
from mailsuite.spool.schema import ON_HOLD

_IS_HELD: Final = "(recipients.destination >= 'hold:' AND recipients.destination < 'hold;')"
_STATES: Final = {
    QueueState.WAITING: f"recipients.lease_owner IS NULL AND recipients.due > :now AND NOT {_IS_HELD}",
    QueueState.DUE: f"recipients.lease_owner IS NULL AND recipients.due <= :now AND NOT {_IS_HELD}",
    QueueState.ACTIVE: f"recipients.lease_owner <> {ON_HOLD}",
    QueueState.ON_HOLD: f"recipients.lease_owner = {ON_HOLD}",
    QueueState.FOR_CUSTOMER: f"recipients.lease_owner IS NULL AND {_IS_HELD}",
}
_SAID: Final = (
    "recipients.last_status || ' ' || coalesce(recipients.last_remote, '') || ' ' || coalesce(recipients.last_text, '')"
)


_MEASURES: Final = {
    "older_than": "messages.arrived <= :now - :older_than",
    "younger_than": "messages.arrived > :now - :younger_than",
    "larger_than": "messages.size > :larger_than",
    "smaller_than": "messages.size < :smaller_than",
}
_BELOW: Final = "(recipients.domain LIKE :domain ESCAPE '!' OR recipients.domain LIKE :other ESCAPE '!')"


class Conditions(NamedTuple):
    """Conditions on a row of `messages`, and on one of `recipients` beside it; with the values of their parameters."""

    message: str
    recipient: str
    values: dict[str, Any]


def conditions(selection: Selection, now: float) -> Conditions:
    """What must be true of what is meant."""
    message: list[str] = []
    values: dict[str, Any] = {"now": now, "ids": json.dumps(selection.ids)}
    if selection.ids:
        message.append("messages.queue_id IN (SELECT value FROM json_each(:ids))")
    for name, condition in _MEASURES.items():
        value = getattr(selection, name)
        if value is not None:
            message.append(condition)
            values[name] = value
    if selection.sender == "<>":
        message.append("messages.reverse_local_part IS NULL")
    recipient = _of_recipients(selection, values)
    return Conditions(" AND ".join(message) or "TRUE", " AND ".join(recipient) or "TRUE", values)


def _of_recipients(selection: Selection, values: dict[str, Any]) -> list[str]:
    where: list[str] = []
    if selection.sender is not None and selection.sender != "<>":
        where.append(f"({_like('messages.reverse_', ':sender')} OR {_like('recipients.reverse_', ':sender')})")
        values["sender"] = address_part(selection.sender)
    if selection.recipient is not None:
        where.append(_like("recipients.", ":recipient"))
        values["recipient"] = address_part(selection.recipient)
    if selection.domain is not None:
        below = selection.domain.startswith(".")
        written = [f"%{stars(one)}" if below else one for one in domains(selection.domain)]
        values.update(domain=written[0], other=written[-1])  # A-labels, U-labels
        where.append(_BELOW if below else "lower(recipients.domain) IN (:domain, :other)")
    if selection.keys is not None:
        where.append("recipients.key IN (SELECT value FROM json_each(:keys))")
        values["keys"] = json.dumps(selection.keys)
    if selection.destination is not None:
        where.append("recipients.destination = :destination")
        values["destination"] = str(selection.destination)
    if selection.state is not None:
        where.append(f"({_STATES[selection.state]})")
    if selection.error is not None:
        where.append(f"{_SAID} LIKE :error ESCAPE '!'")
        values["error"] = contains(selection.error)
    return where


def _like(column: str, value: str) -> str:
    return f"{column}local_part || '@' || {column}domain LIKE {value} ESCAPE '!'"
