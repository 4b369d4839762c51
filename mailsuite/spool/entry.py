"""A message as it enters the queue: its rows, and those of its deliveries that are leased on the spot.

Rows are built on the reactor's thread, where the watcher can be asked; the writer's thread only hands them to SQLite.
Keys are counted in memory: no one else writes to this queue.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, count
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from mailsuite.interfaces import SpoolFull
from mailsuite.mail.content import Content
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Message, Recipient
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.spool.transactions import Operation

Row = tuple[Any, ...]
Rows = tuple[Row, Row | None, list[Row]]  # of a message: its own, its content's, its recipients'

_MESSAGE = (
    "messages (key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, arrived, size, in_file)"
)
_CONTENT = "contents (message, octets)"
_RECIPIENT = (
    "recipients (key, message, local_part, domain, original_local_part, original_domain, destination, due, lease_owner)"
)
COMPLETE = """
    INSERT OR REPLACE INTO completed (
        name, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, targets, received, time
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_MOST_ROWS = 64  # for one statement; a power of two


class Entry(NamedTuple):
    """What is to be inserted for one message, and what the watcher is told when it is durable."""

    message: Row
    octets: Row | None
    recipients: list[Row]
    leased: list[Delivery]
    due: list[Destination]


class Entries:
    """Makes entries. `owner` is the lease under which deliveries go out at once, where `has_room` says so."""

    def __init__(
        self,
        clock: IReactorTime,
        owner: int,
        last_message: int,
        last_recipient: int,
        has_room: Callable[[Destination, int], bool],
    ) -> None:
        self._clock = clock
        self._owner = owner
        self._message_keys: Iterator[int] = count(last_message + 1)
        self._recipient_keys: Iterator[int] = count(last_recipient + 1)
        self._has_room = has_room

    def make(
        self,
        queue_id: str,
        envelope: Envelope,
        targets: Sequence[Target],
        content: Content,
        *,
        arrived: float | None = None,
    ) -> Entry:
        """The entry for a message. The content goes into the database if it lies in memory."""
        if not targets:
            raise ValueError("a message without recipients cannot be queued")
        key = next(self._message_keys)
        if arrived is None:
            arrived = self._clock.seconds()
        size = content.size
        octets = content.in_memory()
        reverse = envelope.reverse_path
        message = (
            key,
            queue_id,
            None if reverse is None else reverse.local_part,
            None if reverse is None else reverse.domain,
            envelope.body.value,
            envelope.smtputf8,
            envelope.submitter,
            arrived,
            size,
            octets is None,
        )
        rows: list[Row] = []
        leased: dict[Destination, list[Recipient]] = {}
        waiting: dict[Destination, None] = {}  # in place of a set, for its order
        for target in targets:
            address, destination, original = target.address, target.destination, target.original
            if destination not in leased and destination not in waiting:
                if destination.agent != HOLD and self._has_room(destination, size):
                    leased[destination] = []
                else:
                    waiting[destination] = None
            recipients = leased.get(destination)
            number = next(self._recipient_keys)
            rows.append(
                (
                    number,
                    key,
                    address.local_part,
                    address.domain,
                    None if original is None else original.local_part,
                    None if original is None else original.domain,
                    str(destination),
                    arrived,
                    None if recipients is None else self._owner,
                )
            )
            if recipients is not None:
                recipients.append(Recipient(number, address, original))
        deliveries = []
        if leased:
            value = Message(queue_id, envelope, size, arrived)
            deliveries = [
                Delivery(value, destination, tuple(recipients), content) for destination, recipients in leased.items()
            ]
        due = [destination for destination in waiting if destination.agent != HOLD]
        return Entry(message, None if octets is None else (key, octets), rows, deliveries, due)


class Change(Operation):
    """An operation that others hear of when it is durable.

    For `due` something waits now, `gone` are the ids of messages that are not there any more and whose content files
    are.
    """

    __slots__ = ("due", "gone")

    completion: Row | None = None  # what is remembered of a message that has a name

    def __init__(self) -> None:
        super().__init__()
        self.due: Iterable[Destination] = ()
        self.gone: Sequence[str] = ()

    @property
    def entries(self) -> Sequence[Entry]:
        """What has entered the queue."""
        return ()

    def effects(self) -> Any:  # noqa: ANN401 - its own
        return (list(self.due), self.gone) if self.due or self.gone else None

    def take(self, effects: Any) -> None:  # noqa: ANN401 - its own
        self.due, self.gone = effects


class Room(NamedTuple):
    """How much must be left free on a disk."""

    directory: str
    reserve: int

    def check(self) -> None:
        """See that there is as much. Blocks; raises `SpoolFull`."""
        free = os.statvfs(self.directory)
        if free.f_bavail * free.f_frsize < self.reserve:
            raise SpoolFull(f"There is no room for new mail in {self.directory}: {self.reserve} octets are kept free")


class Insertion(Change):
    """Inserts one message. Those that are pending together are inserted together.

    It fails with `SpoolFull` where the `room` that is left is kept for what is in the queue already. With `completion`
    it is remembered that the transaction of a name is complete.
    """

    __slots__ = ("completion", "entry", "room", "rows")

    rank = 0
    near = Operation.near | {"entry"}  # what is leased on the spot stays here: its content is not needed twice

    def __init__(self, entry: Entry, room: Room, completion: Row | None = None) -> None:
        super().__init__()
        self.entry = entry
        self.rows: Rows = entry[:3]
        self.room = room
        self.completion = completion

    @property
    def entries(self) -> Sequence[Entry]:
        return (self.entry,)

    def run(self, db: sqlite3.Connection) -> None:
        self.run_together(db, [self])

    @classmethod
    def run_together(cls, db: sqlite3.Connection, operations: Sequence[Insertion]) -> None:
        operations[0].room.check()
        insert(db, [operation.rows for operation in operations])
        completions = [operation.completion for operation in operations if operation.completion is not None]
        if completions:
            db.executemany(COMPLETE, completions)


def insert(db: sqlite3.Connection, messages: Sequence[Rows]) -> None:
    """Insert messages, within the transaction that is open. Raises `sqlite3.Error`."""
    _insert(db, _MESSAGE, [message for message, _, _ in messages])
    _insert(db, _CONTENT, [octets for _, octets, _ in messages if octets is not None])
    _insert(db, _RECIPIENT, list(chain.from_iterable(recipients for _, _, recipients in messages)))


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    at, left = 0, len(rows)
    while left:
        # The largest power of two, so that few statements serve all numbers and stay in the connection's cache.
        number = min(_MOST_ROWS, 1 << (left.bit_length() - 1))
        db.execute(_statement(table, number, len(rows[at])), list(chain.from_iterable(rows[at : at + number])))
        at += number
        left -= number


@cache
def _statement(table: str, number: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return " ".join(("INSERT INTO", table, "VALUES", ", ".join([row] * number)))
