"""What operators do with recipients that wait: in bites, each chosen by a reader and then done by the writer.

What was claimed between the two is under way, and stays as it is. Each message gets a step in its journal.
"""

# ruff: noqa: S608 - statements are put together from constants

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from mailsuite.mail.address import Address
from mailsuite.mail.history import EventKind
from mailsuite.mail.route import HOLD, Destination
from mailsuite.mail.selection import Managed, QueueAction, Selection
from mailsuite.spool import journal
from mailsuite.spool.changes import NOT_BEFORE
from mailsuite.spool.choosing import conditions
from mailsuite.spool.entry import Change
from mailsuite.spool.schema import ON_HOLD

BITE: Final = 1000  # recipients

# By the key, from one bite to the next. With ids, only the recipients of these messages are looked at.
CHOOSE = """
    SELECT recipients.key, recipients.lease_owner
    FROM recipients CROSS JOIN messages ON messages.key = recipients.message
    WHERE recipients.key > :after AND recipients.key <= :last AND {message} AND {recipient}
    ORDER BY recipients.key LIMIT :limit
"""
CHOOSE_OF_IDS = """
    SELECT recipients.key, recipients.lease_owner
    FROM messages CROSS JOIN recipients INDEXED BY recipients_of_message ON recipients.message = messages.key
    WHERE +recipients.key > :after AND +recipients.key <= :last AND {message} AND {recipient}
    ORDER BY recipients.key LIMIT :limit
"""
LAST = "SELECT coalesce(max(key), 0) FROM recipients"

_THESE = "key IN (SELECT value FROM json_each(:keys))"
_FREE = f"(lease_owner IS NULL OR lease_owner = {ON_HOLD})"
_IS_HELD = "(destination >= 'hold:' AND destination < 'hold;')"
_IS_EXPIRED = "(destination >= 'expired:' AND destination < 'expired;')"
_BACK = "message, local_part, domain, destination"
_NOW = f"max(:now, {NOT_BEFORE})"
_DUE = f"due = iif({_IS_HELD}, due, min(due, {_NOW}))"
# Under hold, `due` is the time of arrival, and the rank is 0: whatever crosses that line gets the other ones.
_ACTIONS: Final = {
    QueueAction.HOLD: f"UPDATE recipients SET lease_owner = {ON_HOLD} WHERE {_THESE} AND lease_owner IS NULL",
    QueueAction.RELEASE: (
        f"UPDATE recipients SET lease_owner = NULL, {_DUE} WHERE {_THESE} AND lease_owner = {ON_HOLD}"
    ),
    # What comes too early must not lengthen the waits: it takes the place of the attempt before it.
    QueueAction.RETRY: f"""
        UPDATE recipients SET due = min(due, {_NOW}), attempts = iif(due > :now, max(attempts - 1, 0), attempts)
        WHERE {_THESE} AND lease_owner IS NULL AND NOT {_IS_HELD}
    """,
    QueueAction.REQUEUE: f"""
        UPDATE recipients SET
            lease_owner = NULL, expired = 0, attempts = 0,
            last_attempt = NULL, last_status = NULL, last_text = NULL, last_remote = NULL,
            destination = iif({_IS_EXPIRED}, 'hold:' || substr(destination, 9), destination),
            rank = iif({_IS_EXPIRED}, 0, rank),
            due = CASE
                WHEN {_IS_EXPIRED} THEN (SELECT arrived FROM messages WHERE messages.key = recipients.message)
                WHEN {_IS_HELD} THEN due
                ELSE min(due, {_NOW})
            END
        WHERE {_THESE} AND {_FREE}
    """,
    QueueAction.EXPIRE: f"""
        UPDATE recipients SET
            lease_owner = NULL, expired = max(expired, 1), due = min(due, :now),
            destination = iif({_IS_HELD}, 'expired:' || substr(destination, 6), destination),
            rank = iif({_IS_HELD}, (SELECT messages.rank FROM messages WHERE messages.key = recipients.message), rank)
        WHERE {_THESE} AND {_FREE}
    """,
    QueueAction.DELETE: f"DELETE FROM recipients WHERE {_THESE} AND {_FREE}",
}


