"""What is the SQLite spool's own: groups, leases of others, answers that nobody waits for."""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred, gatherResults

from mailsuite.delivery.writing import Writing
from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import Delivery, Outcome, Report, Result, Settlement
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import EVERYTHING, QueueState
from mailsuite.mail.status import EnhancedStatus
from mailsuite.spool import claims, sqlite
from mailsuite.spool.sqlite import SqliteSpool
from tests.contracts.spool.kit import (
    DELIVERED,
    ENVELOPE,
    FAILED,
    HOLD,
    MAILDIR,
    OTHER,
    RELAY,
    Watcher,
    deferred,
    target,
)
from tests.spool.pump import Pump


def put(pump: Pump, spool: SqliteSpool, *destinations: Destination, content: bytes = b"Hello\r\n") -> str:
    draft = spool.draft()
    draft.write(content)
    pump.run(draft.commit(ENVELOPE, [target(one) for one in destinations]))
    return draft.queue_id


def rows(directory: Path, statement: str, *arguments: Any) -> list[Any]:
    db = sqlite3.connect(directory / "queue.db", isolation_level=None)
    try:
        return db.execute(statement, arguments).fetchall()
    finally:
        db.close()


# -------------------------------------------------------------------------------------------- groups


def test_concurrent_commits_share_transactions_and_calls(pump: Pump, spool: SqliteSpool) -> None:
    watcher = Watcher(MAILDIR)
    spool.watch(watcher)
    before = spool.transactions
    drafts = [spool.draft() for _ in range(400)]
    commits = [draft.commit(ENVELOPE, [target(MAILDIR), target(RELAY)]) for draft in drafts]
    pump.run(gatherResults(commits))
    transactions = spool.transactions - before
    assert transactions < 100
    assert len(watcher.groups) == transactions
    assert watcher.waiting == [RELAY] * transactions
    assert [one.message.queue_id for one in watcher.deliveries] == [draft.queue_id for draft in drafts]
    before = spool.transactions
    settlements = [Settlement(one, (DELIVERED,)) for one in watcher.deliveries]
    pump.run(gatherResults([spool.settle([one]) for one in settlements]))
    assert spool.transactions - before < 100


@pytest.mark.parametrize("number", [1, 2, 3, 63, 64, 65, 127, 200])
def test_any_number_of_recipients(pump: Pump, spool: SqliteSpool, number: int) -> None:
    draft = spool.draft()
    pump.run(draft.commit(ENVELOPE, [target(RELAY, f"r{at}") for at in range(number)]))
    (delivery,) = pump.run(spool.claim(RELAY, 1))
    assert [one.address.local_part for one in delivery.recipients] == [f"r{at}" for at in range(number)]
    pump.run(spool.settle([Settlement(delivery, (DELIVERED,) * number)]))
    assert pump.run(spool.count()) == 0


def test_message_that_sqlite_refuses_spoils_no_other(pump: Pump, spool: SqliteSpool) -> None:
    drafts = [spool.draft() for _ in range(5)]
    watcher = Watcher(MAILDIR)
    spool.watch(watcher)
    names = ["a", "b", "lone surrogate \udc80", "d", "e"]
    commits = [draft.commit(ENVELOPE, [target(MAILDIR, name)]) for draft, name in zip(drafts, names, strict=True)]
    results = pump.run(gatherResults([commit.addErrback(lambda failure: failure.value) for commit in commits]))
    assert isinstance(results.pop(2), SpoolError)
    assert results == [None] * 4
    assert [one.recipients[0].address.local_part for one in watcher.deliveries] == ["a", "b", "d", "e"]
    assert pump.run(spool.count()) == 4


