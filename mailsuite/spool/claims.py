"""Claims: which deliveries are leased next, and how they are read.

The choice walks an index in the order that is wanted and stops at the limit: it costs the same whether ten recipients
wait or a hundred thousand. The lease is taken in the writer's transaction; contents are read after it, by another
thread.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from mailsuite.mail.address import Address
from mailsuite.mail.content import Content, MemoryContent
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.queue import Delivery, HeldMail, Message, Recipient
from mailsuite.mail.route import HOLD, Destination
from mailsuite.spool.contents import load
from mailsuite.spool.entry import Change, Row

# The index has just these columns in this order, so that the groups come one after the other and LIMIT ends the walk.
CHOOSE = """
    SELECT due, message FROM recipients INDEXED BY recipients_waiting
    WHERE destination = ? AND lease_owner IS NULL AND due <= ?
    GROUP BY due, message ORDER BY due, message LIMIT ?
"""
# Which of many destinations have something, and since when.
HEADS = """
    SELECT value, (
        SELECT min(due) FROM recipients INDEXED BY recipients_waiting WHERE destination = value AND lease_owner IS NULL
    )
    FROM json_each(?)
"""
# Named, because the other index looks as good to SQLite, and has all that waits for the destination.
LEASE = """
    UPDATE recipients INDEXED BY recipients_of_message SET lease_owner = ?
    WHERE message IN (SELECT value FROM json_each(?)) AND destination = ? AND lease_owner IS NULL AND due <= ?
    RETURNING message, key, local_part, domain, original_local_part, original_domain, attempts, replayed
"""
_MESSAGES = """
    SELECT key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, arrived, size, in_file
    FROM messages WHERE key IN (SELECT value FROM json_each(?))
"""
# From one destination to the next by the index, however many recipients lie between them.
DESTINATIONS = """
    WITH RECURSIVE waiting (destination) AS (
        SELECT min(destination) FROM recipients INDEXED BY recipients_waiting WHERE lease_owner IS NULL
        UNION ALL
        SELECT (
            SELECT min(destination) FROM recipients INDEXED BY recipients_waiting
            WHERE lease_owner IS NULL AND destination > waiting.destination
        )
        FROM waiting WHERE waiting.destination IS NOT NULL
    )
    SELECT destination, (
        SELECT min(due) FROM recipients INDEXED BY recipients_waiting
        WHERE lease_owner IS NULL AND recipients.destination = waiting.destination
    )
    FROM waiting WHERE destination IS NOT NULL
"""
COUNT_WAITING = """
    SELECT count(DISTINCT message) FROM recipients INDEXED BY recipients_waiting
    WHERE destination IN (SELECT value FROM json_each(?)) AND lease_owner IS NULL
"""
# What is held, without a lease; `due` is when it arrived.
HELD_MESSAGES = """
    SELECT key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, submitter, arrived, size, in_file
    FROM (
        SELECT DISTINCT due, message FROM recipients INDEXED BY recipients_waiting
        WHERE destination = ? AND lease_owner IS NULL AND due > ? AND due <= ? ORDER BY due, message LIMIT ?
    ) AS waiting CROSS JOIN messages ON messages.key = waiting.message ORDER BY waiting.due, waiting.message
"""
HELD = """
    SELECT destination, messages, octets, (
        SELECT min(due) FROM recipients INDEXED BY recipients_held
        WHERE recipients.destination = held.destination
            AND recipients.destination >= 'hold:' AND recipients.destination < 'hold;'
    )
    FROM held ORDER BY destination
"""
WAITING = """
    SELECT key, local_part, domain, destination FROM recipients
    WHERE key > ? AND lease_owner IS NULL ORDER BY key LIMIT ?
