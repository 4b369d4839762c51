"""What happens to recipients under lease: outcomes, and leases that are given back, moved, renewed or void.

Every statement names the owner of the lease: without the lease nothing changes, whatever is asked. Lists of keys travel
as one JSON parameter, so that one statement serves any number.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from twisted.logger import Logger

from mailsuite.mail import steps
from mailsuite.mail.queue import Delivery, Report, Result, Settlement
from mailsuite.mail.route import HOLD, Destination
from mailsuite.spool import journal
from mailsuite.spool.claims import BEFORE_ALL_RANKS, GIVE_BACK, NEXT_RANK
from mailsuite.spool.contents import FileContent
from mailsuite.spool.entry import Change, Entry, insert
from mailsuite.spool.events import INSERT_EVENT, event_row
from mailsuite.spool.rows import Row, Rows, storable
from mailsuite.spool.schema import ON_HOLD
from mailsuite.spool.transactions import Operation

_log = Logger()

_TEXT_LIMIT = 1000  # characters of a remote's reply that are kept

# The trigger takes the message away with its last recipient.
REMOVE = "DELETE FROM recipients WHERE key IN (SELECT value FROM json_each(?)) AND lease_owner = ?"
_DEFER = """
    UPDATE recipients SET due = ?, lease_owner = NULL, replayed = 0, attempts = attempts + 1,
        last_attempt = ?, last_status = ?, last_text = ?, last_remote = ?
    WHERE key = ? AND lease_owner = ?
"""
# Nobody knows how far whoever met a defect had come.
_SET_ASIDE = f"""
    UPDATE recipients SET lease_owner = {ON_HOLD}, replayed = 1,
        last_attempt = ?, last_status = ?, last_text = ?, last_remote = ?
    WHERE key = ? AND lease_owner = ?
"""  # noqa: S608 - a constant
# Who has failed stays for the report alone: no agent sees it again, and nobody who claims what is held.
_KEEP_BACK = """
    UPDATE recipients SET due = ?, lease_owner = NULL, replayed = 0, attempts = attempts + 1, expired = 2,
        last_attempt = ?, last_status = ?, last_text = ?, last_remote = ?,
        rank = (SELECT messages.rank FROM messages WHERE messages.key = recipients.message),
        destination = iif(
            destination >= 'hold:' AND destination < 'hold;', 'expired:' || substr(destination, 6), destination
        )
    WHERE key = ? AND lease_owner = ?
"""
_TELL = """
    UPDATE recipients SET delay_told = 1 WHERE key IN (SELECT value FROM json_each(?)) AND lease_owner = ?
"""
_IS_HELD = "destination >= 'hold:' AND destination < 'hold;'"
_RANK = "(SELECT messages.rank FROM messages WHERE messages.key = recipients.message)"
# Nothing is due before its sender wants it to be sent (RFC 4865).
NOT_BEFORE = """coalesce((
    SELECT json_extract(messages.options, '$.hold_until') FROM messages WHERE messages.key = recipients.message
), 0)"""
_MOVE = f"""
    UPDATE recipients SET due = max(?, {NOT_BEFORE}), rank = {_RANK}, lease_owner = NULL, destination = ?
    WHERE key IN (SELECT value FROM json_each(?)) AND lease_owner = ?
"""  # noqa: S608 - a constant
_REROUTE = f"""
    UPDATE recipients SET due = max(iif({_IS_HELD}, ?, due), {NOT_BEFORE}), rank = {_RANK}, destination = ?
    WHERE key = ? AND destination = ? AND (lease_owner IS NULL OR lease_owner = {ON_HOLD}) AND expired = 0
"""  # noqa: S608 - a constant
HURRY = f"""
    UPDATE recipients SET due = max(:now, {NOT_BEFORE}) WHERE key IN (
        SELECT key FROM recipients INDEXED BY recipients_waiting
        WHERE destination = :destination AND lease_owner IS NULL AND rank = :rank AND due > :now
            AND due > {NOT_BEFORE} LIMIT :limit
    )
"""  # noqa: S608 - a constant
_IS_AWAITED = """
    SELECT 1 FROM recipients INDEXED BY recipients_waiting WHERE destination = ? AND lease_owner IS NULL LIMIT 1
