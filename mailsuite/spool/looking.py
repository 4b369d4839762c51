"""Looks into the queue, for operators: what was selected, what there is for whom, what a word means.

All of it is run on a connection for reading, in a worker thread or in another process, and may look at all that is
queued: no mail waits for it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise

from mailsuite.mail.address import Address
from mailsuite.mail.history import EventKind
from mailsuite.mail.route import HOLD, Destination
from mailsuite.mail.selection import (
    AGE_STEPS,
    DestinationLoad,
    Met,
    QueuedMessage,
    QueuedRecipient,
    QueueState,
    Selection,
)
from mailsuite.spool import journal
from mailsuite.spool.choosing import Conditions, conditions
from mailsuite.spool.columns import MESSAGE, address_of, message_of
from mailsuite.spool.patterns import address, contains
from mailsuite.spool.rows import Row
from mailsuite.spool.schema import ON_HOLD

# Messages one by one by their ids, with a look at the recipients of each.
SELECT = """
    SELECT {columns} FROM messages
    WHERE queue_id > :after AND {message} AND EXISTS (
        SELECT 1 FROM recipients INDEXED BY recipients_of_message
        WHERE recipients.message = messages.key AND {recipient}
    )
    ORDER BY queue_id LIMIT :limit
"""
SELECT_RECIPIENTS = """
    SELECT recipients.message, recipients.local_part, recipients.domain, recipients.destination,
        recipients.lease_owner, recipients.due, recipients.attempts, recipients.original_local_part,
        recipients.original_domain, recipients.last_attempt, recipients.last_status, recipients.last_text,
        recipients.last_remote
    FROM messages CROSS JOIN recipients INDEXED BY recipients_of_message ON recipients.message = messages.key
    WHERE messages.key IN (SELECT value FROM json_each(:messages)) AND {recipient}
    ORDER BY recipients.message, recipients.key
"""
# What is under lease is little: no more than the server has in memory.
LEASED = """
    SELECT recipients.key, messages.queue_id
    FROM {join}
    WHERE {message} AND {recipient} AND recipients.lease_owner > 0
"""
MET_DESTINATIONS = "SELECT DISTINCT recipients.destination FROM {join} WHERE {message} AND {recipient}"
MET_ADDRESSES = "SELECT DISTINCT recipients.local_part, recipients.domain FROM {join} WHERE {message} AND {recipient}"
_ALL = "recipients CROSS JOIN messages ON messages.key = recipients.message"
_OF_IDS = "messages CROSS JOIN recipients INDEXED BY recipients_of_message ON recipients.message = messages.key"
# Once through all recipients: a message counts once for each destination, however many recipients it has there.
LOADS = """
    WITH parts AS (
        SELECT
            message, destination, count(*) AS recipients, min(due) AS due,
            min(iif(lease_owner IS NULL, due, NULL)) AS next_due,
            sum(lease_owner IS 0) AS on_hold, sum(lease_owner > 0) AS active
        FROM recipients NOT INDEXED GROUP BY message, destination
    )
    SELECT
        destination, count(*) AS messages, sum(recipients), sum(size), min(arrived),
        coalesce(min(next_due), min(due)), sum(on_hold), coalesce(sum(active), 0), {ages}
    FROM parts CROSS JOIN messages ON messages.key = parts.message
    GROUP BY destination ORDER BY messages DESC, destination LIMIT :limit
"""
# With one max() alone, the other columns are those of its row (https://sqlite.org/lang_select.html#bareagg).
ERRORS = """
    SELECT destination, last_text, max(last_attempt) FROM recipients
    WHERE last_attempt IS NOT NULL AND destination IN (SELECT value FROM json_each(?)) GROUP BY destination
"""
# What may be meant; JSON is looked at more closely later.
FIND = """
    SELECT queue_id, subject, detail FROM journal
    WHERE kind = 'received' AND (detail LIKE ?1 ESCAPE '!' OR subject LIKE ?2 ESCAPE '!') ORDER BY queue_id DESC
"""
FIND_ID = "SELECT queue_id FROM journal WHERE queue_id = ? LIMIT 1"
FIND_QUEUED = """
    SELECT queue_id FROM messages
    WHERE queue_id = :text
        OR reverse_local_part || '@' || reverse_domain LIKE :pattern ESCAPE '!'
        OR EXISTS (
            SELECT 1 FROM recipients INDEXED BY recipients_of_message WHERE message = messages.key AND (
                local_part || '@' || domain LIKE :pattern ESCAPE '!'
                OR original_local_part || '@' || original_domain LIKE :pattern ESCAPE '!'
            )
        )
    ORDER BY queue_id DESC LIMIT :limit
