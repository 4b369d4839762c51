"""Events: every step of a message, a turn or a pull, as it is written down and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    """What happened.

    The steps of a message have its `queue_id`, and are kept until a set time after the message has gone.
    """

    # Of a message. `detail` is told in `mailsuite.mail.steps`.
    RECEIVED = "received"  # it was accepted, or composed by us; subject: the reverse-path
    ATTEMPT = "attempt"  # some of its recipients were tried; subject: the destination
    REPORTED = "reported"  # a report on it was queued, put off, or dropped; subject: who gets it
    ROUTED = "routed"  # some of its recipients go elsewhere from now on; subject: the new destination
    FAULT = "fault"  # a defect was met, and what was under way is on hold; the traceback is in the detail
    MANAGED = "managed"  # an operator did something with it; subject: the action

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

    `detail` is what JSON can hold, under short names: counts, seconds, octets, a text in a sentence (`text`); in steps
    of a message lists and tables too.
    """

    time: float
    kind: EventKind
    subject: str | None = None
    queue_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
