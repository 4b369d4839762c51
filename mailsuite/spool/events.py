"""Events in the database: read by the index that fits, and removed in small bites when they are old.

Steps of messages are apart from the others, in the journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from mailsuite.mail.history import Event, EventKind
from mailsuite.spool import journal
from mailsuite.spool.rows import Row, storable
from mailsuite.spool.transactions import Operation

# Each index ends with the key, so that the walk is in order and LIMIT ends it.
HISTORY = """
    SELECT time, kind, subject, queue_id, detail FROM events INDEXED BY {index}
    WHERE {conditions} ORDER BY time DESC, key DESC LIMIT ?
"""
# What is about a message stays as long as that does.
EXPIRE = """
    DELETE FROM events WHERE key IN (
        SELECT key FROM events WHERE time < ? AND (
            queue_id IS NULL OR NOT EXISTS (SELECT 1 FROM messages WHERE messages.queue_id = events.queue_id)
        ) ORDER BY time LIMIT ?
    )
"""
INSERT_EVENT = "INSERT INTO events (time, kind, subject, queue_id, detail) VALUES (?, ?, ?, ?, ?)"
_KINDS = frozenset(EventKind)


class Record(Operation):
    """Writes events down, and steps of messages into the journal, under `numbers`."""

    __slots__ = ("_rows", "_steps")

    def __init__(self, events: Iterable[Event], numbers: Iterator[int]) -> None:
        """Raises `ValueError` where a detail is not what JSON can hold."""
        super().__init__()
        self._rows: list[Row] = []
        self._steps: list[Row] = []
        for event in events:
            row = event_row(event)
            if journal.is_step(event):
                time, kind, subject, queue_id, detail = row
                self._steps.append((queue_id, next(numbers), time, kind, subject, detail))
            else:
                self._rows.append(row)

    def run(self, db: sqlite3.Connection) -> None:
        db.executemany(INSERT_EVENT, self._rows)
        db.executemany(journal.INSERT, self._steps)


def event_row(event: Event) -> Row:
    """The columns of an event. Raises `ValueError` where its detail is not what JSON can hold."""
    return (event.time, event.kind.value, event.subject and storable(event.subject), event.queue_id, _text(event))


def history(
    db: sqlite3.Connection, kind: EventKind | None, subject: str | None, queue_id: str | None, limit: int
) -> Sequence[Event]:
    """See `ISpool.history`."""
    statement, arguments = history_query(kind, subject, queue_id, limit)
    found = as_events(db.execute(statement, arguments).fetchall())
    if queue_id is None:
        return found
    rows = db.execute(journal.READ, (queue_id,)).fetchall()
    rows.sort(key=lambda row: (row[0], row[5]), reverse=True)
    steps = [
        event
        for event in as_events(row[:5] for row in rows)
        if kind in (None, event.kind) and subject in (None, event.subject)
    ]
    return sorted([*steps, *found], key=lambda event: -event.time)[: max(limit, 0)]


def history_query(
    kind: EventKind | None, subject: str | None, queue_id: str | None, limit: int
) -> tuple[str, Sequence[str | int]]:
    """The statement for events that are no steps of messages, and its arguments."""
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
        Event(time, EventKind(kind), subject, queue_id, journal.detail_of(EventKind(kind), subject, detail))
        for time, kind, subject, queue_id, detail in rows
        if kind in _KINDS
    ]


def _text(event: Event) -> str:
    try:
        return journal.encode(dict(event.detail))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the detail of an event cannot be written down: {error}") from error


def expire(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove up to so many events from before a time, the oldest first; tell how many."""
    return db.execute(EXPIRE, (before, limit)).rowcount