"""
_TO_MEMORY = 4 * 1024 * 1024  # octets of contents that are read along with one claim


class Claimed(NamedTuple):
    """A delivery that was leased, but for its content."""

    key: int
    message: Message
    destination: Destination
    recipients: tuple[Recipient, ...]
    replayed: bool
    in_file: bool


class Claim(Change):
    """Leases what is due for destinations (under `hold`: what there is), the longest due first.

    The result is a list of `Claimed`.
    """

    __slots__ = ("_destinations", "_limit", "_now", "_owner")

    def __init__(self, destinations: Sequence[Destination], limit: int, owner: int, now: float) -> None:
        super().__init__()
        self._destinations = list(dict.fromkeys(destinations))
        self._limit = limit
        self._owner = owner
        self._now = now

    def run(self, db: sqlite3.Connection) -> list[Claimed]:
        wanted = self._choose(db)
        together: dict[Destination, list[int]] = {}
        for message, destination in wanted:
            together.setdefault(destination, []).append(message)
        claimed: dict[tuple[int, Destination], Claimed] = {}
        for destination, messages in together.items():
            for one in self._lease(db, destination, json.dumps(messages)):
                claimed[one.key, destination] = one
        return [claimed[place] for place in wanted]

    def _choose(self, db: sqlite3.Connection) -> list[tuple[int, Destination]]:
        """The longest due: messages, each with its destination."""
        # In place of a set, for its order. A message may come twice, for recipients with different times.
        wanted: dict[tuple[int, Destination], None] = {}
        # The walks along the index, merged: one begins when its destination's first is next, so that a turn for a
        # thousand domains looks at as many rows as it takes, and at the first of each.
        walks: dict[Destination, sqlite3.Cursor] = {}
        heap = self._heads(db)
        heapify(heap)
        while heap and len(wanted) < self._limit:
            _, message, destination = heap[0]
            if destination not in walks:
                walks[destination] = db.execute(CHOOSE, (str(destination), self._horizon(destination), self._limit))
            else:
                wanted[message, destination] = None
            following = next(walks[destination], None)
            if following is None:
                heappop(heap)
            else:
                heapreplace(heap, (*following, destination))
        for walk in walks.values():
            walk.close()  # before the table is changed below it
        return list(wanted)

    def _heads(self, db: sqlite3.Connection) -> list[tuple[float, int, Destination]]:
        if len(self._destinations) == 1:
            return [(0.0, 0, self._destinations[0])]
        rows = db.execute(HEADS, (names(self._destinations),)).fetchall()
        heads = ((due, -1, Destination.parse(name)) for name, due in rows if due is not None)
        return [(due, first, destination) for due, first, destination in heads if due <= self._horizon(destination)]

    def _horizon(self, destination: Destination) -> float:
        return math.inf if destination.agent == HOLD else self._now

    def _lease(self, db: sqlite3.Connection, destination: Destination, messages: str) -> Iterable[Claimed]:
        found = db.execute(LEASE, (self._owner, messages, str(destination), self._horizon(destination))).fetchall()
        found.sort()  # by message and key
        values = {row[0]: row for row in db.execute(_MESSAGES, (messages,)).fetchall()}
        for key, rows in groupby(found, itemgetter(0)):
            recipients = list(rows)
            yield Claimed(
                key,
                _message(values[key]),
                destination,
                tuple(map(_recipient, recipients)),
                replayed=any(row[7] for row in recipients),
                in_file=bool(values[key][9]),
            )


def read_deliveries(
    db: sqlite3.Connection, claimed: Sequence[Claimed], lazily: Callable[[Claimed], Content]
) -> list[Delivery]:
    """Deliveries with the first few megabytes of their contents in memory, and the others as `lazily` has them."""
    small: list[int] = []
    total = 0
    for one in claimed:
        if not one.in_file and total + one.message.size <= _TO_MEMORY:
            total += one.message.size
            small.append(one.key)
    return as_deliveries(claimed, load(db, small), lazily)


def as_deliveries(
    claimed: Sequence[Claimed], octets: Mapping[int, bytes], lazily: Callable[[Claimed], Content]
) -> list[Delivery]:
    """Deliveries whose contents are these octets, by the message's key, or else as `lazily` has them."""
    return [
        Delivery(
            one.message,
            one.destination,
            one.recipients,
            MemoryContent(octets[one.key]) if one.key in octets else lazily(one),
            one.replayed,
        )
        for one in claimed
    ]


def names(destinations: Iterable[Destination]) -> str:
    """Destinations as one parameter."""
    return json.dumps([str(destination) for destination in destinations])


def messages(rows: Iterable[Row]) -> Sequence[Message]:
    """What `HELD_MESSAGES` has found."""
    return [_message(row) for row in rows]


def held(rows: Iterable[Row]) -> Sequence[HeldMail]:
    """What `HELD` has found."""
    return [HeldMail(Destination.parse(name).name, count, octets, oldest) for name, count, octets, oldest in rows]


def _message(row: Sequence[Any]) -> Message:
    _, queue_id, local_part, domain, body, smtputf8, submitter, arrived, size, _ = row
    envelope = Envelope(_address(local_part, domain), Body(body), bool(smtputf8), submitter)
    return Message(queue_id, envelope, size, arrived)


def _recipient(row: Sequence[Any]) -> Recipient:
    _, key, local_part, domain, original_local_part, original_domain, attempts, _ = row
    return Recipient(key, Address(local_part, domain), _address(original_local_part, original_domain), attempts)


def _address(local_part: str | None, domain: str | None) -> Address | None:
    return None if local_part is None or domain is None else Address(local_part, domain)
