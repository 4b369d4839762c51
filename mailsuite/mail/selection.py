"""Which of what is queued is meant, and what is to be done with it: what an operator says to the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mailsuite.mail.address import Address
from mailsuite.mail.queue import Message
from mailsuite.mail.route import Destination


class QueueState(StrEnum):
    """How a recipient stands in the queue."""

    WAITING = "waiting"  # not due yet: deferred, or for later
    DUE = "due"
    ACTIVE = "active"  # under lease: being delivered, or ready to be
    ON_HOLD = "on hold"  # an operator said so, or a defect was met: nothing happens before a release
    FOR_CUSTOMER = "for customer"  # under a `hold` destination, until it is asked for


class QueueAction(StrEnum):
    """What to do with recipients that wait."""

    HOLD = "hold"  # leave them alone until `RELEASE`
    RELEASE = "release"  # end a hold; due now
    RETRY = "retry"  # due now
    REQUEUE = "requeue"  # end a hold, forget the attempts, ask the router anew; due now
    EXPIRE = "expire"  # return them to the sender at once, as if their time were over
    DELETE = "delete"  # take them out of the queue, and tell nobody


@dataclass(frozen=True, slots=True)
class Selection:
    """What is meant: recipients that meet every condition that is there; without any, all of them.

    `sender` and `recipient` are addresses or parts of one, with `*` for anything, whatever the case; `sender` "<>" is
    the null reverse-path. `domain` is the recipients' (a domain key; `.example.org` for those below). `older_than` and
    `younger_than` are seconds since the arrival, `larger_than` and `smaller_than` octets. `error` stands somewhere in
    what the last attempt came to, whatever the case. `keys` are recipients, as `ISpool.leased` names them; None is for
    any.
    """

    ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    destination: Destination | None = None
    state: QueueState | None = None
    older_than: float | None = None
    younger_than: float | None = None
    larger_than: int | None = None
    smaller_than: int | None = None
    error: str | None = None
    keys: tuple[int, ...] | None = None

    @property
    def is_everything(self) -> bool:
        """Whether there is no condition at all."""
        return self == EVERYTHING


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """A recipient as it stands in the queue. `due` is when it is tried next; `last_*` what came of the last attempt."""

    address: Address
    destination: Destination
    state: QueueState
    due: float
    attempts: int = 0
    original: Address | None = None
    last_attempt: float | None = None
    last_status: str | None = None
    last_text: str | None = None
    last_remote: str | None = None


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message of the queue, with those of its recipients that were selected."""

    message: Message
    recipients: Sequence[QueuedRecipient]


@dataclass(frozen=True, slots=True)
class DestinationLoad:
    """How much there is for a destination: `ages` counts messages by age, see `AGE_STEPS`; `next_due` is the earliest.

    `error` is what the last attempt came to, of the recipient that was tried last.
    """

    destination: Destination
    messages: int
    recipients: int
    octets: int
    oldest: float
    next_due: float
    on_hold: int = 0
    active: int = 0
    error: str | None = None
    ages: Sequence[int] = field(default_factory=tuple)


AGE_STEPS = (300.0, 3600.0, 6 * 3600.0, 86400.0, 5 * 86400.0)
"""Seconds: messages up to each age, and in the end those that are older."""


@dataclass(frozen=True, slots=True)
class Met:
    """Where recipients go, and who they are."""

    destinations: frozenset[Destination]
    addresses: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Managed:
    """What an action has changed: messages and recipients; `busy` recipients were under way, and stay as they are."""

    messages: int
    recipients: int
    busy: int = 0
