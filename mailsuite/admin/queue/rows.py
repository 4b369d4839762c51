"""Messages of the queue, their recipients and destinations: as JSON has them, and as people read them.

In JSON times are POSIX timestamps, sizes octets; what is not known is null. `SHOWN` recipients of a message are listed
for people, all in JSON. Whatever a peer may have had a hand in goes to terminals without its control characters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from mailsuite.admin.output import in_units, plain
from mailsuite.mail.options import MessageOptions, Notify
from mailsuite.mail.route import EXPIRED, Destination
from mailsuite.mail.selection import QueuedMessage, QueuedRecipient, QueueState

Trouble = Callable[[Destination], str | None]
"""What is wrong with a destination as a whole; None where nothing is, or nobody knows."""

SHOWN: Final = 5
_LONGEST_WORDS: Final = 160  # characters of a peer's words in a table
LIST_TITLES: Final = {
    "queue_id": "Queue id",
    "age": "Age",
    "size": "Size",
    "sender": "Sender",
    "recipient": "Recipient",
    "state": "State",
    "why": "What the last attempt came to",
}


# ------------------------------------------------------------------------------------------ for programs


def message_row(queued: QueuedMessage) -> dict[str, Any]:
    """A message with its recipients. `reverse_path` is empty for the null one."""
    message, envelope = queued.message, queued.message.envelope
    return {
        "queue_id": message.queue_id,
        "arrived": message.arrived,
        "size": message.size,
        "sender": str(envelope.reverse_path or ""),
        "submitter": envelope.submitter,
        "body": envelope.body.value,
        "smtputf8": envelope.smtputf8,
        "options": options_row(envelope.options),
        "recipients": [recipient_row(one) for one in queued.recipients],
    }


def options_row(options: MessageOptions) -> dict[str, Any]:
    """What was asked for a message beside the addresses, without what was not."""
    asked = {name: getattr(options, name) for name in MessageOptions.__slots__}
    nothing = MessageOptions()
    return {name: value for name, value in asked.items() if value != getattr(nothing, name)}


def recipient_row(one: QueuedRecipient) -> dict[str, Any]:
    """A recipient."""
    return {
        "address": str(one.address),
        "original": None if one.original is None else str(one.original),
        "destination": str(one.destination),
        "state": one.state.value,
        "due": one.due,
        "attempts": one.attempts,
        "last_attempt": one.last_attempt,
        "last_status": one.last_status,
        "last_text": one.last_text,
        "last_remote": one.last_remote,
    }


# -------------------------------------------------------------------------------------------- for people


def list_rows(queued: Iterable[QueuedMessage], now: float, trouble: Trouble) -> Iterator[dict[str, object]]:
    """Rows of `LIST_TITLES`: one for each recipient, the message told in the first of them.

    `trouble` tells what is wrong with a destination, for recipients that wait for it and were not tried themselves.
    """
    for one in queued:
        message = one.message
        told: dict[str, object] = {
            "queue_id": message.queue_id,
            "age": ago(message.arrived, now),
            "size": in_units(message.size),
            "sender": sender_of(one),
        }
        for recipient in one.recipients[:SHOWN]:
            yield {
                **told,
                "recipient": plain(str(recipient.address)),
                "state": state_of(recipient, now),
                "why": why(recipient) or _of_destination(recipient, trouble),
            }
            told = dict.fromkeys(told, "")
        left = len(one.recipients) - SHOWN
        if left > 0:
            yield {**told, "recipient": f"... and {left} more", "state": "", "why": ""}


def stacked(rows: Iterable[dict[str, object]]) -> Iterator[str]:
    """The same rows as lines, for terminals that are too narrow for the table."""
    for row in rows:
        if row["queue_id"]:
            yield f"{row['queue_id']}  {row['sender']}, {row['size']}, {row['age']}"
        yield f"    {row['recipient']}" + (f": {row['state']}" if row["state"] else "")
        if row["why"]:
            yield f"        {row['why']}"


def recipient_in_words(one: QueuedRecipient, now: float) -> Iterator[str]:
    """Lines on one recipient of a message that is looked at closely."""
    address = str(one.address) if one.original is None else f"{one.address} (for {one.original})"
    whither = "" if one.destination.agent == EXPIRED else f", for {place(str(one.destination))}"
    said = f"{address}{whither}: {state_of(one, now)}"
    if one.attempts:
        said += f", after {counted(one.attempts, 'attempt')}"
    yield plain(said)
    if last := why(one):
        yield f"    {last}"


def state_of(one: QueuedRecipient, now: float) -> str:
    """How a recipient stands, and when it is tried next."""
    if one.destination.agent == EXPIRED:
        return "being returned"
    if one.state is QueueState.WAITING:
        return f"waiting, {soon(one.due, now)}"
    return one.state.value


def why(one: QueuedRecipient) -> str:
    """What the last attempt came to, in at most so many characters; nothing where there was none."""
    head = " ".join(filter(None, (one.last_status, one.last_remote and f"{one.last_remote}:")))
    return plain(" ".join(filter(None, (head, one.last_text))), _LONGEST_WORDS)


def place(destination: str) -> str:
    """A destination for people: an agent that is told nothing is its name."""
    return destination.removesuffix(":")


def _of_destination(one: QueuedRecipient, trouble: Trouble) -> str:
    text = trouble(one.destination) if one.state in (QueueState.DUE, QueueState.ACTIVE) else None
    return "" if text is None else plain(f"not tried yet; its destination: {text}", _LONGEST_WORDS)


def sender_of(queued: QueuedMessage) -> str:
    """The reverse-path, `<>` for the null one."""
    reverse_path = queued.message.envelope.reverse_path
    return "<>" if reverse_path is None else plain(str(reverse_path))


def asked_in_words(options: MessageOptions) -> Sequence[str]:
    """What MAIL has asked for."""
    said = []
    if options.ret is not None:
        said.append(f"RET={options.ret.value}")
    if options.envid is not None:
        said.append(f"ENVID={plain(options.envid, _LONGEST_WORDS)}")
    if options.require_tls:
        said.append("REQUIRETLS")
    if options.tls_optional:
        said.append("TLS-Required: No")
    if options.priority:
        said.append(f"priority {options.priority}")
    if options.deliver_by is not None:
        said.append(f"to be delivered by {clock(options.deliver_by)}")
    if options.hold_until is not None:
        said.append(f"not before {clock(options.hold_until)}")
    return said


def notify_in_words(notify: Notify) -> str:
    """When the sender wants to hear of a recipient (RFC 3461 section 4.1)."""
    return " and ".join(str(one.name).lower() for one in Notify if one in notify) or "never"


def counted(number: int, what: str) -> str:
    """A number of things, as in `1 message` and `2 messages`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def ago(moment: float, now: float) -> str:
    """How long something is past, as in `3 days`; nothing that lies ahead."""
    return _span(max(now - moment, 0.0))


def soon(moment: float, now: float) -> str:
    """When something comes, as in `in 5 minutes`."""
    return f"in {_span(moment - now)}" if moment > now else "now"


def clock(moment: float, *, seconds: bool = False) -> str:
    """A moment by the clock of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M", time.localtime(moment))


def _span(seconds: float) -> str:
    # Not at the top: `mailsuite --help` need not wait for the delivery room.
    from mailsuite.delivery.retry import span

    return span(seconds)
