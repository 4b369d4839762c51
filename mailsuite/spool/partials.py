"""Parts of messages whose lines broke, kept under a name (RFC 1845).

A part is a row, with the octets of a small content in it; a large content stays in the file where it was gathered. As
with messages, the file is synced before its row is committed and unlinked after the row's deletion was. Whoever takes a
part up again gets it after its row is durably gone: the file grows only then, so a crash may lose a part and never
brings back one with the wrong octets.

What is asked about one name is done one after the other, so a peer that is quicker back than our disk finds what it
left; parts that nobody waits for any more are put back. Which names there are is known in memory: what was never kept
costs nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.route import Target
from mailsuite.spool.allowance import Bounds, to_go
from mailsuite.spool.columns import ENVELOPE, envelope_of, envelope_row, targets_of, targets_text
from mailsuite.spool.completed import CompletedNames
from mailsuite.spool.disk import detached
from mailsuite.spool.draft import Enter, SqliteDraft
from mailsuite.spool.entry import Change, Room
from mailsuite.spool.errors import CommitFailed
from mailsuite.spool.files import ArrivingFile, ContentFiles
from mailsuite.spool.rows import Row
from mailsuite.spool.transactions import Operation

_T = TypeVar("_T")
_log = Logger()

_COLUMNS = f"queue_id, {ENVELOPE}, targets, received, kept, size, octets"
_INSERT = f"INSERT INTO partials (name, weight, {_COLUMNS}) VALUES ({', '.join('?' * 14)})"  # noqa: S608 - constants
_TAKE = f"DELETE FROM partials WHERE name = ? RETURNING {_COLUMNS}"  # noqa: S608
_FORGET = "DELETE FROM partials WHERE name = ? RETURNING queue_id, octets IS NULL"
STANDING = "SELECT name, weight FROM partials ORDER BY kept"
EXPIRE = """
    DELETE FROM partials WHERE name IN (SELECT name FROM partials WHERE kept < ? ORDER BY kept LIMIT ?)
    RETURNING queue_id, octets IS NULL
"""


class Keep(Change):
    """Keeps a part in place of what had its name.

    The result are the names of others that went to make room for it; None where there was none.
    """

    __slots__ = ("_bounds", "_name", "_now", "_room", "_row")

    def __init__(self, name: str, row: Row, bounds: Bounds, room: Room, now: float) -> None:
        super().__init__()
        self._name = name
        self._row = row
        self._bounds = bounds
        self._room = room
        self._now = now

    def run(self, db: sqlite3.Connection) -> list[str] | None:
        gone = files(db.execute(_FORGET, (self._name,)).fetchall())
        gone += files(expire(db, self._now - self._bounds.time))
        targets, size, octets = self._row[7], self._row[10], self._row[11]
        weight = size + len(targets)
        kept = db.execute(STANDING).fetchall()
        places = to_go(kept, self._name, weight, self._bounds) if self._is_roomy() else None
        others = None
        if places is not None:
            others = [kept[place][0] for place in places]
            for other in others:
                gone += files(db.execute(_FORGET, (other,)).fetchall())
            db.execute(_INSERT, (self._name, weight, *self._row))
        elif octets is None:
            gone.append(self._row[0])
        self.gone = gone
        return others

    def _is_roomy(self) -> bool:
        try:
            self._room.check()
        except SpoolFull:
            return False
        return True


class Take(Change):
    """Takes a part away. The result is its row, or None."""

    __slots__ = ("_name", "_since")

    def __init__(self, name: str, since: float) -> None:
        super().__init__()
        self._name = name
        self._since = since

    def run(self, db: sqlite3.Connection) -> Row | None:
        rows: list[Row] = db.execute(_TAKE, (self._name,)).fetchall()
        if rows and rows[0][9] < self._since:
            self.gone = [row[0] for row in rows if row[11] is None]
            return None
        return rows[0] if rows else None


class Forget(Change):
    """Removes a part, if there is one."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def run(self, db: sqlite3.Connection) -> None:
        self.gone = files(db.execute(_FORGET, (self._name,)).fetchall())


def expire(db: sqlite3.Connection, before: float, limit: int = 100) -> list[Row]:
    """Remove up to so many parts that were kept before a time; the id of each, and whether it is in a file."""
    return db.execute(EXPIRE, (before, limit)).fetchall()


def files(rows: Sequence[Row]) -> list[str]:
    """The ids of those that are in files."""
    return [queue_id for queue_id, in_file in rows if in_file]


def examine(db: sqlite3.Connection, directory: str, before: float) -> set[str]:
    """Remove the parts that are too old, or whose file is not as it was kept; the ids of the other files. Blocks."""
    db.execute("DELETE FROM partials WHERE kept < ?", (before,))
    whole: set[str] = set()
    for queue_id, size in db.execute("SELECT queue_id, size FROM partials WHERE octets IS NULL").fetchall():
        try:
            found = os.stat(f"{directory}/{queue_id}").st_size
        except FileNotFoundError:
            found = -1
        if found == size:
            whole.add(queue_id)
        else:
            _log.error("the part {queue_id} is lost: its file is not as it was kept", queue_id=queue_id)
            db.execute("DELETE FROM partials WHERE queue_id = ?", (queue_id,))
    return whole


