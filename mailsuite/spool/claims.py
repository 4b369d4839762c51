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
from typing import NamedTuple

from mailsuite.mail.address import Address
from mailsuite.mail.content import Content, MemoryContent
from mailsuite.mail.options import NO_WISHES, RecipientOptions
from mailsuite.mail.queue import Delivery, HeldMail, Message, Outcome, Recipient, Result
from mailsuite.mail.route import HOLD, Destination
from mailsuite.mail.status import EnhancedStatus
from mailsuite.spool.columns import MESSAGE, address_of, message_of
from mailsuite.spool.contents import load
from mailsuite.spool.entry import Change
from mailsuite.spool.rows import Row

# The index has just these columns in this order, so that the groups come one after the other and LIMIT ends the walk.
CHOOSE = """
    SELECT due, message FROM recipients INDEXED BY recipients_waiting
    WHERE destination = ? AND lease_owner IS NULL AND rank = ? AND due <= ?
    GROUP BY due, message ORDER BY due, message LIMIT ?
"""
# Ranks (priorities, negated) from one to the next; nearly always there is one only. Under `hold` it is 0.
NEXT_RANK = """
    SELECT min(rank) FROM recipients INDEXED BY recipients_waiting
    WHERE destination = ? AND lease_owner IS NULL AND rank > ?
"""
BEFORE_ALL_RANKS = -100
# Which of many `hold` destinations have something, and since when.
HEADS = """
    SELECT value, (
        SELECT min(due) FROM recipients INDEXED BY recipients_waiting
        WHERE destination = value AND lease_owner IS NULL AND rank = 0
    )
    FROM json_each(?)
"""
# Named, because the other index looks as good to SQLite, and has all that waits for the destination.
LEASE = """
    UPDATE recipients INDEXED BY recipients_of_message SET lease_owner = ?
    WHERE message IN (SELECT value FROM json_each(?)) AND destination = ? AND lease_owner IS NULL AND due <= ?
    RETURNING message, key, local_part, domain, original_local_part, original_domain, attempts, replayed,
        options, reverse_local_part, reverse_domain, delay_told, expired,
        iif(expired = 2, json_array(last_status, last_text, last_remote), NULL)
"""
GIVE_BACK = """
    UPDATE recipients SET lease_owner = NULL WHERE key IN (SELECT value FROM json_each(?)) AND lease_owner = ?
"""
_MESSAGES = f"SELECT {MESSAGE} FROM messages WHERE key IN (SELECT value FROM json_each(?))"  # noqa: S608
# From one destination to the next by the index, and in each from one rank to the next, however many recipients lie
# between them. The first row of a destination has the rank before all, and nothing is due there.
DESTINATIONS = """
    WITH RECURSIVE waiting (destination, rank) AS (
        SELECT min(destination), -100 FROM recipients INDEXED BY recipients_waiting WHERE lease_owner IS NULL
        UNION ALL
        SELECT
            iif(
                (
                    SELECT min(rank) FROM recipients INDEXED BY recipients_waiting
                    WHERE lease_owner IS NULL AND destination = waiting.destination AND rank > waiting.rank
                ) IS NULL,
                (
                    SELECT min(destination) FROM recipients INDEXED BY recipients_waiting
                    WHERE lease_owner IS NULL AND destination > waiting.destination
                ),
                waiting.destination
            ),
            coalesce((
                SELECT min(rank) FROM recipients INDEXED BY recipients_waiting
                WHERE lease_owner IS NULL AND destination = waiting.destination AND rank > waiting.rank
            ), -100)
        FROM waiting WHERE waiting.destination IS NOT NULL
    )
    SELECT destination, (
        SELECT min(due) FROM recipients INDEXED BY recipients_waiting
        WHERE lease_owner IS NULL AND recipients.destination = waiting.destination AND rank = waiting.rank
    )
    FROM waiting WHERE destination IS NOT NULL AND rank > -100
"""
COUNT_WAITING = """
    SELECT count(DISTINCT message) FROM recipients INDEXED BY recipients_waiting
    WHERE destination IN (SELECT value FROM json_each(?)) AND lease_owner IS NULL
"""
# What is held, without a lease; `due` is when it arrived.
HELD_MESSAGES = f"""
    SELECT {MESSAGE}
    FROM (
        SELECT DISTINCT due, message FROM recipients INDEXED BY recipients_waiting
        WHERE destination = ? AND lease_owner IS NULL AND rank = 0 AND due > ? AND due <= ?
        ORDER BY due, message LIMIT ?
    ) AS waiting CROSS JOIN messages ON messages.key = waiting.message ORDER BY waiting.due, waiting.message
"""  # noqa: S608 - constants
HELD = """
    SELECT destination, messages, octets, (
        SELECT min(due) FROM recipients INDEXED BY recipients_held
        WHERE recipients.destination = held.destination
            AND recipients.destination >= 'hold:' AND recipients.destination < 'hold;'
    )
    FROM held ORDER BY destination
"""
WAITING = """
    SELECT
        recipients.key, recipients.local_part, recipients.domain, recipients.destination, messages.queue_id,
        coalesce(recipients.reverse_local_part, messages.reverse_local_part),
        iif(recipients.reverse_local_part IS NULL, messages.reverse_domain, recipients.reverse_domain)
    FROM recipients CROSS JOIN messages ON messages.key = recipients.message
    WHERE recipients.key > ? AND (recipients.lease_owner IS NULL OR recipients.lease_owner = 0)
        AND recipients.expired = 0
    ORDER BY recipients.key LIMIT ?
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
    """Leases what is due for one destination, of higher priority first, then the longest due.

    Or what there is for any number of `hold` destinations, the oldest first.

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
        leased: dict[tuple[int, Destination], list[Claimed]] = {}
        for destination, messages in together.items():
            for one in self._lease(db, destination, json.dumps(messages)):
                leased.setdefault((one.key, destination), []).append(one)
        claimed = [one for place in wanted for one in leased[place]]
        more = [recipient.key for one in claimed[self._limit :] for recipient in one.recipients]
        if more:  # messages whose recipients have different reverse-paths are several deliveries
            db.execute(GIVE_BACK, (json.dumps(more), self._owner))
        return claimed[: self._limit]

    def _choose(self, db: sqlite3.Connection) -> list[tuple[int, Destination]]:
        """What is next: messages, each with its destination."""
        if len(self._destinations) == 1:
            (destination,) = self._destinations
            return [(message, destination) for message in self._choose_of(db, destination)]
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
                walks[destination] = db.execute(CHOOSE, (str(destination), 0, math.inf, self._limit))
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
        rows = db.execute(HEADS, (names(self._destinations),)).fetchall()
        return [(due, -1, Destination.parse(name)) for name, due in rows if due is not None]

    def _choose_of(self, db: sqlite3.Connection, destination: Destination) -> Iterable[int]:
        """What is next for one destination: messages, by rank, then the longest due."""
        # In place of a set: a message may come twice, for recipients with different times.
        wanted: dict[int, None] = {}
        name, horizon = str(destination), self._horizon(destination)
        rank = BEFORE_ALL_RANKS
        while len(wanted) < self._limit:
            (rank,) = db.execute(NEXT_RANK, (name, rank)).fetchone()
            if rank is None:
                break
            left = self._limit - len(wanted)
            for _, message in db.execute(CHOOSE, (name, rank, horizon, left)).fetchall():
                wanted[message] = None
        return wanted

    def _horizon(self, destination: Destination) -> float:
        return math.inf if destination.agent == HOLD else self._now

    def _lease(self, db: sqlite3.Connection, destination: Destination, messages: str) -> Iterable[Claimed]:
        found = db.execute(LEASE, (self._owner, messages, str(destination), self._horizon(destination))).fetchall()
        found.sort()  # by message and key
        values = {row[0]: row for row in db.execute(_MESSAGES, (messages,)).fetchall()}
        for key, rows in groupby(found, itemgetter(0)):
            message = message_of(values[key])
            together: dict[Row, list[Row]] = {}
            for row in rows:
                together.setdefault((row[9], row[10], row[12]), []).append(row)
            for recipients in together.values():
                yield Claimed(
                    key,
                    message,
                    destination,
                    tuple(map(_recipient, recipients)),
                    replayed=any(row[7] for row in recipients),
                    in_file=bool(values[key][4]),
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
    return [message_of(row) for row in rows]


def held(rows: Iterable[Row]) -> Sequence[HeldMail]:
    """What `HELD` has found."""
    return [HeldMail(Destination.parse(name).name, count, octets, oldest) for name, count, octets, oldest in rows]


def waiting(rows: Iterable[Row]) -> Sequence[tuple[Destination, float]]:
    """What `DESTINATIONS` has found: each with the earliest time in any of its ranks, but for `hold`."""
    earliest: dict[str, float] = {}
    for name, due in rows:
        earliest[name] = min(due, earliest.get(name, due))
    found = ((Destination.parse(name), due) for name, due in earliest.items())
    return [(destination, due) for destination, due in found if destination.agent != HOLD]


def _recipient(row: Row) -> Recipient:
    _, key, local, domain, original, original_domain, attempts, _, options, reverse, reverse_domain, told, *over = row
    expired, failure = over
    return Recipient(
        key,
        Address(local, domain),
        address_of(original, original_domain),
        attempts,
        NO_WISHES if options is None else RecipientOptions.from_text(options),
        address_of(reverse, reverse_domain),
        bool(told),
        bool(expired),
        None if failure is None else _failure(*json.loads(failure)),
    )


def _failure(status: str, text: str, remote: str | None) -> Outcome:
    """What came of a recipient whose report is missing."""
    return Outcome(Result.FAILED, EnhancedStatus.parse(status) or EnhancedStatus(5, 0, 0), text, remote=remote)