class Bite(NamedTuple):
    """Recipients that were chosen: the keys of those to change, and how many are `busy`.

    `at` is the highest key in it, `last` the highest that there was at the beginning.
    """

    keys: Sequence[int]
    busy: int
    at: int
    last: int | None


FIRST: Final = Bite((), 0, 0, None)


def choose(db: sqlite3.Connection, selection: Selection, before: Bite, now: float) -> Bite | None:
    """What is meant next, after the bite before; what comes while others are done is left alone. None at the end."""
    last = db.execute(LAST).fetchone()[0] if before.last is None else before.last
    meant = conditions(selection, now)
    statement = (CHOOSE_OF_IDS if selection.ids else CHOOSE).format(message=meant.message, recipient=meant.recipient)
    rows = db.execute(statement, {**meant.values, "after": before.at, "last": last, "limit": BITE}).fetchall()
    if not rows:
        return None
    free = [key for key, owner in rows if owner is None or owner == ON_HOLD]
    return Bite(free, len(rows) - len(free), rows[-1][0], last)


class Manage(Change):
    """Does something with recipients. The result are the keys of the messages, for each recipient that was changed,
    and how many were under way.
    """  # noqa: D205 - one sentence

    __slots__ = ("_action", "_by", "_keys", "_now", "_numbers")

    def __init__(self, action: QueueAction, keys: Sequence[int], by: str, now: float, numbers: Iterator[int]) -> None:
        """`numbers` are for steps."""
        super().__init__()
        self._action = action.value
        self._keys = json.dumps(keys)
        self._by = by
        self._now = now
        self._numbers = list(islice(numbers, len(keys)))

    def run(self, db: sqlite3.Connection) -> tuple[list[int], int]:
        action = QueueAction(self._action)
        values = {"keys": self._keys, "now": self._now}
        files = self._files(db) if action is QueueAction.DELETE else {}
        (busy,) = db.execute(f"SELECT count(*) FROM recipients WHERE {_THESE} AND lease_owner > 0", values).fetchone()
        ids = dict(db.execute(_IDS, values).fetchall())
        rows = db.execute(f"{_ACTIONS[action]} RETURNING {_BACK}", values).fetchall()
        together: dict[int, list[str]] = {}
        for message, local_part, domain, _ in rows:
            together.setdefault(message, []).append(str(Address(local_part, domain)))
        steps = [
            (ids[message], number, self._now, EventKind.MANAGED.value, self._action, self._detail(addresses))
            for number, (message, addresses) in zip(self._numbers, together.items(), strict=False)
        ]
        db.executemany(journal.INSERT, steps)
        if action is QueueAction.DELETE:
            left = {key for (key,) in db.execute(_STILL_THERE, (json.dumps(list(files)),))}
            self.gone = [queue_id for key, queue_id in files.items() if key not in left]
        elif action is not QueueAction.HOLD:
            found = (Destination.parse(name) for name in dict.fromkeys(row[3] for row in rows))
            self.due = [destination for destination in found if destination.agent != HOLD]
        return [row[0] for row in rows], busy

    def _detail(self, addresses: Sequence[str]) -> str:
        return journal.encode({"recipients": addresses, "by": self._by})

    def _files(self, db: sqlite3.Connection) -> dict[int, str]:
        """The messages whose contents are files."""
        return dict(db.execute(f"{_IDS} AND in_file", {"keys": self._keys}).fetchall())


_IDS = f"SELECT key, queue_id FROM messages WHERE key IN (SELECT message FROM recipients WHERE {_THESE})"
_STILL_THERE = "SELECT key FROM messages WHERE key IN (SELECT value FROM json_each(?))"


class Tally:
    """Sums up what the bites have done."""

    def __init__(self) -> None:
        self._messages: set[int] = set()
        self._recipients = 0
        self._busy = 0

    def add(self, bite: Bite, result: tuple[Sequence[int], int] | None) -> None:
        """Add a bite, and what `Manage` has said of it."""
        self._busy += bite.busy
        if result is not None:
            messages, busy = result
            self._messages.update(messages)
            self._recipients += len(messages)
            self._busy += busy

    @property
    def managed(self) -> Managed:
        """All of it."""
        return Managed(len(self._messages), self._recipients, self._busy)