"""


def select(db: sqlite3.Connection, selection: Selection, limit: int, after: str, now: float) -> Sequence[QueuedMessage]:
    """See `ISpool.select`."""
    meant = conditions(selection, now)
    values = {**meant.values, "after": after, "limit": max(limit, 0)}
    with _at_once(db):
        statement = SELECT.format(columns=MESSAGE, message=meant.message, recipient=meant.recipient)
        messages = db.execute(statement, values).fetchall()
        values["messages"] = json.dumps([row[0] for row in messages])
        rows = db.execute(SELECT_RECIPIENTS.format(recipient=meant.recipient), values).fetchall()
    recipients = {key: [_queued(row, now) for row in group] for key, group in groupby(rows, lambda row: row[0])}
    return [QueuedMessage(message_of(row), recipients[row[0]]) for row in messages]


def leased(db: sqlite3.Connection, selection: Selection, now: float) -> Sequence[tuple[int, str]]:
    """See `ISpool.leased`."""
    meant = conditions(selection, now)
    return db.execute(_of(LEASED, selection, meant), meant.values).fetchall()


def met(db: sqlite3.Connection, selection: Selection, now: float, *, addresses: bool) -> Met:
    """See `ISpool.met`."""
    meant = conditions(selection, now)
    with _at_once(db):
        rows = db.execute(_of(MET_DESTINATIONS, selection, meant), meant.values)
        destinations = frozenset(Destination.parse(name) for (name,) in rows)
        if not addresses:
            return Met(destinations)
        rows = db.execute(_of(MET_ADDRESSES, selection, meant), meant.values)
        return Met(destinations, frozenset(Address(local_part, domain) for local_part, domain in rows))


def _of(statement: str, selection: Selection, meant: Conditions) -> str:
    join = _OF_IDS if selection.ids else _ALL
    return statement.format(join=join, message=meant.message, recipient=meant.recipient)


def loads(db: sqlite3.Connection, limit: int, now: float) -> Sequence[DestinationLoad]:
    """See `ISpool.loads`."""
    with _at_once(db):
        rows = db.execute(LOADS.format(ages=AGES), {"now": now, "limit": max(limit, 0)}).fetchall()
        errors = db.execute(ERRORS, (json.dumps([row[0] for row in rows]),)).fetchall()
    last = {name: text for name, text, _ in errors}
    return [_load(row, last.get(row[0])) for row in rows]


def find(db: sqlite3.Connection, text: str, limit: int) -> Sequence[str]:
    """See `ISpool.find`."""
    found = {queue_id for (queue_id,) in db.execute(FIND_ID, (text,))}
    # As it stands in JSON; what is between two stars is enough for a first look.
    piece = max(text.strip("<>").split("*"), key=len)
    for queue_id, subject, detail in db.execute(FIND, (contains(json.dumps(piece)[1:-1]), contains(piece))):
        if len(found) >= limit:
            break
        if journal.is_about(journal.detail_of(EventKind.RECEIVED, subject, detail), text):
            found.add(queue_id)
    # Those that are queued since before there was a journal.
    values = {"text": text, "pattern": address(text), "limit": max(limit, 0)}
    found.update(queue_id for (queue_id,) in db.execute(FIND_QUEUED, values))
    return sorted(found, reverse=True)[: max(limit, 0)]


def _ages() -> str:
    """A count for each step of age, in SQL."""
    age = ":now - arrived"
    counts = []
    for low, high in pairwise([None, *AGE_STEPS, None]):
        above = "TRUE" if low is None else f"{age} > {low}"
        within = "TRUE" if high is None else f"{age} <= {high}"
        counts.append(f"sum({above} AND {within})")
    return ", ".join(counts)


AGES = _ages()


@contextmanager
def _at_once(db: sqlite3.Connection) -> Iterator[None]:
    """Several looks at one state of the database."""
    db.execute("SAVEPOINT look")
    try:
        yield
    finally:
        db.execute("RELEASE look")


def _load(row: Row, error: str | None) -> DestinationLoad:
    name, messages, recipients, octets, oldest, next_due, on_hold, active, *ages = row
    destination = Destination.parse(name)
    return DestinationLoad(
        destination, messages, recipients, octets, oldest, next_due, on_hold, active, error, tuple(ages)
    )


def _queued(row: Row, now: float) -> QueuedRecipient:
    (_, local_part, domain, name, owner, due, attempts, original, original_domain, when, status, text, remote) = row
    destination = Destination.parse(name)
    return QueuedRecipient(
        Address(local_part, domain),
        destination,
        _state(destination, owner, due, now),
        due,
        attempts,
        address_of(original, original_domain),
        when,
        status,
        text,
        remote,
    )


def _state(destination: Destination, owner: int | None, due: float, now: float) -> QueueState:
    if owner is not None:
        return QueueState.ON_HOLD if owner == ON_HOLD else QueueState.ACTIVE
    if destination.agent == HOLD:
        return QueueState.FOR_CUSTOMER
    return QueueState.DUE if due <= now else QueueState.WAITING
