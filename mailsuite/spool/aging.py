"""What is kept for a set time, and goes when that has passed: events, parts of messages, names of completed ones.

It goes in small bites, each a transaction's part like any other, so that no mail waits behind it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailsuite.interfaces import SpoolError
from mailsuite.spool import completed, events, journal, partials
from mailsuite.spool.entry import Change
from mailsuite.spool.transactions import Operation

_log = Logger()

_INTERVAL = 300.0  # seconds
_EVENTS = 500  # of them, or of parts, are removed at once
_PARTIALS = 100
_MESSAGES = 200  # whose journals are removed at once


class Bite(Change):
    """Removes some of what is from before these times. The result is whether there may be more."""

    __slots__ = ("_events_before", "_partials_before")

    def __init__(self, events_before: float, partials_before: float) -> None:
        super().__init__()
        self._events_before = events_before
        self._partials_before = partials_before

    def run(self, db: sqlite3.Connection) -> bool:
        old_events = events.expire(db, self._events_before, _EVENTS)
        old_partials = partials.expire(db, self._partials_before, _PARTIALS)
        self.gone = partials.files(old_partials)
        old_names = completed.expire(db, self._partials_before, _EVENTS)
        return old_events == _EVENTS or len(old_partials) == _PARTIALS or old_names == _EVENTS


class ForgetSteps(Operation):
    """Removes the journals of messages that are not there any more."""

    __slots__ = ("_ids",)

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self._ids = json.dumps(ids)

    def run(self, db: sqlite3.Connection) -> None:
        db.execute(journal.FORGET, (self._ids,))


class Aging:
    """Removes, again and again, what is older than these times (seconds). `read` looks into the database."""

    def __init__(
        self,
        clock: IReactorTime,
        submit: Callable[[Operation], Deferred[Any]],
        read: Callable[[Callable[[sqlite3.Connection], Any]], Deferred[Any]],
        history_time: float,
        journal_time: float,
        partials_time: float,
    ) -> None:
        self._clock = clock
        self._submit = submit
        self._read = read
        self._history_time = history_time
        self._journal_time = journal_time
        self._partials_time = partials_time
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin, in a while."""
        self._next = self._clock.callLater(_INTERVAL, self._sweep)

    def stop(self) -> None:
        """End."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _sweep(self) -> None:
        self.start()
        ensureDeferred(self._bites()).addErrback(lambda failure: _log.failure("what is old stays", failure))

    async def _bites(self) -> None:
        now = self._clock.seconds()
        with suppress(SpoolError):  # the writer has logged it, and the next round comes in time
            while await self._submit(Bite(now - self._history_time, now - self._partials_time)):
                if self._next is None:
                    return
            before = now - self._journal_time
            ids: Sequence[str] = ("",)
            # A message that came later has had no step before that.
            while ids := await self._read(partial(_old, after=ids[-1], before=before)):
                await self._submit(ForgetSteps(ids))
                if self._next is None:
                    return


def _old(db: sqlite3.Connection, after: str, before: float) -> Sequence[str]:
    rows = db.execute(journal.OLD, (after, journal.horizon(before), before, _MESSAGES))
    return [queue_id for (queue_id,) in rows]
