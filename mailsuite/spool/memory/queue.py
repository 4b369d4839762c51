"""Recipients in the queue of a spool in memory, and how they are looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Result
from mailsuite.mail.route import EXPIRED, HOLD, Destination
from mailsuite.mail.selection import (
    AGE_STEPS,
    DestinationLoad,
    QueueAction,
    QueuedMessage,
    QueuedRecipient,
    QueueState,
    Selection,
)
from mailsuite.spool.patterns import address_part, contains, fits


@dataclass(slots=True)
class Waiting:
    """A recipient in the queue: waits, or is `leased`, or on hold."""

    message: Message
    content: MemoryContent
    recipient: Recipient
    destination: Destination
    due: float
    leased: bool = False
    on_hold: bool = False
    replayed: bool = False
    last_attempt: float | None = None
    last: Outcome | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is for a customer."""
        return self.destination.agent == HOLD

    @property
    def waits(self) -> bool:
        """Whether it may be claimed, in its time."""
        return not self.leased and not self.on_hold

    @property
    def order(self) -> tuple[int, float, str, int]:
        """Higher priority first, then the longest due; under hold, where nothing is due, the oldest."""
        if self.is_held:
            return 0, self.message.arrived, self.message.queue_id, self.recipient.key
        return -self.message.envelope.options.priority, self.due, self.message.queue_id, self.recipient.key

    @property
    def together(self) -> tuple[str, Destination, Address | None, bool]:
        """What is the same for all recipients of a delivery."""
        return self.message.queue_id, self.destination, self.recipient.reverse_path, self.recipient.expired

    def not_before(self, now: float) -> float:
        """Now, or when its sender wants it to be sent (RFC 4865)."""
        return max(now, self.message.envelope.options.hold_until or now)

    def keep_back(self, outcome: Outcome) -> None:
        """It has failed, and stays for its report alone."""
        failure = replace(outcome, result=Result.FAILED, reply=None, next_attempt=None, via=None)
        self.recipient = replace(self.recipient, expired=True, failure=failure)
        if self.is_held:
            self.destination = Destination(EXPIRED, self.destination.name)

    def state(self, now: float) -> QueueState:
        """How it stands."""
        if self.leased:
            return QueueState.ACTIVE
        if self.on_hold:
            return QueueState.ON_HOLD
        if self.is_held:
            return QueueState.FOR_CUSTOMER
        return QueueState.DUE if self.due <= now else QueueState.WAITING

    def queued(self, now: float) -> QueuedRecipient:
        """As it is shown."""
        one, last = self.recipient, self.last
        return QueuedRecipient(
            one.address,
            self.destination,
            self.state(now),
            self.message.arrived if self.is_held else self.due,
            one.attempts,
            one.original,
            self.last_attempt,
            None if last is None else str(last.status),
            None if last is None else last.text,
            None if last is None else last.remote,
        )


def delivery(together: Sequence[Waiting]) -> Delivery:
    """The delivery of these recipients."""
    first = together[0]
    together = sorted(together, key=lambda one: one.recipient.key)
    recipients = tuple(one.recipient for one in together)
    replayed = any(one.replayed for one in together)
    return Delivery(first.message, first.destination, recipients, first.content, replayed)


def selected(waiting: Iterable[Waiting], selection: Selection, now: float) -> list[Waiting]:
    """Those that are meant, by queue id."""
    found = [one for one in waiting if _is_meant(one, selection, now)]
    found.sort(key=lambda one: (one.message.queue_id, one.recipient.key))
    return found


def by_message(found: Iterable[Waiting], now: float) -> list[QueuedMessage]:
    """What was selected, as it is shown."""
    return [
        QueuedMessage(recipients[0].message, tuple(one.queued(now) for one in recipients))
        for recipients in (list(group) for _, group in groupby(found, lambda one: one.message.queue_id))
    ]


