"""The durable spool: SQLite for messages, recipients, leases and small contents; files for large contents.

What is asked goes to one writer thread, which groups it (`writer`). A message becomes rows in `entry`; claims are in
`claims`, outcomes in `changes`, parts of messages in `partials`, events in `events`, steps of messages in `journal`,
the tables in `schema`, the directory in `opening`; `run` puts it together. What operators see is in `looking`, what
they do in `managing`. Another process reads by `reading`, and writes by `offline` where no server runs.

What is promised: after `commit` has returned, the message survives a crash of the process and of the machine. A file
without a row does not outlive the next start; a row without its file is possible only where the disk lost what it had
synced, and is logged. A lease ends when its holder says so or when this process ends: the directory is locked, so
whoever opens it next knows that all leases in it are void. The time when they end is kept all the same, for others who
look into the queue. Deliveries whose lease ended without an outcome (a crash, or `stop` while they were under way) come
back as replayed.

Limits: one process for a directory, on a local disk. The database does not shrink. Each draft may hold in memory as
much as the bound for files, and some 2 MB while it is streamed to one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.interfaces import IDraft, IQueueWatcher, ISpool, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.content import Content, MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.origin import Origin
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.queue import Delivery, HeldMail, Message, Report, Settlement
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.mail.selection import DestinationLoad, Managed, Met, QueueAction, QueuedMessage, Selection
from mailsuite.spool import claims, looking
from mailsuite.spool.allowance import Bounds
from mailsuite.spool.changes import Hurry, Judgement, Move, Release, Renewal, Reroute, Rerouted, Settling
from mailsuite.spool.claims import Claim, Claimed, as_deliveries, read_deliveries
from mailsuite.spool.columns import address_of
from mailsuite.spool.completed import completion_row
from mailsuite.spool.contents import StoredContent
from mailsuite.spool.disk import detached
from mailsuite.spool.draft import Named, SqliteDraft
from mailsuite.spool.entry import Change, Entry, Insertion, Room
from mailsuite.spool.events import Record, history
from mailsuite.spool.managing import FIRST, Bite, Manage, Tally, choose
from mailsuite.spool.partials import Partials
from mailsuite.spool.routing import Careful
from mailsuite.spool.run import Around, Run, Setting, begin
from mailsuite.spool.transactions import Operation

_T = TypeVar("_T")
_log = Logger()

_REROUTE_BATCH = 500  # recipients: the reactor is never busy for long, nor is the writer
_HURRY_BATCH = 2000


@implementer(ISpool)
class SqliteSpool:
    """See `ISpool`. There is one watcher: a later `watch` takes the place of an earlier one.

    `clock` gives the times and wakes the renewal of leases (the reactor, if None); a lease lasts `lease` seconds.
    Contents above `spill` octets go to files. New mail is refused (`SpoolFull`) while fewer than `reserve` octets are
    free on the disk: with these, what is in the queue can still be claimed, settled and reported on, and so make room.
    `threads` bounds those that read contents and write files.

    Events are kept for `history_time` seconds, the steps of a message as long as it is queued and until `journal_time`
    seconds after the last one. Of parts of messages there are at most `partials_count`, of `partials_octets` in all,
    each kept for `partials_time` seconds; so long it is also known which transactions were completed, the last
    `completed_count` of them, as far as their names and recipients take no more than `completed_octets` in all.

    With `process` the database has a process of its own, which is faster where the reactor is busy. `lost` is told when
    that has ended by itself: nothing can be written then until the spool, or the server, is started again.

    A cancellation never stops what was asked for, it only forgets the answer; a claim that was cancelled is released.
    """

    def __init__(  # noqa: PLR0913 - all but two have their defaults
        self,
        directory: Path,
        reactor: IReactorFromThreads,
        *,
        clock: IReactorTime | None = None,
        spill: int = 256 * 1024,
        lease: float = 300.0,
        reserve: int = 64 * 1024 * 1024,
        threads: int = 8,
        history_time: float = 30 * 86400.0,
        journal_time: float = 30 * 86400.0,
        partials_count: int = 1000,
        partials_octets: int = 1024**3,
        partials_time: float = 48 * 3600.0,
        completed_count: int = 10_000,
        completed_octets: int = 16 * 1024**2,
        process: bool = False,
        lost: Callable[[SpoolError], object] | None = None,
    ) -> None:
        self._directory = os.path.abspath(directory)
        self._clock: IReactorTime = IReactorTime(reactor) if clock is None else clock
        self._room = Room(self._directory, reserve)
        self._setting = Setting(
            self._directory,
            reactor,
            self._clock,
            spill,
            lease,
            self._room,
            threads,
            history_time,
            journal_time,
            Bounds(partials_count, partials_octets, partials_time),
            completed_count,
            completed_octets,
            process,
        )
        self._around = Around(
            self._committed,
            self._has_room,
            self._enter,
            lost or (lambda error: _log.critical("{error}", error=error)),
        )
        self._watcher: IQueueWatcher | None = None
        self._run: Run | None = None
        self._open = False
        self._renewal: IDelayedCall | None = None

    @property
    def transactions(self) -> int:
        """How many transactions were committed since the start: far fewer than messages, under load."""
        return 0 if self._run is None else self._run.writer.count

    # ------------------------------------------------------------------------------- start, stop

    def start(self) -> Deferred[None]:
        return detached(self._start())

    async def _start(self) -> None:
        if self._run is not None:
            raise SpoolError(f"The spool in {self._directory} is open already")
        self._run = await begin(self._setting, self._around)
        self._open = True
        self._renewal = self._clock.callLater(self._setting.lease / 3, self._renew)

    def stop(self) -> Deferred[None]:
        return detached(self._stop())

    async def _stop(self) -> None:
        run = self._run
        if run is None or not self._open:
            return
        self._open = False
        if self._renewal is not None:
            self._renewal.cancel()
        await run.end()
        self._run = None

    def _renew(self) -> None:
        if self._run is None:
            return
        self._renewal = self._clock.callLater(self._setting.lease / 3, self._renew)
        now = self._clock.seconds()
        renewed = self._run.writer.submit(Renewal(self._run.owner, now, now + self._setting.lease))
        renewed.addErrback(lambda _: None)  # the writer has logged it; the next one comes in time

    # ------------------------------------------------------------------------------------ the way in

    def watch(self, watcher: IQueueWatcher) -> None:
        self._watcher = watcher

    def draft(self) -> SqliteDraft:
        run = self._running()
        return SqliteDraft(run.ids.next(), self._setting.spill, run.files, self._enter)

    def _enter(
        self,
        queue_id: str,
        envelope: Envelope,
        targets: Sequence[Target],
        content: Content,
        named: Named | None = None,
        origin: Origin | None = None,
    ) -> Deferred[None]:
        run = self._run  # also while it is closing: a file that was being finished is committed yet
        if run is None:
            return fail(self._closed())
        completion = None
        if named is not None:
            name, received = named
            completion = completion_row(name, queue_id, envelope, targets, received, self._clock.seconds())
        entry = run.entries.make(queue_id, envelope, targets, content, origin=origin)
        return run.writer.submit(Insertion(entry, self._room, completion))

    def _enter_report(self, report: Report, on: str) -> Entry:
        run = self._running()
        content = MemoryContent(report.content)
        return run.entries.make(
            run.ids.next(), report.envelope, report.targets, content, origin=report.origin, composed=on
        )

    # ----------------------------------------------------------------------------------- the way out

    def claim(self, destination: Destination, limit: int) -> Deferred[Sequence[Delivery]]:
        # What is held is never due by itself.
        return self._claim([] if destination.agent == HOLD else [destination], limit)

    def claim_held(self, destinations: Sequence[Destination], limit: int) -> Deferred[Sequence[Delivery]]:
        return self._claim([one for one in destinations if one.agent == HOLD], limit)

    def _claim(self, destinations: Sequence[Destination], limit: int) -> Deferred[Sequence[Delivery]]:
        if not self._open or limit < 1 or not destinations:
            return succeed(()) if self._open else fail(self._closed())
        answer: Deferred[Sequence[Delivery]] = Deferred()

        def give(deliveries: Sequence[Delivery]) -> None:
            if answer.called:
                self.release(deliveries).addErrback(lambda _: None)  # cancelled
            else:
                answer.callback(deliveries)

        ensureDeferred(self._take(destinations, limit)).addCallbacks(give, answer.errback)
        return answer

    async def _take(self, destinations: Sequence[Destination], limit: int) -> Sequence[Delivery]:
        run = self._running()
        claimed = await run.writer.submit(Claim(destinations, limit, run.owner, self._clock.seconds()))
        if not claimed:
            return ()

        def lazily(one: Claimed) -> Content:
            if one.in_file:
                return run.files.content(one.message.queue_id, one.message.size)
            return StoredContent(run.disk, run.readers, one.key, one.message.size)

        def read() -> Sequence[Delivery]:
            with run.readers.connection() as db:
                return read_deliveries(db, claimed, lazily)

        try:
            return await run.disk.run(read)
        except Exception as error:  # noqa: BLE001 - the leases are taken, so there must be an answer
            # Whoever reads the contents will hear it again, and can defer.
            _log.error("contents cannot be read: {error}", error=error)
            return as_deliveries(claimed, {}, lazily)

    def destinations(self) -> Deferred[Sequence[tuple[Destination, float]]]:
        return self._read(claims.DESTINATIONS).addCallback(claims.waiting)

    def count(self) -> Deferred[int]:
        return self._read("SELECT count(*) FROM messages").addCallback(_number)

    # --------------------------------------------------------------------------- what becomes of them

    def settle(self, settlements: Sequence[Settlement]) -> Deferred[None]:
        now = self._clock.seconds()
        return self._submit(
            lambda run: Settling(
                [Judgement.of(one, run.owner, now, self._enter_report, run.entries.numbers) for one in settlements],
                run.owner,
                [one.delivery.message.queue_id for one in settlements],
            )
        )

    def release(self, deliveries: Sequence[Delivery]) -> Deferred[None]:
        return self._submit(lambda run: Release(deliveries, run.owner))

    def move(self, delivery: Delivery, destination: Destination) -> Deferred[None]:
        return self._submit(
            lambda run: Move(delivery, destination, run.owner, self._clock.seconds(), next(run.entries.numbers))
        )

    async def reroute(self, choose: Callable[[Address, Destination, Address | None], Destination]) -> int:
        run = self._running()
        carefully = Careful(choose)
        moved = 0
        last = 0
        while rows := await self._read(claims.WAITING, last, _REROUTE_BATCH):
            last = rows[-1][0]
            changed = []
            for key, local_part, domain, name, queue_id, sender, sender_domain in rows:
                old, address = Destination.parse(name), Address(local_part, domain)
                new = carefully(address, old, address_of(sender, sender_domain))
                if new != old:
                    changed.append(Rerouted(key, queue_id, str(address), old, new))
            if changed:
                moved += await run.writer.submit(Reroute(changed, self._clock.seconds(), run.entries.numbers))
        return moved

    async def hurry(self, destinations: Sequence[Destination]) -> int:
        wanted = [one for one in dict.fromkeys(destinations) if one.agent != HOLD]
        run = self._running()
        messages = _number(await self._read(claims.COUNT_WAITING, claims.names(wanted)))
        while await run.writer.submit(Hurry(wanted, self._clock.seconds(), _HURRY_BATCH)):
            continue
        return messages

    # ------------------------------------------------------------------------------- what operators ask

    def select(self, selection: Selection, limit: int, *, after: str = "") -> Deferred[Sequence[QueuedMessage]]:
        now = self._clock.seconds()
        return self._look(lambda db: looking.select(db, selection, limit, after, now))

    def leased(self, selection: Selection) -> Deferred[Sequence[tuple[int, str]]]:
        now = self._clock.seconds()
        return self._look(lambda db: looking.leased(db, selection, now))

    def met(self, selection: Selection, *, addresses: bool = False) -> Deferred[Met]:
        now = self._clock.seconds()
        return self._look(lambda db: looking.met(db, selection, now, addresses=addresses))

    def loads(self, limit: int) -> Deferred[Sequence[DestinationLoad]]:
        now = self._clock.seconds()
        return self._look(lambda db: looking.loads(db, limit, now))

    def find(self, text: str, limit: int = 100) -> Deferred[Sequence[str]]:
        return self._look(lambda db: looking.find(db, text, limit))

    def manage(self, action: QueueAction, selection: Selection, *, by: str) -> Deferred[Managed]:
        return detached(self._manage(action, selection, by))

    async def _manage(self, action: QueueAction, selection: Selection, by: str) -> Managed:
        run = self._running()
        now = self._clock.seconds()
        tally = Tally()
        bite: Bite | None = FIRST
        while bite is not None:
            bite = await run.read(partial(choose, selection=selection, before=bite, now=now))
            if bite is not None:
                done = Manage(action, bite.keys, by, self._clock.seconds(), run.entries.numbers)
                tally.add(bite, await run.writer.submit(done))
        return tally.managed

    # ------------------------------------------------------------------------- what is held, what was

    def held(self) -> Deferred[Sequence[HeldMail]]:
        return self._read(claims.HELD).addCallback(claims.held)

    def held_messages(
        self, destination: Destination, until: float, limit: int, *, since: float = 0.0
    ) -> Deferred[Sequence[Message]]:
        most = max(limit, 0) if destination.agent == HOLD else 0
        return self._read(claims.HELD_MESSAGES, str(destination), since, until, most).addCallback(claims.messages)

    def record(self, events: Sequence[Event]) -> Deferred[None]:
        return self._submit(lambda run: Record(events, run.entries.numbers))

    def history(
        self,
        *,
        kind: EventKind | None = None,
        subject: str | None = None,
        queue_id: str | None = None,
        limit: int = 100,
    ) -> Deferred[Sequence[Event]]:
        return self._look(lambda db: history(db, kind, subject, queue_id, limit))

    # -------------------------------------------------------------------------------- parts of messages

    def keep(
        self,
        draft: IDraft,
        name: str,
        envelope: Envelope,
        targets: Sequence[Target],
        received: int,
        *,
        size: int | None = None,
    ) -> Deferred[None]:
        if not isinstance(draft, SqliteDraft):
            return fail(SpoolError("What is to be kept is not a draft of this spool"))
        return self._ask(lambda parts: parts.keep(draft, name, envelope, targets, received, size))

    def resume(self, name: str) -> Deferred[Partial | Completed | None]:
        return self._ask(lambda parts: parts.resume(name))

    def forget(self, name: str) -> Deferred[None]:
        return self._ask(lambda parts: parts.forget(name))

    def heard(self, names: Sequence[str]) -> Deferred[None]:
        return self._ask(lambda parts: parts.completed.heard(names))

    def _ask(self, ask: Callable[[Partials], Deferred[_T]]) -> Deferred[_T]:
        try:
            return ask(self._running().partials)
        except SpoolError as error:
            return fail(error)

    # ------------------------------------------------------------------------------------- in common

    def _submit(self, make: Callable[[Run], Operation]) -> Deferred[Any]:
        try:
            run = self._running()
            operation = make(run)
        except (SpoolError, ValueError) as error:
            return fail(error)
        return run.writer.submit(operation)

    def _read(self, query: str, *arguments: object) -> Deferred[Sequence[Any]]:
        return self._look(lambda db: db.execute(query, arguments).fetchall())

    def _look(self, look: Callable[[sqlite3.Connection], _T]) -> Deferred[_T]:
        try:
            return self._running().read(look)
        except SpoolError as error:
            return fail(error)

    def _running(self) -> Run:
        if self._run is None or not self._open:
            raise self._closed()
        return self._run

    def _closed(self) -> SpoolError:
        return SpoolError(f"The spool in {self._directory} is not open")

    # ------------------------------------------------------------------------------------ the watcher

    def _has_room(self, destination: Destination, size: int) -> bool:
        if self._watcher is None:
            return False
        try:
            return bool(self._watcher.has_room(destination, size))
        except Exception:  # noqa: BLE001 - the message is to be queued all the same
            _log.failure("a watcher of the spool failed")
            return False

    def _committed(self, operations: Sequence[Operation]) -> None:
        """Tell of a group what is new, in one call each."""
        leased: list[Delivery] = []
        due: dict[Destination, None] = {}
        gone: dict[str, None] = {}
        for operation in operations:
            if isinstance(operation, Settling) and (lines := operation.log_lines):
                _log.info("{lines}", lines="\n".join(lines))
            if isinstance(operation, Change):
                for entry in operation.entries:
                    leased += entry.leased
                    due.update(dict.fromkeys(entry.due))
                due.update(dict.fromkeys(operation.due))
                gone.update(dict.fromkeys(operation.gone))
                if operation.completion is not None and self._run is not None:
                    self._run.partials.completed.add(operation.completion)
        if gone and self._run is not None:
            self._run.files.unlink(list(gone))
        if self._watcher is None:
            return
        try:
            if leased:
                self._watcher.committed(leased)
        finally:
            if due:
                self._watcher.due(due)


def _number(rows: Sequence[Any]) -> int:
    return int(rows[0][0])
