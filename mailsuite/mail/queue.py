"""What stands in the relay queue: a message, its recipients, and what became of them.

Times are POSIX timestamps in seconds (float), sizes are octets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mailsuite.mail.address import Address
from mailsuite.mail.content import Content
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.status import EnhancedStatus


@dataclass(frozen=True, slots=True)
class Message:
    """One accepted message, apart from its recipients."""

    queue_id: str
    envelope: Envelope
    size: int
    arrived: float


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient that waits. `key` is the spool's own; `attempts` counts those that ended in a deferral."""

    key: int
    address: Address
    original: Address | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message with those of its recipients that go to one destination, under lease to whoever holds it.

    `replayed` says that an earlier lease ended without an outcome (a crash): an agent then looks whether the
    delivery has already been made.
    """

    message: Message
    destination: Destination
    recipients: tuple[Recipient, ...]
    content: Content
    replayed: bool = False


class Result(StrEnum):
    """What an attempt came to, in the words of RFC 3464 section 2.3.3 where it has one."""

    DELIVERED = "delivered"
    RELAYED = "relayed"
    DEFERRED = "delayed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient in one attempt.

    `reply` is the remote's reply where there was one, `remote` the name of the host that gave it; `text` says in
    our words what happened. `next_attempt` (a timestamp) is set by the scheduler on deferred outcomes.
    """

    result: Result
    status: EnhancedStatus
    text: str
    reply: Reply | None = None
    remote: str | None = None
    next_attempt: float | None = None

    @classmethod
    def of_reply(cls, reply: Reply, remote: str | None = None) -> Outcome:
        """Judge a recipient by the class of the peer's reply (RFC 5321 section 4.2.1)."""
        if reply.is_positive:
            result, class_ = Result.RELAYED, 2
        elif reply.is_permanent:
            result, class_ = Result.FAILED, 5
        else:
            result, class_ = Result.DEFERRED, 4
        status = reply.status if reply.status is not None else EnhancedStatus(class_, 0, 0)
        return cls(result, status.of_class(class_), reply.text, reply, remote)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to write down at once, in one transaction, about one delivery.

    `outcomes` are in the order of `delivery.recipients`. Delivered, relayed and failed recipients leave the queue,
    deferred ones are due again at their `next_attempt` and their attempts count up. `reports` are messages of our own
    (bounces) that enter the queue in the same transaction.
    """

    delivery: Delivery
    outcomes: Sequence[Outcome]
    reports: Sequence[Report] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class HeldMail:
    """What is held for one domain, under lease or not. `oldest` is when the first of it arrived."""

    domain: str
    messages: int
    octets: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Report:
    """A message that we compose ourselves, to be queued: a delivery status notification (RFC 3464)."""

    envelope: Envelope
    content: bytes
    targets: tuple[Target, ...]
