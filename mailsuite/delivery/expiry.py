"""What is over before it is tried: recipients that an operator has given up, mail that came too late (RFC 2852).

No agent sees any of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from mailsuite.delivery.retry import deadline_of
from mailsuite.mail.options import PLAIN
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import EXPIRED
from mailsuite.mail.status import EnhancedStatus

# RFC 3464 section 2.3.3: the action is failed, the status that of a temporary failure.
GIVEN_UP: Final = Outcome(
    Result.FAILED, EnhancedStatus(4, 4, 7), "The postmaster has ended the attempts to deliver the message"
)
TOO_LATE: Final = Outcome(  # RFC 2852 section 4.1.3
    Result.FAILED, EnhancedStatus(5, 4, 7), "The message was not delivered by the time that its sender has set"
)


def sort_out(deliveries: Iterable[Delivery], now: float) -> tuple[list[Delivery], list[tuple[Delivery, Outcome]]]:
    """What is to be delivered; and what is not, with the outcome for all recipients of each.

    A delivery of which only some recipients were given up is taken apart.
    """
    live: list[Delivery] = []
    over: list[tuple[Delivery, Outcome]] = []
    for delivery in deliveries:
        if _is_late(delivery, now):
            over.append((delivery, TOO_LATE))
        elif delivery.destination.agent == EXPIRED:
            over.append((delivery, GIVEN_UP))
        elif any(recipient.expired for recipient in delivery.recipients):
            given_up = tuple(recipient for recipient in delivery.recipients if recipient.expired)
            others = tuple(recipient for recipient in delivery.recipients if not recipient.expired)
            over.append((replace(delivery, recipients=given_up), GIVEN_UP))
            if others:
                live.append(replace(delivery, recipients=others))
        else:
            live.append(delivery)
    return live, over


def _is_late(delivery: Delivery, now: float) -> bool:
    message = delivery.message
    if message.envelope.options is PLAIN:
        return False
    deadline = deadline_of(message)
    return deadline is not None and deadline <= now