def manage(action: QueueAction, one: Waiting, now: float) -> bool:
    """Do what an operator says, but for taking it away; whether that concerns this one as it stands."""
    if action is QueueAction.DELETE:
        return True
    if action is QueueAction.HOLD:
        concerned, one.on_hold = not one.on_hold, True
        return concerned
    if action is QueueAction.RELEASE and not one.on_hold:
        return False
    if action is QueueAction.RETRY and (one.on_hold or one.is_held):
        return False
    if action is QueueAction.RETRY and one.due > now:
        # What comes too early must not lengthen the waits: it takes the place of the attempt before it.
        one.recipient = replace(one.recipient, attempts=max(one.recipient.attempts - 1, 0))
    if action is QueueAction.EXPIRE:
        one.recipient = replace(one.recipient, expired=True)
        if one.is_held:
            one.destination = Destination(EXPIRED, one.destination.name)
    elif action is QueueAction.REQUEUE:
        one.recipient = replace(one.recipient, expired=False, failure=None, attempts=0)
        one.last_attempt = one.last = None
        if one.destination.agent == EXPIRED:
            one.destination = Destination(HOLD, one.destination.name)
    one.on_hold = False
    one.due = min(one.due, now if action is QueueAction.EXPIRE else one.not_before(now))
    return True


def loads(waiting: Iterable[Waiting], now: float) -> list[DestinationLoad]:
    """See `ISpool.loads`."""
    destinations: dict[Destination, list[Waiting]] = {}
    for one in waiting:
        destinations.setdefault(one.destination, []).append(one)
    found = [_load(destination, ones, now) for destination, ones in destinations.items()]
    found.sort(key=lambda load: (-load.messages, str(load.destination)))
    return found


def _load(destination: Destination, ones: Sequence[Waiting], now: float) -> DestinationLoad:
    messages = {one.message.queue_id: one.message for one in ones}
    ages = [0] * (len(AGE_STEPS) + 1)
    for message in messages.values():
        ages[sum(now - message.arrived > step for step in AGE_STEPS)] += 1
    tried = [one for one in ones if one.last_attempt is not None]
    last = max(tried, key=lambda one: one.last_attempt or 0).last if tried else None
    return DestinationLoad(
        destination,
        len(messages),
        len(ones),
        sum(message.size for message in messages.values()),
        min(message.arrived for message in messages.values()),
        min([one.queued(now).due for one in ones if one.waits] or [one.queued(now).due for one in ones]),
        sum(one.on_hold for one in ones),
        sum(one.leased for one in ones),
        None if last is None else last.text,
        tuple(ages),
    )


def _is_meant(one: Waiting, selection: Selection, now: float) -> bool:
    message, last = one.message, one.last
    age = now - message.arrived
    domain, address = selection.domain, one.recipient.address
    said = "" if last is None else f"{last.status} {last.remote or ''} {last.text}"
    return (
        (not selection.ids or message.queue_id in selection.ids)
        and (selection.keys is None or one.recipient.key in selection.keys)
        and (selection.sender is None or _is_from(one, selection.sender))
        and (selection.recipient is None or _fits(address_part(selection.recipient), address))
        and (domain is None or address.domain_key == domain or _is_below(address.domain_key, domain))
        and selection.destination in (None, one.destination)
        and selection.state in (None, one.state(now))
        and age >= (selection.older_than or -math.inf)
        and age < (math.inf if selection.younger_than is None else selection.younger_than)
        and message.size > (-1 if selection.larger_than is None else selection.larger_than)
        and message.size < (math.inf if selection.smaller_than is None else selection.smaller_than)
        and (selection.error is None or (last is not None and fits(contains(selection.error), said)))
    )


def _is_below(domain: str, pattern: str) -> bool:
    return pattern.startswith(".") and domain.endswith(pattern)


def _is_from(one: Waiting, sender: str) -> bool:
    reverse_path = one.message.envelope.reverse_path
    if sender == "<>":
        return reverse_path is None
    pattern = address_part(sender)
    return any(_fits(pattern, path) for path in (reverse_path, one.recipient.reverse_path) if path is not None)


def _fits(pattern: str, address: Address) -> bool:
    return fits(pattern, f"{address.local_part}@{address.domain}")
