"""Events in the database: read by the index that fits, and removed in small bites when they are old."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from mailsuite.mail.history import Event, EventKind
from mailsuite.spool.entry import Row
from mailsuite.spool.transactions import Operation

# Each index ends with the key, so that the walk is in order and LIMIT ends it.
HISTORY = """
    SELECT time, kind, subject, queue_id, detail FROM events INDEXED BY {index}
    WHERE {conditions} ORDER BY time DESC, key DESC LIMIT ?
"""
EXPIRE = "DELETE FROM events WHERE key IN (SELECT key FROM events WHERE time < ? ORDER BY time LIMIT ?)"
_KINDS = frozenset(EventKind)


class Record(Operation):
    """Writes events down."""

    __slots__ = ("_rows",)

    def __init__(self, events: Iterable[Event]) -> None:
        """Raises `ValueError` where a detail is not what JSON can hold."""
        super().__init__()
        self._rows: list[Row] = [
            (event.time, event.kind.value, event.subject, event.queue_id, _text(event)) for event in events
        ]

    def run(self, db: sqlite3.Connection) -> None:
        db.executemany("INSERT INTO events (time, kind, subject, queue_id, detail) VALUES (?, ?, ?, ?, ?)", self._rows)


def history_query(
    kind: EventKind | None, subject: str | None, queue_id: str | None, limit: int
) -> tuple[str, Sequence[str | int]]:
    """The statement for `ISpool.history`, and its arguments."""
    filters = {"queue_id": queue_id, "subject": subject, "kind": None if kind is None else kind.value}
    wanted = {column: value for column, value in filters.items() if value is not None}
    # The one that leaves the least to look through; a message has few events, a customer fewer than a kind.
    indexes = {"queue_id": "events_of_message", "subject": "events_of_subject", "kind": "events_of_kind"}
    index = next((indexes[column] for column in wanted), "events_by_time")
    conditions = " AND ".join(f"{column} = ?" for column in wanted) or "TRUE"
    # A negative LIMIT is none to SQLite.
    return HISTORY.format(index=index, conditions=conditions), (*wanted.values(), max(limit, 0))


def as_events(rows: Iterable[Row]) -> Sequence[Event]:
    """What was read. Kinds that are not known here (a later mailsuite wrote them) are left out."""
    return [
        Event(time, EventKind(kind), subject, queue_id, json.loads(detail))
        for time, kind, subject, queue_id, detail in rows
        if kind in _KINDS
    ]


def _text(event: Event) -> str:
    try:
        return json.dumps(dict(event.detail), separators=(",", ":"))
    except TypeError as error:
        raise ValueError(f"the detail of an event cannot be written down: {error}") from error


def expire(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove up to so many events from before a time, the oldest first; tell how many."""
    return db.execute(EXPIRE, (before, limit)).rowcount
