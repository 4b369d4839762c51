"""The steps of a message, as `mail.steps` and the commands wrote them down, in words: for `trace` and `queue show`.

Every step is one line, and a line for each recipient below it. What another version has written, and this one does not
know, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from mailsuite.admin.output import in_units, plain
from mailsuite.admin.queue.rows import clock, place
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.steps import DROPPED, PUT_OFF

_WIDTH: Final = 9  # of the name of a step
_LONGEST_WORDS: Final = 400  # characters of a peer's words
_REPORTS: Final = {
    "failed": "was told that it failed",
    "delayed": "was told that it is late",
    "delivered": "was told that it was delivered",
    "relayed": "was told that it was passed on",
}
_NAMES: Final = {
    EventKind.RECEIVED: "received",
    EventKind.ATTEMPT: "attempt",
    EventKind.REPORTED: "report",
    EventKind.FAULT: "fault",
    EventKind.MANAGED: "operator",
    EventKind.ROUTED: "routed",
}
_COLORS: Final = {"delivered": "green", "relayed": "green", "delayed": "yellow", "failed": "red", "held": "red"}

Step = Mapping[str, Any]


def event_row(event: Event) -> dict[str, Any]:
    """A step, with the keys of the JSON."""
    return {"time": event.time, "kind": event.kind.value, "subject": event.subject, **event.detail}


def told(events: Sequence[Event]) -> Iterator[str]:
    """The lines of a story, the first step first; `events` come the latest first, as `ISpool.history` has them."""
    for event in reversed(events):
        head, *below = _lines(event)
        name = _NAMES.get(event.kind, event.kind.value)
        yield f"{clock(event.time, seconds=True)}  {name:<{_WIDTH}} {head}"
        for line in below:
            yield f"{'':<21}{'':<{_WIDTH}} {line}"


def message_id(events: Sequence[Event]) -> str | None:
    """The Message-ID of a message, where it is on record."""
    found = (event.detail.get("message_id") for event in events if event.kind is EventKind.RECEIVED)
    return next((str(one) for one in found if one), None)


def _lines(event: Event) -> Sequence[str]:
    detail = event.detail
    if event.kind is EventKind.RECEIVED:
        return [_reception(detail), *map(_entered, _tables(detail, "recipients"))]
    if event.kind is EventKind.ATTEMPT:
        return [_attempt(event), *map(_outcome, _tables(detail, "outcomes"))]
    if event.kind is EventKind.REPORTED:
        why = str(detail.get("why", ""))
        if why in (PUT_OFF, DROPPED):
            of = {"failed": "the failure", "delayed": "the delay"}.get(str(detail.get("of")), "the delivery")
            told = f"the report to <{event.subject or ''}> on {of} was {why}: {detail.get('text', '')}"
            return [plain(told, _LONGEST_WORDS)]
        return [plain(f"<{event.subject or ''}> {_REPORTS.get(why, why)}, in {detail.get('report', 'a report')}")]
    if event.kind is EventKind.ROUTED:
        whom = ", ".join(map(str, detail.get("recipients", ())))
        old, new = place(str(detail.get("old", "?"))), place(event.subject or "?")
        return [plain(f"{whom} goes to {new} from now on, no more to {old}", _LONGEST_WORDS)]
    if event.kind is EventKind.FAULT:
        return _fault(detail)
    if event.kind is EventKind.MANAGED:
        return [_managed(event)]
    said = detail.get("text")
    return [plain(" ".join(filter(None, (event.subject, None if said is None else str(said)))), _LONGEST_WORDS)]


def _reception(detail: Step) -> str:
    sender = f"from <{detail.get('sender', '')}>"
    if "composed" in detail:
        return plain(f"{sender}, composed here: a report on {detail['composed']}{_size(detail)}", _LONGEST_WORDS)
    parts = [sender]
    if "peer" in detail:
        helo = f" ({detail['helo']})" if "helo" in detail else ""
        parts.append(f"of {detail['peer']}{helo}")
    if "account" in detail:
        parts.append(f"as {detail['account']}")
    how = " ".join(str(detail[key]) for key in ("protocol", "tls") if key in detail)
    said = " ".join(parts) + (f", {how}" if how else "") + _size(detail)
    return plain(said, _LONGEST_WORDS)


def _size(detail: Step) -> str:
    size = detail.get("size")
    return f", {in_units(size)}" if isinstance(size, int) else ""


def _entered(recipient: Step) -> str:
    original = f" (for {recipient['original']})" if "original" in recipient else ""
    rule = f": {recipient['rule']}" if "rule" in recipient else ""
    where = place(str(recipient.get("destination", "?")))
    return plain(f"to {recipient.get('address', '?')}{original}, goes to {where}{rule}", _LONGEST_WORDS)


def _attempt(event: Event) -> str:
    detail = event.detail
    host = detail.get("host")
    if host is None:
        said = place(event.subject or "?")
    else:
        address = detail.get("address", host)
        port = f" port {detail['port']}" if "port" in detail else ""
        said = f"{host}{port}" if address == host else f"{host} [{address}]{port}"
    tls = " ".join(str(detail[key]) for key in ("tls", "cipher") if key in detail)
    policy = f" ({detail['policy']})" if "policy" in detail else ""
    if tls:
        said += f", {tls}{policy}"
    elif host is not None and any("reply" in outcome for outcome in _tables(detail, "outcomes")):
        said += f", in plaintext{policy}"
    seconds = detail.get("seconds")
    if isinstance(seconds, (int, float)):
        said += f", {seconds:.1f} s"
    return plain(said, _LONGEST_WORDS)


def _outcome(outcome: Step) -> str:
    result = str(outcome.get("result", "?"))
    words = [str(outcome[key]) for key in ("status",) if key in outcome]
    remote = f"{outcome['remote']}:" if "remote" in outcome else ""
    said = outcome.get("reply") or outcome.get("text") or ""
    after = f"; next at {clock(outcome['next_attempt'])}" if "next_attempt" in outcome else ""
    rest = plain(" ".join(filter(None, (*words, remote, str(said)))), _LONGEST_WORDS) + after
    return f"{plain(str(outcome.get('recipient', '?')))} {click.style(result, fg=_COLORS.get(result))} {rest}".rstrip()


def _fault(detail: Step) -> Sequence[str]:
    text = plain(str(detail.get("text", "a defect was met; what was under way is on hold")), _LONGEST_WORDS)
    traceback = str(detail.get("traceback", ""))
    return [text, *(plain(line) for line in traceback.splitlines())]


def _managed(event: Event) -> str:
    recipients = event.detail.get("recipients")
    if isinstance(recipients, (list, tuple)):
        whom = f" for {', '.join(map(str, recipients))}"
    elif isinstance(recipients, int):
        whom = f" for {recipients} recipient{'' if recipients == 1 else 's'}"
    else:
        whom = ""
    by = f" by {event.detail['by']}" if "by" in event.detail else ""
    return plain(f"{event.subject or 'something'}{whom}{by}", _LONGEST_WORDS)


def _tables(detail: Step, key: str) -> Sequence[Step]:
    found = detail.get(key, ())
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, (list, tuple)) else []
