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
from mailsuite.mail.history import Event
from mailsuite.mail.options import NO_WISHES, RecipientOptions
from mailsuite.mail.origin import Origin
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.session import TLSFacts
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
    """One recipient that waits. `key` is the spool's own; `attempts` counts those that ended in a deferral.

    `reverse_path` and `options` are as in `mail.route.Target`. `delay_told`: the sender has had a report on the delay.
    `expired`: an operator has said that its time is over; it is returned without another attempt. `failure` is what it
    came to where it has failed, and only its report is missing: then it is `expired` too.
    """

    key: int
    address: Address
    original: Address | None = None
    attempts: int = 0
    options: RecipientOptions = NO_WISHES
    reverse_path: Address | None = None
    delay_told: bool = False
    expired: bool = False
    failure: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message with those of its recipients that go to one destination, under lease to whoever holds it.

    `replayed` says that an earlier lease ended without an outcome (a crash): an agent then looks whether the
    delivery has already been made. All recipients of a delivery have one reverse-path.
    """

    message: Message
    destination: Destination
    recipients: tuple[Recipient, ...]
    content: Content
    replayed: bool = False

    @property
    def reverse_path(self) -> Address | None:
        """Who is named as the sender to these recipients, and hears what became of them."""
        return self.recipients[0].reverse_path or self.message.envelope.reverse_path


class Result(StrEnum):
    """What an attempt came to, in the words of RFC 3464 section 2.3.3 where it has one."""

    DELIVERED = "delivered"
    RELAYED = "relayed"
    DEFERRED = "delayed"
    FAILED = "failed"
    HELD = "held"  # a defect was met: nothing more happens before an operator has looked


@dataclass(frozen=True, slots=True)
class Via:
    """The connection that an attempt was made on, for the history. `address` is an IP address or a socket's path.

    `policy` is what TLS had to be by which source, as in `dane` or `mta-sts`.
    """

    host: str
    address: str = ""
    port: int = 0
    tls: TLSFacts | None = None
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient in one attempt.

    `reply` is the remote's reply where there was one, `remote` the name of the host that gave it; `text` says in
    our words what happened. `next_attempt` (a timestamp) is set by the scheduler on deferred outcomes. `via` is the
    connection, where there was one. `dsn_passed_on` says that whoever has the message now reports on it (RFC 3461
    section 5.2.2): else a sender who wants to hear of success is told that it was relayed.
    """

    result: Result
    status: EnhancedStatus
    text: str
    reply: Reply | None = None
    remote: str | None = None
    next_attempt: float | None = None
    via: Via | None = None
    dsn_passed_on: bool = False

    @classmethod
    def of_reply(
        cls, reply: Reply, remote: str | None = None, via: Via | None = None, *, dsn_passed_on: bool = False
    ) -> Outcome:
        """Judge a recipient by the class of the peer's reply (RFC 5321 section 4.2.1).

        `dsn_passed_on` counts where that is positive.
        """
        if reply.is_positive:
            result, class_ = Result.RELAYED, 2
        elif reply.is_permanent:
            result, class_ = Result.FAILED, 5
        else:
            result, class_ = Result.DEFERRED, 4
        status = reply.status if reply.status is not None else EnhancedStatus(class_, 0, 0)
        return cls(result, status.of_class(class_), reply.text, reply, remote, None, via, dsn_passed_on and class_ == 2)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to write down at once, in one transaction, about one delivery.

    `outcomes` are in the order of `delivery.recipients`. Delivered, relayed and failed recipients leave the queue,
    deferred ones are due again at their `next_attempt` and their attempts count up, held ones wait for an operator.
    `reports` are messages of our own (bounces) that enter the queue in the same transaction. `delay_told` are the keys
    of recipients whose sender they tell of a delay. `events` are written down in it too. `unreported` are the keys of
    recipients that have failed and stay for their report: their outcomes say deferred, and what else they came to; at
    `next_attempt` they come back with that as their `failure`, `expired`, so that no agent sees them.
    """

    delivery: Delivery
    outcomes: Sequence[Outcome]
    reports: Sequence[Report] = field(default_factory=tuple)
    delay_told: Sequence[int] = ()
    events: Sequence[Event] = ()
    unreported: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class HeldMail:
    """What is held for one domain, under lease or not. `oldest` is when the first of it arrived."""

    domain: str
    messages: int
    octets: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Report:
    """A message that we compose ourselves, to be queued: a delivery status notification (RFC 3464).

    `origin` is what the history has of it, where there is something to tell.
    """

    envelope: Envelope
    content: bytes
    targets: tuple[Target, ...]
    origin: Origin | None = None
