"""What the log says of on-demand mail relay: each event as a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from mailsuite.mail.history import EventKind

Detail = Mapping[str, str | int | float | bool | None]


def in_words(kind: EventKind, subject: str, detail: Detail) -> str:
    """One event as a line; `detail` is the event's."""
    said: str
    match kind:
        case EventKind.TURN:
            said = f"turn of {subject} from {_peer(detail)}: {_sent(detail)}"
        case EventKind.SEEN:
            said = f"turn of {subject} from {_peer(detail)}: no mail"
        case EventKind.ETRN if "text" in detail:
            said = f"queue of {subject} for {detail.get('node')}, started from {_peer(detail)}: {_sent(detail)}"
        case EventKind.ETRN:
            waiting = _messages(detail.get("waiting"))
            said = f"etrn of {subject} for {detail.get('node')} from {_peer(detail)}: {waiting} pending, started"
        case EventKind.WARNED:
            said = f"held for {subject}: {_messages(detail.get('messages'))} near their time, {detail.get('text')}"
        case _:
            said = f"{kind.value} of {subject}: {detail.get('text', '')}"
    return said


def _peer(detail: Detail) -> object:
    return detail.get("address") or "a local socket"


def _messages(count: object) -> str:
    return "1 message" if count == 1 else f"{count or 0} messages"


def _sent(detail: Detail) -> str:
    """What was sent, and how it ended."""
    seconds = detail.get("seconds")
    took = f"{seconds:.1f} s" if isinstance(seconds, (int, float)) else "no time"
    parts = [f"{_messages(detail.get('messages'))}, {detail.get('octets') or 0} octets in {took}"]
    parts += [f"{detail[key]} {key}" for key in ("deferred", "failed") if detail.get(key)]
    parts.append(str(detail.get("text", "")))
    times = detail.get("times")
    if isinstance(times, int) and times > 1:
        parts[-1] += f" ({times} times)"
    return ", ".join(parts)
