"""The journal: the steps of each message, one after the other under its queue id, until a set time after its end.

Queue ids sort by time, so what is written lies together, and what is old stands at the beginning. There is no other
index: each step costs its message one place in one tree. JSON is made where the database is, from plain values; of what
there is much it is made without names.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from mailsuite.mail.address import Address
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.origin import Origin
from mailsuite.mail.queue import Settlement
from mailsuite.mail.route import Target
from mailsuite.mail.session import Peer
from mailsuite.mail.steps import AttemptDetail, is_untold
from mailsuite.spool.ids import base36
from mailsuite.spool.patterns import address, fits
from mailsuite.spool.rows import Row, storable

STEPS = (
    EventKind.ATTEMPT,
    EventKind.RECEIVED,
    EventKind.REPORTED,
    EventKind.FAULT,
    EventKind.MANAGED,
    EventKind.ROUTED,
)

TABLE = "journal (queue_id, number, time, kind, subject, detail)"
INSERT = f"INSERT INTO {TABLE} VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - a constant
READ = "SELECT time, kind, subject, queue_id, detail, number FROM journal WHERE queue_id = ?"
# By the queue ids, from the oldest on; those of the last days are not looked at.
OLD = """
    SELECT queue_id FROM journal WHERE queue_id > ? AND queue_id < ?
    GROUP BY queue_id
    HAVING max(time) < ? AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.queue_id = journal.queue_id)
    ORDER BY queue_id LIMIT ?
"""
FORGET = """
    DELETE FROM journal WHERE queue_id IN (SELECT value FROM json_each(?)) AND NOT EXISTS (
        SELECT 1 FROM messages WHERE messages.queue_id = journal.queue_id
    )
"""
encode = json.JSONEncoder(separators=(",", ":")).encode


def _quick() -> Callable[[Any], str]:
    """`encode` for values that do not contain themselves: without what it makes anew each time, at a third."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encode
    plain = json.JSONEncoder()
    quick = make(None, plain.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
    return lambda value: "".join(quick(value, 0))


_encode_quickly = _quick()


def is_step(event: Event) -> bool:
    """Whether it is a step of a message."""
    return event.queue_id is not None and event.kind in STEPS


# ------------------------------------------------------------------------- on the reactor's thread: plain values


def arrival(number: int, targets: Sequence[Target], origin: Origin | None = None, composed: str | None = None) -> Row:
    """What `received` needs beside the rows of a message. `composed` is the message that it is a report on."""
    rules = [target.rule for target in targets]
    said = rules if any(rules) else None
    if origin is None:
        return (number, said, composed)
    peer, tls = origin.peer, origin.tls
    host, port = (None, 0) if peer is None else (peer.host, peer.port)
    version, cipher = (None, None) if tls is None else (tls.version, tls.cipher)
    return (
        number,
        said,
        composed,
        host,
        port,
        origin.helo,
        origin.protocol,
        origin.service,
        origin.account,
        version,
        cipher,
        origin.message_id,
    )


def step(event: Event, number: int) -> Row:
    """A step as plain values, for `write`."""
    detail = event.detail
    plain = detail.plain() if isinstance(detail, AttemptDetail) else dict(detail)
    subject = event.subject and storable(event.subject)
    return (event.queue_id, number, event.time, event.kind.value, subject, plain)


def steps_of(settlement: Settlement, reports: Sequence[str]) -> Sequence[Event]:
    """The events of a settlement; those that tell of its reports get the ids of these, in their order."""
    ids = iter(reports)
    return [
        replace(event, detail={"report": next(ids, ""), **event.detail})
        if event.kind is EventKind.REPORTED and not is_untold(event)
        else event
        for event in settlement.events
    ]


# ---------------------------------------------------------------------------------------- where the database is


def received(message: Row, recipients: Sequence[Row], arrived: Row) -> Row:
    """The row for a message's first step, from its other rows (see `entry`)."""
    sender = "" if message[2] is None else _written(message[2], message[3])
    listed = [
        (_written(row[2], row[3]), row[6])
        if row[4] is None
        else (_written(row[2], row[3]), row[6], _written(row[4], row[5]))
        for row in recipients
    ]
    return (
        message[1],
        arrived[0],
        message[7],
        "received",
        sender,
        _encode_quickly((message[8], listed, *arrived[1:])),
    )


def write(db: sqlite3.Connection, steps: Sequence[Row]) -> None:
    """Write steps down that `step` has made. What JSON cannot hold is told so: no settlement fails for a step."""
    try:
        rows = [(*row[:5], _encode_quickly(row[5])) for row in steps]
    except (TypeError, ValueError, RecursionError):
        rows = [(*row[:5], _encoded(row[5])) for row in steps]
    db.executemany(INSERT, rows)


def _encoded(detail: Any) -> str:  # noqa: ANN401 - what others have put into an event
    try:
        return encode(detail)
    except (TypeError, ValueError, RecursionError) as error:
        return encode({"text": f"the detail of this step cannot be written down: {error}"})


def horizon(time: float) -> str:
    """What every queue id is above that was given after a time; see `ids`."""
    return base36(max(int(time * 1e6), 0)).rjust(10, "0")


# -------------------------------------------------------------------------------------------------- to be read

_SAID = ("helo", "protocol", "service", "account", "tls", "cipher", "message_id")


def detail_of(kind: EventKind, subject: str | None, text: str) -> dict[str, Any]:
    """What a step tells. Those of which there are many are kept as bare lists, and get their names here."""
    said = json.loads(text)
    if isinstance(said, dict):
        return said
    return AttemptDetail.of_plain(said).table() if kind is EventKind.ATTEMPT else _arrived(subject or "", *said)


def _arrived(
    sender: str,
    size: int,
    listed: Sequence[Sequence[str]],
    rules: Sequence[str] | None,
    composed: str | None,
    host: str | None = None,
    port: int = 0,
    *others: str | None,
) -> dict[str, Any]:
    """As `mail.steps.received` has it."""
    recipients = [dict(zip(("address", "destination", "original"), one, strict=False)) for one in listed]
    for recipient, rule in zip(recipients, rules or (), strict=False):
        recipient.update({"rule": rule} if rule else {})
    detail: dict[str, Any] = {
        "sender": sender,
        "size": size,
        "recipients": recipients,
        "peer": None if host is None else str(Peer(host, port)),
        **dict(zip(_SAID, others, strict=False)),
        "composed": composed,
    }
    return {name: value for name, value in detail.items() if value}


# --------------------------------------------------------------------------------------------------- to be found


def is_about(detail: Mapping[str, Any], text: str) -> bool:
    """Whether a message that was received so is meant by an address, or by a Message-ID (with brackets or without)."""
    pattern = address(text)
    message_id = detail.get("message_id")
    if message_id is not None and text.strip("<>") == message_id.strip("<>"):
        return True
    listed = [detail.get("sender", "")]
    for recipient in detail.get("recipients", ()):
        listed += recipient.get("address", ""), recipient.get("original", "")
    return any(fits(pattern, _meant(one)) for one in listed if one)


def _meant(written: str) -> str:
    """An address without its quotes, as patterns are for."""
    if not written.startswith('"'):
        return written
    local_part, _, domain = written.rpartition("@")
    return f"{local_part[1:-1]}@{domain}".replace('\\"', '"').replace("\\\\", "\\")


@lru_cache(4096)
def _written(local_part: str, domain: str) -> str:
    return str(Address(local_part, domain))
