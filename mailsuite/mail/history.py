"""Events: every step of a message, a turn or a pull, as it is written down and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    """What happened."""

    TURN = "turn"  # a customer's turn (ATRN, TURN) has ended; subject: the customer
    ETRN = "etrn"  # a node was asked for; subject: the customer, or the node
    PULL = "pull"  # a pull has ended; subject: its name
    WARNED = "warned"  # a customer was warned of mail that is about to expire; subject: the customer
    EXPIRED = "expired"  # held mail was returned; subject: the customer
    SEEN = "seen"  # a customer asked for a turn, and there was no mail; subject: the customer
    LOGIN_REFUSED = "login refused"  # somebody failed to log in as a customer; subject: the customer


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `time` is a POSIX timestamp; `queue_id` names a message, `subject` who else it is about.

    `detail` is what JSON can hold, under short names: counts, seconds, octets, a text in a sentence (`text`).
    """

    time: float
    kind: EventKind
    subject: str | None = None
    queue_id: str | None = None
    detail: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
