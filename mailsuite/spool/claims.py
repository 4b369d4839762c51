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
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

from mailsuite.mail.address import Address
from mailsuite.mail.content import Content, MemoryContent
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.queue import Delivery, Message, Recipient
from mailsuite.mail.route import HOLD, Destination
from mailsuite.spool.contents import load
from mailsuite.spool.entry import Change

# The index has just these columns in this order, so that the groups come one after the other and LIMIT ends the walk.
CHOOSE = """
    SELECT due, message FROM recipients INDEXED BY recipients_waiting
    WHERE destination = ? AND lease_owner IS NULL AND due <= ?
    GROUP BY due, message ORDER BY due, message LIMIT ?
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
        self._destinations = destinations
        self._limit = limit
        self._owner = owner
        self._now = now

    def run(self, db: sqlite3.Connection) -> list[Claimed]:
        chosen: list[tuple[float, int, Destination]] = []
        for destination in self._destinations:
            rows = db.execute(CHOOSE, (str(destination), self._horizon(destination), self._limit))
            chosen += [(due, message, destination) for due, message in rows.fetchall()]
        if not chosen:
            return []
        chosen.sort()
        # A message may stand there twice, for recipients with different times.
        ranks = {(message, destination): None for _, message, destination in chosen}
        wanted = list(islice(ranks, self._limit))
        claimed: dict[tuple[int, Destination], Claimed] = {}
        for destination in {destination for _, destination in wanted}:
            messages = [message for message, other in wanted if other == destination]
            for one in self._lease(db, destination, json.dumps(messages)):
                claimed[one.key, destination] = one
        return [claimed[place] for place in wanted]

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


def _message(row: Sequence[Any]) -> Message:
    _, queue_id, local_part, domain, body, smtputf8, submitter, arrived, size, _ = row
    envelope = Envelope(_address(local_part, domain), Body(body), bool(smtputf8), submitter)
    return Message(queue_id, envelope, size, arrived)


def _recipient(row: Sequence[Any]) -> Recipient:
    _, key, local_part, domain, original_local_part, original_domain, attempts, _ = row
    return Recipient(key, Address(local_part, domain), _address(original_local_part, original_domain), attempts)


def _address(local_part: str | None, domain: str | None) -> Address | None:
    return None if local_part is None or domain is None else Address(local_part, domain)
