"""The steps of a message as events: what the detail of each kind says, written and read in one place.

`RECEIVED`: `sender`, `size`, `recipients` (a list of tables with `address`, `destination`, `original`, `rule`), `peer`,
`helo`, `protocol`, `service`, `account`, `tls`, `cipher`, `message_id`, `composed` (for
a report: the queue id of what it is on).
`ATTEMPT`: `seconds`, `host`, `address`, `port`, `tls`, `cipher`, `policy`, and `outcomes`: a list of tables with
`recipient`, `result`, `status`, `text`, `reply` and `next_attempt`.
`REPORTED`: `report` (its queue id), `why` ("failed", "delayed", "delivered", "relayed"); or, where there is none,
`why` ("put off", "dropped"), `of` (what it would have told) and `text`. `MANAGED`: `recipients`, `by`.
`ROUTED`: `recipients`, `old` and `new` (destinations).
What is empty or not known is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.origin import Origin
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Result, Via
from mailsuite.mail.route import Target

TEXT_LIMIT = 2000  # characters of a peer's words that are kept


def received(
    queue_id: str, envelope: Envelope, targets: Sequence[Target], size: int, origin: Origin | None, now: float
) -> Event:
    """A message has entered the queue."""
    detail: dict[str, Any] = {
        "sender": str(envelope.reverse_path or ""),
        "size": size,
        "recipients": [_target(target) for target in targets],
    }
    if origin is not None:
        detail.update(
            peer=None if origin.peer is None else str(origin.peer),
            helo=origin.helo,
            protocol=origin.protocol,
            service=origin.service,
            account=origin.account,
            tls=None if origin.tls is None else origin.tls.version,
            cipher=None if origin.tls is None else origin.tls.cipher,
            message_id=origin.message_id,
        )
    return Event(now, EventKind.RECEIVED, detail["sender"], queue_id, _without_blanks(detail))


def attempt(delivery: Delivery, outcomes: Sequence[Outcome], now: float, seconds: float | None = None) -> Event:
    """Recipients of a delivery were tried; `seconds` is how long that took. Its detail is an `AttemptDetail`."""
    detail = AttemptDetail(delivery.recipients, outcomes, seconds)
    return Event(now, EventKind.ATTEMPT, str(delivery.destination), delivery.message.queue_id, detail)


def reported(message: Message, reader: Address, why: Result, now: float) -> Event:
    """A report on a message is queued with this; the spool adds its queue id. `why` is the gravest that it tells."""
    return Event(now, EventKind.REPORTED, str(reader), message.queue_id, {"why": why.value})


PUT_OFF = "put off"
DROPPED = "dropped"


def untold(message: Message, reader: Address, why: str, of: Result, text: str, now: float) -> Event:
    """There is no report, for now (`PUT_OFF`) or for ever (`DROPPED`); `text` says why not."""
    detail = {"why": why, "of": of.value, "text": text[:TEXT_LIMIT]}
    return Event(now, EventKind.REPORTED, str(reader), message.queue_id, detail)


def is_untold(event: Event) -> bool:
    """Whether an event tells that there is no report."""
    return event.kind is EventKind.REPORTED and event.detail.get("why") in (PUT_OFF, DROPPED)


def routed(queue_id: str, addresses: Sequence[str], old: str, new: str, now: float) -> Event:
    """Recipients go to another destination from now on."""
    return Event(now, EventKind.ROUTED, new, queue_id, {"recipients": list(addresses), "old": old, "new": new})


class AttemptDetail(Mapping[str, Any]):
    """The detail of an `ATTEMPT`, made when it is looked at.

    Nearly all of them are written down and never read, and written by another process: until then it is no more than
    what it is made of, and goes there as plain tuples.
    """

    __slots__ = ("_facts", "_outcomes", "_recipients", "_seconds", "_table")

    def __init__(
        self,
        recipients: Sequence[Recipient],
        outcomes: Sequence[Outcome],
        seconds: float | None,
        facts: _Facts | None = None,
    ) -> None:
        self._recipients = recipients
        self._outcomes = outcomes
        self._seconds = seconds
        self._facts = facts
        self._table: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - see `Event.detail`
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())

    def __repr__(self) -> str:
        return f"AttemptDetail({self._made()!r})"

    def table(self) -> dict[str, Any]:
        """All of it as a plain table."""
        return dict(self._made())

    def __reduce__(self) -> tuple[Any, ...]:
        return _detail_of, self.plain()

    @classmethod
    def of_plain(cls, facts: Sequence[Any]) -> AttemptDetail:
        """The reverse of `plain`; lists will do in place of tuples."""
        seconds, via, outcomes = facts
        return cls((), (), None, (seconds, via, outcomes))

    def plain(self) -> _Facts:
        """What it is made of, as nested tuples of what JSON can hold."""
        if self._facts is None:
            outcomes = self._outcomes
            via = None
            for outcome in outcomes:
                if (via := outcome.via) is not None:
                    break
            self._facts = (
                self._seconds,
                None if via is None else _via(via),
                tuple([_plain(who, outcome) for who, outcome in zip(self._recipients, outcomes, strict=True)]),
            )
        return self._facts

    def _made(self) -> dict[str, Any]:
        if self._table is None:
            seconds, via, outcomes = self.plain()
            rounded = None if seconds is None else round(seconds, 3)
            detail = {"seconds": rounded, "outcomes": [_outcome(*outcome) for outcome in outcomes]}
            if via is not None:
                detail.update(zip(_VIA, via, strict=True))
            self._table = _without_blanks(detail)
        return self._table


_Facts = tuple[float | None, tuple[Any, ...] | None, tuple[tuple[Any, ...], ...]]
_VIA = ("host", "address", "port", "policy", "tls", "cipher")


def _detail_of(
    seconds: float | None, via: tuple[Any, ...] | None, outcomes: tuple[tuple[Any, ...], ...]
) -> AttemptDetail:
    return AttemptDetail((), (), None, (seconds, via, outcomes))


def _via(via: Via) -> tuple[Any, ...]:
    tls = via.tls
    version, cipher = (None, None) if tls is None else (tls.version, tls.cipher)
    return via.host, via.address, via.port, via.policy, version, cipher


def _plain(recipient: Recipient, outcome: Outcome) -> tuple[Any, ...]:
    """In the order of `_outcome`."""
    reply = outcome.reply
    text = outcome.text
    return (
        str(recipient.address),
        outcome.result.value,
        (*outcome.status,),
        text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT],
        None if reply is None else (reply.code, reply.status and (*reply.status,), reply.text[:TEXT_LIMIT]),
        outcome.remote,
        outcome.next_attempt,
    )


def _target(target: Target) -> dict[str, Any]:
    return _without_blanks(
        {
            "address": str(target.address),
            "destination": str(target.destination),
            "original": None if target.original is None else str(target.original),
            "rule": target.rule,
        }
    )


def _outcome(
    recipient: str,
    result: str,
    status: tuple[int, int, int],
    text: str,
    reply: tuple[int, tuple[int, int, int] | None, str] | None,
    remote: str | None,
    next_attempt: float | None,
) -> dict[str, Any]:
    return _without_blanks(
        {
            "recipient": recipient,
            "result": result,
            "status": _dotted(status),
            "text": text,
            "reply": None if reply is None else _said(*reply),
            "remote": remote,
            "next_attempt": next_attempt,
        }
    )


def _said(code: int, status: tuple[int, int, int] | None, text: str) -> str:
    return f"{code} {text}".rstrip() if status is None else f"{code} {_dotted(status)} {text}".rstrip()


def _dotted(status: tuple[int, int, int]) -> str:
    return "{}.{}.{}".format(*status)


def _without_blanks(detail: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in detail.items() if value not in (None, "", [], 0)}