"""
_ARRIVED = "(SELECT arrived FROM messages WHERE messages.key = recipients.message)"
# Under hold nothing is due by itself; there the column keeps the order of arrival.
_DEFER_HELD, _MOVE_TO_HOLD, _REROUTE_TO_HOLD = (
    re.sub("due = .*?, (?=lease_owner|rank)", f"due = {_ARRIVED}, ", statement, count=1, flags=re.DOTALL).replace(
        _RANK, "0"
    )
    for statement in (_DEFER, _MOVE, _REROUTE)
)


_SIZE = 8  # of a message's row


class Judgement(NamedTuple):
    """One settlement in the terms of the tables."""

    removed: list[int]
    deferred: list[Row]  # for _DEFER
    deferred_held: list[Row]  # for _DEFER_HELD
    set_aside: list[Row]  # for _SET_ASIDE
    kept_back: list[Row]  # for _KEEP_BACK
    told: Sequence[int]  # for _TELL
    reports: Sequence[Rows]
    steps: list[Row]
    events: list[Row]  # that are no steps
    file: str  # the id of its content file, if it has one

    @classmethod
    def of(
        cls,
        settlement: Settlement,
        owner: int,
        now: float,
        enter: Callable[[Report, str], Entry],
        numbers: Iterator[int],
    ) -> tuple[Judgement, Sequence[Entry]]:
        """Take a settlement apart. Raises `ValueError` where it is not whole.

        `enter` makes entries of its reports, which are on the message of that id; `numbers` are for its steps.
        """
        delivery = settlement.delivery
        held = delivery.destination.agent == HOLD
        removed: list[int] = []
        deferred: list[Row] = []
        deferred_held: list[Row] = []
        set_aside: list[Row] = []
        kept_back: list[Row] = []
        unreported = frozenset(settlement.unreported)
        for recipient, outcome in zip(delivery.recipients, settlement.outcomes, strict=True):
            result = outcome.result
            if result is not Result.DEFERRED and result is not Result.HELD:
                removed.append(recipient.key)
                continue
            remote = outcome.remote and storable(outcome.remote)
            text = storable(outcome.text[:_TEXT_LIMIT])
            row = (now, str(outcome.status), text, remote, recipient.key, owner)
            if result is Result.HELD:
                set_aside.append(row)
            elif held and recipient.key not in unreported:
                deferred_held.append(row)
            elif outcome.next_attempt is None:
                raise ValueError("a deferred outcome does not say when the next attempt is")
            elif recipient.key in unreported:
                kept_back.append((outcome.next_attempt, *row))
            else:
                deferred.append((outcome.next_attempt, *row))
        reports = [enter(report, delivery.message.queue_id) for report in settlement.reports]
        events = settlement.events
        if reports:
            events = journal.steps_of(settlement, [entry.message[1] for entry in reports])
        file = delivery.content.queue_id if isinstance(delivery.content, FileContent) else ""
        judgement = cls(
            removed,
            deferred,
            deferred_held,
            set_aside,
            kept_back,
            settlement.delay_told,
            [entry[:4] for entry in reports],
            [journal.step(event, next(numbers)) for event in events if journal.is_step(event)] if events else [],
            [event_row(event) for event in events if not journal.is_step(event)] if events else [],
            file,
        )
        return judgement, reports


class Settling(Change):
    """Writes settlements down, with their reports.

    A settlement without its lease changes nothing, and its reports are not sent: it has been settled before, or will be
    by whoever has the lease now. That an attempt was made is written down all the same.
    """

    __slots__ = ("entered", "judgements", "owner", "parents", "reports")

    rank = 1
    near = Operation.near | {"parents", "reports"}

    def __init__(
        self, judgements: Sequence[tuple[Judgement, Sequence[Entry]]], owner: int, parents: Sequence[str] = ()
    ) -> None:
        """Each judgement comes with the entries of its reports; `parents` are the ids of the messages they are on."""
        super().__init__()
        self.judgements = [judgement for judgement, _ in judgements]
        self.reports = [reports for _, reports in judgements]
        self.parents = parents
        self.entered: list[int] = []  # the judgements whose reports have entered the queue
        self.owner = owner

    @property
    def entries(self) -> Sequence[Entry]:
        return [entry for number in self.entered for entry in self.reports[number]]

    @property
    def log_lines(self) -> Sequence[str]:
        """What the log says of reports that have entered the queue: of whose message, and by which id."""
        lines: list[str] = []
        for number in self.entered if self.parents else ():
            for entry in self.reports[number]:
                parent, report, size = self.parents[number], entry.message[1], entry.message[_SIZE]
                lines.append(f"{parent}: report on it: {report}")
                lines.append(f"{report}: from=<> report on {parent}, {size} octets: queued")
        return lines

    def effects(self) -> Any:  # noqa: ANN401 - its own
        return (self.gone, self.entered) if self.gone or self.entered else None

    def take(self, effects: Any) -> None:  # noqa: ANN401 - its own
        self.gone, self.entered = effects

    def run(self, db: sqlite3.Connection) -> None:
        self.run_together(db, [self])

    @classmethod
    def run_together(cls, db: sqlite3.Connection, operations: Sequence[Settling]) -> None:
        plain: list[Judgement] = []
        told: list[Judgement] = []  # of reports
        for operation in operations:
            operation.entered = []
            for number, judgement in enumerate(operation.judgements):
                if not judgement.reports:
                    plain.append(judgement)
                elif _write_down(db, [judgement], operation.owner):
                    insert(db, judgement.reports)
                    operation.entered.append(number)
                    told.append(judgement)
        _write_down(db, plain, operations[0].owner)
        journal.write(db, [step for judgement in chain(plain, told) for step in judgement.steps])
        events = [event for judgement in chain(plain, told) for event in judgement.events]
        if events:
            db.executemany(INSERT_EVENT, events)
        for operation in operations:
            operation.gone = [
                judgement.file
                for judgement in operation.judgements
                if judgement.file and judgement.removed and not _is_queued(db, judgement.file)
            ]


class Release(Change):
    """Gives leases back; nothing else changes."""

    __slots__ = ("_keys", "_owner")

    def __init__(self, deliveries: Iterable[Delivery], owner: int) -> None:
        super().__init__()
        self._keys = _keys_of(deliveries)
        self._owner = owner

    def run(self, db: sqlite3.Connection) -> None:
        db.execute(GIVE_BACK, (self._keys, self._owner))


class Move(Change):
    """Gives a lease back under another destination."""

    __slots__ = ("_destination", "_keys", "_now", "_owner", "_step")

    def __init__(self, delivery: Delivery, destination: Destination, owner: int, now: float, number: int) -> None:
        """`number` is for its step."""
        super().__init__()
        whom = [str(recipient.address) for recipient in delivery.recipients]
        old, new = str(delivery.destination), str(destination)
        self._step = journal.step(steps.routed(delivery.message.queue_id, whom, old, new, now), number)
        self._keys = _keys_of([delivery])
        self._destination = destination
        self._owner = owner
        self._now = now
        if destination.agent != HOLD:
            self.due = (destination,)

    def run(self, db: sqlite3.Connection) -> None:
        name = str(self._destination)
        if self._destination.agent == HOLD:
            moved = db.execute(_MOVE_TO_HOLD, (name, self._keys, self._owner)).rowcount
        else:
            moved = db.execute(_MOVE, (self._now, name, self._keys, self._owner)).rowcount
        if moved:
            journal.write(db, [self._step])


class Rerouted(NamedTuple):
    """A recipient whose destination has changed."""

    key: int
    queue_id: str
    address: str
    old: Destination
    new: Destination


class Reroute(Change):
    """Moves recipients that wait; the result is how many still did."""

    __slots__ = ("_now", "_numbers", "_rerouted")

    def __init__(self, rerouted: Sequence[Rerouted], now: float, numbers: Iterator[int]) -> None:
        """`numbers` are for steps."""
        super().__init__()
        self._numbers = list(islice(numbers, len(rerouted)))
        self._rerouted = rerouted
        self._now = now
        self.due = {one.new for one in rerouted if one.new.agent != HOLD}

    def run(self, db: sqlite3.Connection) -> int:
        moved: dict[tuple[str, str, str], list[str]] = {}
        count = 0
        for one in self._rerouted:
            old, new = str(one.old), str(one.new)
            if one.new.agent == HOLD:
                changed = db.execute(_REROUTE_TO_HOLD, (new, one.key, old)).rowcount
            else:
                changed = db.execute(_REROUTE, (self._now, new, one.key, old)).rowcount
            if changed:
                count += 1
                moved.setdefault((one.queue_id, old, new), []).append(one.address)
        events = [steps.routed(name, who, old, new, self._now) for (name, old, new), who in moved.items()]
        journal.write(db, [journal.step(event, number) for event, number in zip(events, self._numbers, strict=False)])
        return count


class Hurry(Change):
    """Makes up to so many recipients that wait for some destinations due now. The result is whether more may be."""

    __slots__ = ("_destinations", "_limit", "_now")

    def __init__(self, destinations: Sequence[Destination], now: float, limit: int) -> None:
        super().__init__()
        # Under hold the time is that of arrival, and must stay it.
        self._destinations = [destination for destination in destinations if destination.agent != HOLD]
        self._now = now
        self._limit = limit

    def run(self, db: sqlite3.Connection) -> bool:
        left = self._limit
        due = []
        for destination in self._destinations:
            name = str(destination)
            rank = BEFORE_ALL_RANKS
            while left:
                (rank,) = db.execute(NEXT_RANK, (name, rank)).fetchone()
                if rank is None:
                    break
                left -= db.execute(HURRY, {"now": self._now, "destination": name, "rank": rank, "limit": left}).rowcount
            if db.execute(_IS_AWAITED, (name,)).fetchone() is not None:
                due.append(destination)
        self.due = due
        return left == 0


class Renewal(Change):
    """Renews our lease, then takes the leases of others that ran out: their deliveries are due again."""

    __slots__ = ("_now", "_owner", "_until")

    def __init__(self, owner: int, now: float, until: float) -> None:
        super().__init__()
        self._owner = owner
        self._now = now
        self._until = until

    def run(self, db: sqlite3.Connection) -> None:
        db.execute("UPDATE leases SET lease_until = ? WHERE owner = ?", (self._until, self._owner))
        late = db.execute("SELECT owner FROM leases WHERE lease_until < ? AND owner <> ?", (self._now, self._owner))
        destinations: set[Destination] = set()
        for (owner,) in late.fetchall():
            names = db.execute("SELECT DISTINCT destination FROM recipients WHERE lease_owner = ?", (owner,))
            destinations.update(Destination.parse(name) for (name,) in names.fetchall())
            void(db, owner)
        self.due = [destination for destination in destinations if destination.agent != HOLD]


class EndOfLease(Operation):
    """Gives back all that is under our lease: the last thing that is done."""

    __slots__ = ("_owner",)

    def __init__(self, owner: int) -> None:
        super().__init__()
        self._owner = owner

    def run(self, db: sqlite3.Connection) -> None:
        void(db, self._owner)


def void(db: sqlite3.Connection, owner: int | None = None) -> int:
    """End a lease, or all there are, without an outcome. Returns how many recipients wait again.

    What is on hold stays so.
    """
    ours = {"owner": owner}
    ended = db.execute(
        """
        UPDATE recipients SET lease_owner = NULL, replayed = 1
        WHERE lease_owner = :owner OR (:owner IS NULL AND lease_owner <> 0)
        """,
        ours,
    ).rowcount
    db.execute("DELETE FROM leases WHERE owner = :owner OR :owner IS NULL", ours)
    return ended


def _write_down(db: sqlite3.Connection, judgements: Sequence[Judgement], owner: int) -> bool:
    """Remove and defer; whether any of it was under our lease."""
    removed = [key for judgement in judgements for key in judgement.removed]
    deferred = [row for judgement in judgements for row in judgement.deferred]
    held = [row for judgement in judgements for row in judgement.deferred_held]
    set_aside = [row for judgement in judgements for row in judgement.set_aside]
    kept_back = [row for judgement in judgements for row in judgement.kept_back]
    told = [key for judgement in judgements for key in judgement.told]
    changed = 0
    if told:  # while they are under lease
        db.execute(_TELL, (json.dumps(told), owner))
    if removed:
        changed += db.execute(REMOVE, (json.dumps(removed), owner)).rowcount
    if deferred:
        changed += db.executemany(_DEFER, deferred).rowcount
    if held:
        changed += db.executemany(_DEFER_HELD, held).rowcount
    if set_aside:
        changed += db.executemany(_SET_ASIDE, set_aside).rowcount
    if kept_back:
        changed += db.executemany(_KEEP_BACK, kept_back).rowcount
    missing = len(removed) + len(kept_back) + len(deferred) + len(held) + len(set_aside) - changed
    if missing:
        _log.error("{missing} recipients were settled by one who had no lease of them", missing=missing)
    return changed > 0


def _is_queued(db: sqlite3.Connection, queue_id: str) -> bool:
    return db.execute("SELECT 1 FROM messages WHERE queue_id = ?", (queue_id,)).fetchone() is not None


def _keys_of(deliveries: Iterable[Delivery]) -> str:
    return json.dumps([recipient.key for delivery in deliveries for recipient in delivery.recipients])
