"""Parts of messages whose lines broke, kept under a name (RFC 1845).

A part is a row, with the octets of a small content in it; a large content stays in the file where it was gathered. As
with messages, the file is synced before its row is committed and unlinked after the row's deletion was. Whoever takes a
part up again gets it after its row is durably gone: the file grows only then, so a crash may lose a part and never
brings back one with the wrong octets.

What is asked about one name is done one after the other, so a peer that is quicker back than our disk finds what it
left; parts that nobody waits for any more are put back.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.partial import Partial
from mailsuite.mail.route import Destination, Target
from mailsuite.spool.disk import detached
from mailsuite.spool.draft import Enter, SqliteDraft
from mailsuite.spool.entry import Change, Room, Row
from mailsuite.spool.errors import CommitFailed
from mailsuite.spool.files import ArrivingFile, ContentFiles
from mailsuite.spool.transactions import Operation

_T = TypeVar("_T")
_log = Logger()

_COLUMNS = (
    "queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, targets, received, kept, size, octets"
)
_INSERT = f"INSERT INTO partials (name, weight, {_COLUMNS}) VALUES ({', '.join('?' * 13)})"  # noqa: S608 - constants
_TAKE = f"DELETE FROM partials WHERE name = ? RETURNING {_COLUMNS}"  # noqa: S608
_FORGET = "DELETE FROM partials WHERE name = ? RETURNING queue_id, octets IS NULL"
EXPIRE = """
    DELETE FROM partials WHERE name IN (SELECT name FROM partials WHERE kept < ? ORDER BY kept LIMIT ?)
    RETURNING queue_id, octets IS NULL
"""


class Bounds(NamedTuple):
    """What may be kept: so many parts, of so many octets in all, each for so many seconds."""

    parts: int
    octets: int
    time: float


class Keep(Change):
    """Keeps a part in place of what had its name. The result is whether there was room for it."""

    __slots__ = ("_bounds", "_name", "_now", "_room", "_row")

    def __init__(self, name: str, row: Row, bounds: Bounds, room: Room, now: float) -> None:
        super().__init__()
        self._name = name
        self._row = row
        self._bounds = bounds
        self._room = room
        self._now = now

    def run(self, db: sqlite3.Connection) -> bool:
        gone = files(db.execute(_FORGET, (self._name,)).fetchall())
        gone += files(expire(db, self._now - self._bounds.time))
        targets, size, octets = self._row[6], self._row[9], self._row[10]
        weight = size + len(targets)
        count, total = db.execute("SELECT count(*), total(weight) FROM partials").fetchone()
        fits = count < self._bounds.parts and total + weight <= self._bounds.octets and self._is_roomy()
        if fits:
            db.execute(_INSERT, (self._name, weight, *self._row))
        elif octets is None:
            gone.append(self._row[0])
        self.gone = gone
        return fits

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
        if rows and rows[0][8] < self._since:
            self.gone = [row[0] for row in rows if row[10] is None]
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
    """The parts that a running spool keeps. `spill` and `enter` are for the drafts it gives."""

    def __init__(
        self,
        clock: IReactorTime,
        submit: Callable[[Operation], Deferred[Any]],
        files: ContentFiles,
        bounds: Bounds,
        room: Room,
        spill: int,
        enter: Enter,
    ) -> None:
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
        self, draft: SqliteDraft, name: str, envelope: Envelope, targets: Sequence[Target], received: int
    ) -> Deferred[None]:
        """See `ISpool.keep`."""
        try:
            finishing = draft.finish()
        except SpoolError as error:
            return fail(error)
        return detached(
            self._in_turn(name, lambda: self._keep(draft, finishing, name, envelope, tuple(targets), received))
        )

    def resume(self, name: str) -> Deferred[Partial | None]:
        """See `ISpool.resume`. Where the answer was cancelled before it came, the part is put back."""
        answer: Deferred[Partial | None] = Deferred()

        async def take() -> None:
            part = None if answer.called else await self._take(name)
            if part is not None and (answer.called or self._ended is not None):
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
        return detached(self._in_turn(name, lambda: self._submit(Forget(name))))

    def end(self) -> Deferred[None]:
        """Give no more drafts; wait until all that was asked is done."""
        self._ended = Deferred()
        if not self._last:
            self._ended.callback(None)
        return self._ended

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
            fits = await self._submit(Keep(name, row, self._bounds, self._room, now))
        except CommitFailed:
            # As with messages: the row may be there at the next start, and so must be the file.
            raise
        except SpoolError as error:
            draft.discard()
            # What had the name must not be taken for this one.
            await self._submit(Forget(name)).addErrback(lambda _: None)
            if not isinstance(error, SpoolFull):
                raise
            fits = False
        if not fits:
            _log.info("there is no room for the part of a message ({size} octets)", size=draft.size)

    async def _take(self, name: str) -> Partial | None:
        row = await self._submit(Take(name, self._clock.seconds() - self._bounds.time))
        if row is None:
            return None
        queue_id, local_part, domain, body, smtputf8, submitter, targets, received, _, size, octets = row
        held: bytes | ArrivingFile = octets
        if octets is None:
            try:
                held = await self._files.reopen(queue_id, size)
            except OSError as error:
                _log.error("the part {queue_id} is lost: {error}", queue_id=queue_id, error=error)
                self._files.unlink([queue_id])
                return None
        envelope = Envelope(_address(local_part, domain), Body(body), bool(smtputf8), submitter)
        draft = SqliteDraft(queue_id, self._spill, self._files, self._enter, size, held)
        return Partial(draft, envelope, _targets(targets), received)


def _row(
    draft: SqliteDraft,
    octets: bytes | None,
    envelope: Envelope,
    targets: Sequence[Target],
    received: int,
    now: float,
) -> Row:
    reverse = envelope.reverse_path
    return (
        draft.queue_id,
        None if reverse is None else reverse.local_part,
        None if reverse is None else reverse.domain,
        envelope.body.value,
        envelope.smtputf8,
        envelope.submitter,
        json.dumps([_plain(target) for target in targets], separators=(",", ":")),
        received,
        now,
        draft.size,
        octets,
    )


def _plain(target: Target) -> list[str | None]:
    address, original = target.address, target.original
    return [
        address.local_part,
        address.domain,
        str(target.destination),
        None if original is None else original.local_part,
        None if original is None else original.domain,
    ]


def _targets(text: str) -> tuple[Target, ...]:
    return tuple(
        Target(Address(local_part, domain), Destination.parse(destination), _address(original, original_domain))
        for local_part, domain, destination, original, original_domain in json.loads(text)
    )


def _address(local_part: str | None, domain: str | None) -> Address | None:
    return None if local_part is None or domain is None else Address(local_part, domain)
