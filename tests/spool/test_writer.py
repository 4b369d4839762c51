"""The writer: groups, one bad operation among good ones, a commit that fails, a full disk."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from mailsuite.interfaces import SpoolError, SpoolFull
from mailsuite.spool.errors import CommitFailed
from mailsuite.spool.transactions import Operation, Transactions
from mailsuite.spool.writer import Writer
from tests.spool.pump import Pump

TABLES = """
    PRAGMA foreign_keys = ON;
    CREATE TABLE parent (key INTEGER PRIMARY KEY);
    CREATE TABLE notes (key INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE child (parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
"""


class Statement(Operation):
    """Executes one statement; the result is the number of notes then."""

    __slots__ = ("arguments", "sql")

    def __init__(self, sql: str, *arguments: Any) -> None:
        super().__init__()
        self.sql = sql
        self.arguments = arguments

    def run(self, db: sqlite3.Connection) -> int:
        db.execute(self.sql, self.arguments)
        return int(db.execute("SELECT count(*) FROM notes").fetchone()[0])


class Count(Operation):
    """Counts the notes."""

    def run(self, db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT count(*) FROM notes").fetchone()[0])


class Note(Operation):
    """Writes a note, together with all others that wait."""

    __slots__ = ("text",)
    rank = 0
    batches: list[int]

    def __init__(self, text: str | None) -> None:
        super().__init__()
        self.text = text

    def run(self, db: sqlite3.Connection) -> None:
        self.run_together(db, [self])

    @classmethod
    def run_together(cls, db: sqlite3.Connection, operations: Sequence[Any]) -> None:
        cls.batches.append(len(operations))
        db.executemany("INSERT INTO notes (text) VALUES (?)", [(operation.text,) for operation in operations])


class Wait(Operation):
    """Keeps the writer busy, so that what is submitted meanwhile is one group."""

    __slots__ = ("begun", "end")

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.end = threading.Event()

    def run(self, db: sqlite3.Connection) -> None:
        self.begun.set()
        assert self.end.wait(10)


class Bench:
    def __init__(self, pump: Pump, path: Path) -> None:
        self.pump = pump
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.executescript(TABLES)
        self.told: list[int] = []
        self.writer = Writer(
            pump, Transactions(self.db, str(path)), str(path), lambda group: self.told.append(len(group))
        )
        self.writer.start()

    def together(self, *operations: Operation) -> list[Any]:
        """Run operations as one group; results or exceptions."""
        wait = Wait()
        waiting = self.writer.submit(wait)
        assert wait.begun.wait(10)
        answers: list[Deferred[Any]] = [self.writer.submit(one).addErrback(lambda f: f.value) for one in operations]
        wait.end.set()
        self.pump.run(waiting)
        return list(self.pump.run(gatherResults(answers)))

    def notes(self) -> list[str]:
        return [text for (text,) in self.db.execute("SELECT text FROM notes ORDER BY key")]


@pytest.fixture
def bench(pump: Pump, tmp_path: Path) -> Iterator[Bench]:
    Note.batches = []
    bench = Bench(pump, tmp_path / "notes.db")
    yield bench
    pump.run(bench.writer.close(Count()))


INSERT = "INSERT INTO notes (text) VALUES (?)"


def test_what_is_pending_is_one_transaction_and_one_report(bench: Bench) -> None:
    results = bench.together(*(Statement(INSERT, str(number)) for number in range(20)))
    assert results == list(range(1, 21))
    assert bench.writer.count == 2
    assert bench.told == [1, 20]


def test_kinds_with_a_rank_run_together_and_first_the_others_in_their_order(bench: Bench) -> None:
    results = bench.together(Statement(INSERT, "c"), Note("a"), Statement(INSERT, "d"), Note("b"))
    assert results == [3, None, 4, None]
    assert bench.notes() == ["a", "b", "c", "d"]
    assert Note.batches == [2]


@pytest.mark.parametrize(
    "bad",
    [lambda: Statement("INSERT INTO nowhere VALUES (1)"), lambda: Note(None), lambda: Statement(INSERT, object())],
)
def test_operation_that_fails_spoils_no_other(bench: Bench, bad: Callable[[], Operation]) -> None:
    results = bench.together(Note("a"), Statement(INSERT, "b"), bad(), Note("c"), Statement(INSERT, "d"))
    assert isinstance(results.pop(2), SpoolError)
    assert results == [None, 2, None, 4]
    assert bench.notes() == ["a", "b", "c", "d"]
    assert sum(bench.told) == 5


def test_defect_in_an_operation_is_a_spool_error_for_it_alone(bench: Bench) -> None:
    class Defect(Operation):
        def run(self, db: sqlite3.Connection) -> None:
            db.execute(INSERT, ("half done",))
            raise KeyError("defect")

    first, second = bench.together(Defect(), Statement(INSERT, "a"))
    assert isinstance(first, SpoolError)
    assert isinstance(first.__cause__, KeyError)
    assert second == 1
    assert bench.notes() == ["a"]


def test_commit_that_fails_fails_its_whole_group(bench: Bench) -> None:
    results = bench.together(Note("a"), Statement("INSERT INTO child VALUES (99)"), Statement(INSERT, "b"))
    assert [type(one) for one in results] == [CommitFailed] * 3
    assert len(set(map(id, results))) == 3
    assert bench.notes() == []
    assert bench.told == [1]
    assert bench.together(Statement(INSERT, "c")) == [1]


def test_full_disk_is_told_and_is_over_when_there_is_room(bench: Bench) -> None:
    bench.db.execute("PRAGMA max_page_count = 20")
    large, small = "x" * 200_000, "y"
    results = bench.together(Note(large), Note(small), Statement(INSERT, large), Statement(INSERT, small))
    assert [type(one) for one in results] == [SpoolFull, type(None), SpoolFull, int]
    assert bench.notes() == [small, small]
    bench.db.execute("PRAGMA max_page_count = 1000")
    assert bench.together(Note(large)) == [None]


def test_results_are_durable_before_they_are_told(bench: Bench, tmp_path: Path) -> None:
    seen: list[int] = []

    def look(result: Any) -> None:
        other = sqlite3.connect(tmp_path / "notes.db")
        seen.append(other.execute("SELECT count(*) FROM notes").fetchone()[0])
        other.close()

    bench.pump.run(bench.writer.submit(Note("a")).addCallback(look))
    assert seen == [1]


def test_cancelled_answer_changes_nothing(bench: Bench) -> None:
    answer = bench.writer.submit(Note("a"))
    failing = bench.writer.submit(Note(None))
    answer.cancel()
    failing.cancel()
    for one in (answer, failing):
        with pytest.raises(CancelledError):
            bench.pump.run(one)
    bench.together(Note("b"))
    assert bench.notes() == ["a", "b"]


def test_close_finishes_what_was_submitted(pump: Pump, tmp_path: Path) -> None:
    Note.batches = []
    bench = Bench(pump, tmp_path / "closing.db")
    answers = [bench.writer.submit(Note(str(number))) for number in range(50)]
    last = Count()
    closed = bench.writer.close(last)
    with pytest.raises(SpoolError):
        pump.run(bench.writer.submit(Note("late")))
    pump.run(closed)
    assert pump.run(gatherResults(answers)) == [None] * 50
    assert last.result == 50
    with pytest.raises(sqlite3.ProgrammingError):
        bench.db.execute("SELECT 1")


def test_watcher_that_fails_keeps_no_one_waiting(pump: Pump, tmp_path: Path) -> None:
    Note.batches = []
    bench = Bench(pump, tmp_path / "defect.db")
    bench.told = None  # type: ignore[assignment] - so that append fails
    assert pump.run(bench.writer.submit(Note("a"))) is None
    pump.run(bench.writer.close(Statement("INSERT INTO nowhere VALUES (1)")))
