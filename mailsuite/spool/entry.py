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
from mailsuite.mail.address import Address
from mailsuite.mail.content import Content
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.options import NO_WISHES, PLAIN
from mailsuite.mail.origin import Origin
from mailsuite.mail.queue import Delivery, Message, Recipient
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.spool import journal
from mailsuite.spool.columns import message_options, recipient_options
from mailsuite.spool.rows import Row, Rows
from mailsuite.spool.transactions import Operation

_MESSAGE = (
    "messages (key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, arrived, size, in_file, "
    "options, rank)"
)
_CONTENT = "contents (message, octets)"
_RECIPIENT = (
    "recipients (key, message, local_part, domain, original_local_part, original_domain, destination, due, "
    "lease_owner, options, reverse_local_part, reverse_domain, rank)"
)
COMPLETE = """
    INSERT OR REPLACE INTO completed (
        name, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, options, targets, received,
        time
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_MOST_ROWS = 64  # for one statement; a power of two
_RUN = 36  # bits: more steps than a run will ever write


class Entry(NamedTuple):
    """What is to be inserted for one message, and what the watcher is told when it is durable."""

    message: Row
    octets: Row | None
    recipients: list[Row]
    arrival: Row
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
        self.numbers: Iterator[int] = count(first_number(owner))

    def make(
        self,
        queue_id: str,
        envelope: Envelope,
        targets: Sequence[Target],
        content: Content,
        *,
        origin: Origin | None = None,
        composed: str | None = None,
    ) -> Entry:
        """The entry for a message. The content goes into the database if it lies in memory.

        `composed` is the message that it is a report on.
        """
        if not targets:
            raise ValueError("a message without recipients cannot be queued")
        key = next(self._message_keys)
        arrived = self._clock.seconds()
        size = content.size
        octets = content.in_memory()
        reverse = envelope.reverse_path
        options = envelope.options
        due = arrived if options.hold_until is None else max(arrived, options.hold_until)
        rank = -options.priority
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
            None if options is PLAIN else message_options(options),
            rank,
        )
        rows: list[Row] = []
        known: dict[Destination, list[Recipient] | None] = {}  # None: it waits
        apart: dict[tuple[Destination, Address], list[Recipient]] = {}  # leased, with a sender of their own
        for target in targets:
            address, destination, original = target.address, target.destination, target.original
            own, wishes = target.reverse_path, target.options
            held = destination.agent == HOLD
            if destination not in known:
                room = not held and due == arrived and self._has_room(destination, size)
                known[destination] = [] if room else None
            recipients = known[destination]
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
                    arrived if held else due,
                    None if recipients is None else self._owner,
                    None if wishes is NO_WISHES else recipient_options(wishes),
                    None if own is None else own.local_part,
                    None if own is None else own.domain,
                    0 if held else rank,
                )
            )
            if recipients is not None:
                if own is not None:
                    recipients = apart.setdefault((destination, own), [])
                recipients.append(Recipient(number, address, original, 0, wishes, own))
        value = Message(queue_id, envelope, size, arrived)
        leased = [
            Delivery(value, destination, tuple(together), content)
            for destination, together in known.items()
            if together
        ]
        if apart:
            leased += [
                Delivery(value, destination, tuple(together), content) for (destination, _), together in apart.items()
            ]
        waiting = [one for one, together in known.items() if together is None and one.agent != HOLD]
        first = journal.arrival(next(self.numbers), targets, origin, composed)
        return Entry(message, None if octets is None else (key, octets), rows, first, leased, waiting)


def first_number(owner: int) -> int:
    """Where the numbers of steps begin in a run of the spool: behind those of all runs before it."""
    return owner << _RUN


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
        self.rows: Rows = entry[:4]
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
    _insert(db, _MESSAGE, [message for message, _, _, _ in messages])
    _insert(db, _CONTENT, [octets for _, octets, _, _ in messages if octets is not None])
    _insert(db, _RECIPIENT, list(chain.from_iterable(recipients for _, _, recipients, _ in messages)))
    _insert(db, journal.TABLE, [journal.received(message, rows, first) for message, _, rows, first in messages])


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