@pytest.mark.parametrize("size", [10, 5000])
def test_last_room_on_the_disk_is_kept_for_what_is_in_the_queue(pump: Pump, directory: Path, size: int) -> None:
    spool = SqliteSpool(directory, pump, spill=1000)
    pump.run(spool.start())
    put(pump, spool, RELAY)
    pump.run(spool.stop())
    disk = os.statvfs(directory)
    full = SqliteSpool(directory, pump, spill=1000, reserve=disk.f_blocks * disk.f_frsize + 1)
    pump.run(full.start())
    draft = full.draft()
    draft.write(b"x" * size)
    answers = [draft.commit(ENVELOPE, [target(MAILDIR)]), full.claim(RELAY, 1)]
    refused, taken = pump.run(gatherResults([answer.addErrback(lambda failure: failure.value) for answer in answers]))
    assert isinstance(refused, SpoolFull)
    report = Report(Envelope(None), b"bounce", (target(MAILDIR, "joe"),))
    pump.run(full.settle([Settlement(taken[0], (FAILED,), (report,))]))
    (bounce,) = pump.run(full.claim(MAILDIR, 10))
    assert bounce.recipients[0].address.local_part == "joe"
    pump.run(full.stop())


# -------------------------------------------------------------------------------------------- leases


def test_own_lease_is_renewed_in_time(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    for _ in range(10):
        assert rows(directory, "SELECT lease_until > ? FROM leases", pump.seconds()) == [(1,)]
        pump.advance(100)
        pump.until(lambda: rows(directory, "SELECT lease_until FROM leases") == [(pump.seconds() + 300,)])


def test_lease_of_another_that_ran_out_is_void(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    watcher = Watcher()
    put(pump, spool, RELAY)
    put(pump, spool, HOLD)
    (ours,) = pump.run(spool.claim_held([HOLD], 1))
    spool.watch(watcher)
    db = sqlite3.connect(directory / "queue.db", isolation_level=None)
    db.execute("INSERT INTO leases VALUES (99, ?)", (pump.seconds() + 150,))
    db.execute("UPDATE recipients SET lease_owner = 99 WHERE destination = ?", (str(RELAY),))
    db.close()
    pump.advance(100)
    assert not pump.run(spool.claim(RELAY, 1))
    pump.advance(100)
    pump.until(lambda: watcher.waiting == [RELAY])
    (delivery,) = pump.run(spool.claim(RELAY, 1))
    assert delivery.replayed
    assert rows(directory, "SELECT count(*) FROM leases") == [(1,)]
    assert not pump.run(spool.claim_held([HOLD], 1))
    pump.run(spool.settle([Settlement(ours, (DELIVERED,)), Settlement(delivery, (DELIVERED,))]))
    assert pump.run(spool.count()) == 0


def test_lease_that_was_lost_to_another_settles_nothing(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    put(pump, spool, RELAY)
    (delivery,) = pump.run(spool.claim(RELAY, 1))
    rows(directory, "UPDATE recipients SET lease_owner = 99")
    report = Report(Envelope(None), b"bounce", (target(MAILDIR),))
    pump.run(spool.settle([Settlement(delivery, (FAILED,), (report,))]))
    pump.run(spool.settle([Settlement(delivery, (deferred(1.0),))]))
    pump.run(spool.release([delivery]))
    pump.run(spool.move(delivery, OTHER))
    found = rows(directory, "SELECT destination, lease_owner, attempts FROM recipients")
    assert found == [(str(RELAY), 99, 0)]


def test_last_attempt_is_kept_for_those_who_look(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    put(pump, spool, RELAY)
    (delivery,) = pump.run(spool.claim(RELAY, 1))
    pump.advance(7)
    pump.run(spool.settle([Settlement(delivery, (deferred(pump.seconds() + 60),))]))
    (found,) = rows(
        directory, "SELECT attempts, due, last_attempt, last_status, last_text, last_remote FROM recipients"
    )
    assert found == (1, pump.seconds() + 60, pump.seconds(), "4.4.1", "no answer", "mx")


# ------------------------------------------------------------------------------- nobody waits for it


def test_cancelled_claim_gives_its_leases_back(pump: Pump, spool: SqliteSpool) -> None:
    put(pump, spool, RELAY)
    claim = spool.claim(RELAY, 1)
    claim.cancel()
    with pytest.raises(CancelledError):
        pump.run(claim)
    taken: list[Delivery] = []

    def is_claimed() -> bool:
        taken.extend(pump.run(spool.claim(RELAY, 1)))
        return bool(taken)

    pump.until(is_claimed)
    assert not taken[0].replayed


def test_cancelled_settlement_is_written_down(pump: Pump, spool: SqliteSpool) -> None:
    put(pump, spool, RELAY)
    (delivery,) = pump.run(spool.claim(RELAY, 1))

    async def settle() -> None:
        await spool.settle([Settlement(delivery, (DELIVERED,))])

    settling = ensureDeferred(settle())
    settling.addErrback(lambda _: None)
    settling.cancel()
    pump.until(lambda: pump.run(spool.count()) == 0)
    assert pump.run(spool.destinations()) == []


def test_cancelled_start_and_stop_run_to_their_end(pump: Pump, directory: Path) -> None:
    spool = SqliteSpool(directory, pump)
    starting = spool.start()
    starting.addErrback(lambda _: None)
    starting.cancel()

    def is_open() -> bool:
        try:
            return bool(pump.run(spool.count()) == 0)
        except SpoolError:
            return False

    pump.until(is_open)
    stopping = spool.stop()
    stopping.addErrback(lambda _: None)
    stopping.cancel()
    pump.until(lambda: not (directory / "queue.db-wal").exists())
    pump.until(lambda: not is_open())
    again = SqliteSpool(directory, pump)
    pump.run(again.start())
    pump.run(again.stop())
    assert not pump.getDelayedCalls()


class BrokenWatcher(Watcher):
    def __init__(self, *broken: str) -> None:
        super().__init__(MAILDIR)
        self.broken = broken

    def _fail(self, name: str) -> None:
        if name in self.broken:
            raise RuntimeError(name)

    def has_room(self, destination: Destination, size: int) -> bool:
        self._fail("has_room")
        return super().has_room(destination, size)

    def committed(self, deliveries: Any) -> None:
        self._fail("committed")
        super().committed(deliveries)

    def due(self, destinations: Any) -> None:
        self._fail("due")
        super().due(destinations)


def test_broken_watcher_keeps_no_message_from_the_queue(pump: Pump, spool: SqliteSpool) -> None:
    for number, broken in enumerate((("has_room",), ("committed",), ("due",), ("committed", "due"))):
        watcher = BrokenWatcher(*broken)
        spool.watch(watcher)
        put(pump, spool, MAILDIR, RELAY)
        assert pump.run(spool.count()) == number + 1
        assert bool(watcher.deliveries) == (broken == ("due",))
        assert bool(watcher.waiting) == ("due" not in broken)


# ------------------------------------------------------------------------------------------- contents


def test_claim_loads_small_contents_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, spool: SqliteSpool
) -> None:
    monkeypatch.setattr(claims, "_TO_MEMORY", 1000)
    for number in range(5):
        put(pump, spool, RELAY, content=b"%d" % number * 400)
    put(pump, spool, RELAY, content=b"x" * 3000)
    taken: list[Delivery] = pump.run(spool.claim(RELAY, 10))
    assert [one.content.in_memory() is not None for one in taken] == [True, True] + [False] * 4
    for number, delivery in enumerate(taken[:5]):
        assert pump.run(delivery.content.read(100, 900)) == b"%d" % number * 300
        with delivery.content.open() as file:
            assert file.read() == b"%d" % number * 400


def test_stored_content_is_read_in_worker_threads(pump: Pump, spool: SqliteSpool, monkeypatch: Any) -> None:
    monkeypatch.setattr(claims, "_TO_MEMORY", 0)
    for number in range(20):
        put(pump, spool, RELAY, content=b"%d" % number * 100)
    taken = pump.run(spool.claim(RELAY, 20))
    wrong: list[Any] = []

    def read() -> None:
        for _ in range(20):
            for number, delivery in enumerate(taken):
                with delivery.content.open() as file:
                    if file.read() != b"%d" % number * 100:
                        wrong.append(number)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_content_of_what_has_left_the_queue_is_an_error(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, spool: SqliteSpool
) -> None:
    monkeypatch.setattr(claims, "_TO_MEMORY", 0)
    put(pump, spool, RELAY)
    put(pump, spool, RELAY)
    gone, other = pump.run(spool.claim(RELAY, 2))
    pump.run(spool.settle([Settlement(gone, (DELIVERED,))]))
    with pytest.raises(FileNotFoundError):
        gone.content.open()
    with pytest.raises(FileNotFoundError):
        pump.run(gone.content.read(0, 10))
    pump.run(spool.stop())
    with pytest.raises(OSError, match="closed"):
        other.content.open()
    with pytest.raises(OSError, match="closed"):
        pump.run(other.content.read(0, 10))


# ---------------------------------------------------------------------------------------------- reroute


def test_reroute_goes_through_the_queue_in_pieces(
    monkeypatch: pytest.MonkeyPatch, pump: Pump, directory: Path, spool: SqliteSpool
) -> None:
    monkeypatch.setattr(sqlite, "_REROUTE_BATCH", 7)
    for number in range(50):
        put(pump, spool, *[RELAY] * (number % 4 + 1))
    asked: list[Any] = []

    def choose(address: Any, present: Destination, _: Any) -> Destination:
        asked.append(address)
        return OTHER if len(asked) % 5 == 0 else present

    waiting = sum(number % 4 + 1 for number in range(50))
    assert pump.run(spool.reroute(choose)) == waiting // 5
    assert len(asked) == waiting
    found = rows(directory, "SELECT destination, count(*) FROM recipients GROUP BY destination ORDER BY 2")
    assert found == [(str(OTHER), waiting // 5), (str(RELAY), waiting - waiting // 5)]


def test_what_is_claimed_while_routes_are_asked_stays_where_it_is(pump: Pump, spool: SqliteSpool) -> None:
    put(pump, spool, RELAY)
    taken: list[Delivery] = []

    def choose(*_: Any) -> Destination:
        taken.extend(pump.run(spool.claim(RELAY, 1)))
        return OTHER

    assert pump.run(spool.reroute(choose)) == 0
    pump.run(spool.release(taken))
    assert [destination for destination, _ in pump.run(spool.destinations())] == [RELAY]


def test_text_that_is_none_is_written_down_all_the_same(pump: Pump, spool: SqliteSpool) -> None:
    given = [put(pump, spool, RELAY) for _ in range(2)]
    odd, fine = pump.run(spool.claim(RELAY, 2))
    said = Outcome(Result.HELD, EnhancedStatus(4, 3, 0), "odd \udcff", remote="mx\udcff")
    fault = Event(1.0, EventKind.FAULT, "\udcff", given[0], {"text": "\udcff", "odd": {1, 2}})
    pump.run(spool.settle([Settlement(odd, (said,), events=(fault,)), Settlement(fine, (DELIVERED,))]))
    (found,) = pump.run(spool.select(EVERYTHING, 9))
    assert (found.recipients[0].last_text, found.recipients[0].last_remote) == ("odd \\udcff", "mx\\udcff")
    steps = pump.run(spool.history(queue_id=given[0], kind=EventKind.FAULT))
    assert "cannot be written down" in steps[0].detail["text"]


def test_damaged_content_keeps_its_own_message_from_its_end_and_no_other(pump: Pump, tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "damaged", pump)
    pump.run(spool.start())
    given = [put(pump, spool, RELAY, content=b"Q" * 100_000), put(pump, spool, RELAY)]
    pump.run(spool.stop())
    file = tmp_path / "damaged" / "queue.db"
    octets = bytearray(file.read_bytes())
    pages = [at for at in range(0, len(octets), 4096) if octets[at + 4 : at + 4096] == b"Q" * 4092]
    octets[pages[5] : pages[5] + 4] = b"\xff" * 4
    file.write_bytes(octets)
    pump.run(spool.start())
    damaged, fine = pump.run(spool.claim(RELAY, 2))
    idle: list[bool] = []
    writing = Writing(spool, pump, lambda: idle.append(writing.is_idle))
    for one in (damaged, fine):
        writing.put((Settlement(one, (DELIVERED,)),))
    pump.advance(0)
    pump.until(lambda: any(idle))
    assert not writing.is_failing
    (found,) = pump.run(spool.select(EVERYTHING, 9))
    assert (found.message.queue_id, found.recipients[0].state) == (given[0], QueueState.ON_HOLD)
    assert "was delivered" in str(found.recipients[0].last_text)
    pump.run(spool.stop())