class Partials:
    """The parts that a running spool keeps, and what it remembers in their place when they are whole.

    `found` are the names that were there at its start. `spill` and `enter` are for the drafts it gives.
    """

    def __init__(  # noqa: PLR0913 - called in one place
        self,
        clock: IReactorTime,
        submit: Callable[[Operation], Deferred[Any]],
        files: ContentFiles,
        bounds: Bounds,
        room: Room,
        spill: int,
        enter: Enter,
        *,
        found: dict[str, float],
        completed: CompletedNames,
    ) -> None:
        self._known = found  # when each was kept, the oldest first; some may be gone
        self.completed = completed
        self._clock = clock
        self._submit = submit
        self._files = files
        self._bounds = bounds
        self._room = room
        self._spill = spill
        self._enter = enter
        self._last: dict[str, Deferred[None]] = {}  # by name: fires when the last that was asked about it is done
        self._ended: Deferred[None] | None = None

    def keep(
        self,
        draft: SqliteDraft,
        name: str,
        envelope: Envelope,
        targets: Sequence[Target],
        received: int,
        size: int | None,
    ) -> Deferred[None]:
        """See `ISpool.keep`."""
        try:
            finishing = draft.finish(size)
        except SpoolError as error:
            return fail(error)
        return detached(
            self._in_turn(name, lambda: self._keep(draft, finishing, name, envelope, tuple(targets), received))
        )

    def resume(self, name: str) -> Deferred[Partial | Completed | None]:
        """See `ISpool.resume`. Where the answer was cancelled before it came, the part is put back."""
        if not self._may_have(name):
            return succeed(None)
        answer: Deferred[Partial | Completed | None] = Deferred()

        async def take() -> None:
            part = None if answer.called else await self._take(name)
            if isinstance(part, Partial) and (answer.called or self._ended is not None):
                await self._keep(
                    part.draft, part.draft.finish(), name, part.envelope, tuple(part.targets), part.received
                )
                part = None
            if not answer.called:
                answer.callback(part)

        def failed(failure: Any) -> None:  # noqa: ANN401 - a Failure
            if not answer.called:
                answer.errback(failure)

        detached(self._in_turn(name, take)).addErrback(failed)
        return answer

    def forget(self, name: str) -> Deferred[None]:
        """See `ISpool.forget`."""
        return detached(self._in_turn(name, lambda: self._forget(name))) if self._may_have(name) else succeed(None)

    def end(self) -> Deferred[None]:
        """Give no more drafts; wait until all that was asked is done."""
        self._ended = Deferred()
        if not self._last:
            self._ended.callback(None)
        return self._ended

    def _may_have(self, name: str) -> bool:
        return name in self._known or name in self.completed or name in self._last

    async def _forget(self, name: str) -> None:
        await self._submit(Forget(name))
        self._known.pop(name, None)

    async def _in_turn(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        before = self._last.get(name)
        done = self._last[name] = Deferred()
        try:
            if before is not None:
                await before
            return await work()
        finally:
            if self._last[name] is done:
                del self._last[name]
            done.callback(None)
            if not self._last and self._ended is not None and not self._ended.called:
                self._ended.callback(None)

    async def _keep(
        self,
        draft: SqliteDraft,
        finishing: Deferred[bytes | None],
        name: str,
        envelope: Envelope,
        targets: Sequence[Target],
        received: int,
    ) -> None:
        try:
            octets = await finishing
            now = self._clock.seconds()
            row = _row(draft, octets, envelope, targets, received, now)
            # Known from here on: also where a COMMIT fails, for then nobody can tell.
            self._know(name, now)
            others = await self._submit(Keep(name, row, self._bounds, self._room, now))
        except CommitFailed:
            # As with messages: the row may be there at the next start, and so must be the file.
            raise
        except SpoolError as error:
            draft.discard()
            # What had the name must not be taken for this one.
            with suppress(SpoolError):
                await self._forget(name)
            if not isinstance(error, SpoolFull):
                raise
            others = None
        if others is None:
            self._known.pop(name, None)
            _log.info("there is no room for the part of a message ({size} octets)", size=draft.size)
            return
        for other in others:
            self._known.pop(other, None)
        # Again: another part may have taken the place of one that had this name, before this one came.
        self._know(name, self._clock.seconds())

    def _know(self, name: str, now: float) -> None:
        self._known.pop(name, None)
        self._known[name] = now
        old = []
        for other, kept in self._known.items():
            if kept >= now - self._bounds.time:
                break
            old.append(other)
        for other in old:
            del self._known[other]

    async def _take(self, name: str) -> Partial | Completed | None:
        if name in self.completed and (completed := await self.completed.recall(name)) is not None:
            return completed
        row = await self._submit(Take(name, self._clock.seconds() - self._bounds.time))
        self._known.pop(name, None)
        if row is None:
            return None
        queue_id, *envelope, targets, received, _, size, octets = row
        held: bytes | ArrivingFile = octets
        if octets is None:
            try:
                held = await self._files.reopen(queue_id, size)
            except OSError as error:
                _log.error("the part {queue_id} is lost: {error}", queue_id=queue_id, error=error)
                self._files.unlink([queue_id])
                return None
        draft = SqliteDraft(queue_id, self._spill, self._files, self._enter, size, held)
        return Partial(draft, envelope_of(tuple(envelope)), targets_of(targets), received)


def _row(
    draft: SqliteDraft,
    octets: bytes | None,
    envelope: Envelope,
    targets: Sequence[Target],
    received: int,
    now: float,
) -> Row:
    return (
        draft.queue_id,
        *envelope_row(envelope),
        targets_text(targets),
        received,
        now,
        draft.size,
        octets,
    )
