"""The record: events of on-demand mail relay go to the spool's history, and a line to the log."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsuite.delivery.on_demand.lines import Detail, in_words
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import ISpool, SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.plain import plain


class Record:
    """Writes events down by itself; where the spool fails they are in the log only. `now` gives POSIX seconds."""

    _log = Logger()

    def __init__(self, spool: ISpool, now: Callable[[], float]) -> None:
        self._spool = spool
        self._now = now
        self._tasks = Tasks()

    def note(self, kind: EventKind, subject: str, **detail: str | float | bool | None) -> None:
        """Write one event down, and log it. What others have said in it becomes plain text."""
        said = {name: plain(value) if isinstance(value, str) else value for name, value in detail.items()}
        self.say(kind, subject, said)
        self.write([Event(self._now(), kind, subject, detail=said)])

    def say(self, kind: EventKind, subject: str, detail: Detail) -> None:
        """Log what is not worth an event of its own."""
        self._log.info("{line}", line=in_words(kind, subject, detail))

    def write(self, events: Sequence[Event]) -> None:
        """Write events down."""
        self._tasks.start(self._write(events), "the record")

    def written(self) -> Coroutine[Deferred[Any], Any, None]:
        """Wait until all is written down."""
        return self._tasks.finished()

    async def _write(self, events: Sequence[Event]) -> None:
        try:
            await self._spool.record(events)
        except SpoolError as error:
            self._log.error("{count} events are not written down: {error}", count=len(events), error=str(error))
