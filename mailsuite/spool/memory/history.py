"""The events that a spool in memory keeps."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from mailsuite.mail.history import Event, EventKind
from mailsuite.spool.journal import is_about, is_step


class History:
    """Events, each for `time` seconds; the steps of a message until `journal_time` seconds after the last of them."""

    def __init__(self, time: float, journal_time: float) -> None:
        self._time = time
        self._journal_time = journal_time
        self._events: list[Event] = []

    def add(self, events: Iterable[Event]) -> None:
        """Write events down. Raises `ValueError` where a detail is not what JSON can hold; then none is."""
        try:
            copies = [replace(event, detail=json.loads(json.dumps(dict(event.detail)))) for event in events]
        except TypeError as defect:
            raise ValueError(f"the detail of an event cannot be written down: {defect}") from None
        self._events += copies

    def find(
        self, queued: Collection[str], now: float, kind: EventKind | None, subject: str | None, queue_id: str | None
    ) -> Sequence[Event]:
        """The events that fit, the latest first. `queued` are the ids of messages that are in the queue."""
        self._expire(queued, now)
        found = [
            event
            for event in reversed(self._events)
            if kind in (None, event.kind)
            and subject in (None, event.subject)
            and (queue_id == event.queue_id if queue_id is not None else not is_step(event))
        ]
        found.sort(key=lambda event: -event.time)  # of one time, the last first
        return found

    def messages(self, queued: Collection[str], now: float, text: str) -> set[str]:
        """The ids of messages that a text means: see `ISpool.find`."""
        self._expire(queued, now)
        return {
            event.queue_id
            for event in self._events
            if event.queue_id is not None
            and is_step(event)
            and (event.queue_id == text or (event.kind is EventKind.RECEIVED and is_about(event.detail, text)))
        }

    def _expire(self, queued: Collection[str], now: float) -> None:
        last: dict[str, float] = {}
        for event in self._events:
            if is_step(event) and event.queue_id is not None:
                last[event.queue_id] = max(event.time, last.get(event.queue_id, event.time))
        self._events = [event for event in self._events if event.queue_id in queued or self._stays(event, now, last)]

    def _stays(self, event: Event, now: float, last: Mapping[str, float]) -> bool:
        if is_step(event):
            return last[event.queue_id or ""] >= now - self._journal_time
        return event.time >= now - self._time
