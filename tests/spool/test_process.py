"""The database in a process of its own: what is told, what is lost with it, who holds the lock."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from twisted.internet.defer import gatherResults

from mailsuite.interfaces import SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import Outcome, Result, Settlement
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.status import EnhancedStatus
from mailsuite.spool.errors import CommitFailed
from mailsuite.spool.process import ProcessLost
from mailsuite.spool.sqlite import SqliteSpool
from tests.spool.pump import Pump

TARGETS = [Target(Address("user", "example.org"), Destination("relay", "example.org"))]


def children() -> set[int]:
    """The processes that this one has begun."""
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(number) for path in listed for number in path.read_text().split()}


class Process:
    """A spool whose database is in another process."""

    def __init__(self, pump: Pump, directory: Path) -> None:
        self.pump = pump
        self.lost: list[SpoolError] = []
        before = children()
        self.spool = SqliteSpool(directory, pump, process=True, lost=self.lost.append)
        pump.run(self.spool.start())
        (self.pid,) = children() - before

    def commit(self, count: int) -> list[object]:
        """Queue messages; None for each that is durable, else the error."""
        drafts = [self.spool.draft() for _ in range(count)]
        for draft in drafts:
            draft.write(b"Subject: x\r\n\r\ny\r\n")
        waiting = [draft.commit(Envelope(None), TARGETS).addErrback(lambda f: f.value) for draft in drafts]
        return list(self.pump.run(gatherResults(waiting)))


def test_groups_are_run_elsewhere_and_the_process_ends_with_the_spool(pump: Pump, directory: Path) -> None:
    process = Process(pump, directory)
    assert process.commit(20) == [None] * 20
    assert 1 <= process.spool.transactions < 20
    pump.run(process.spool.stop())
    assert process.pid not in children()
    assert process.lost == []


def test_process_that_is_killed_fails_what_it_was_given_and_all_that_follows(pump: Pump, directory: Path) -> None:
    process = Process(pump, directory)
    assert process.commit(3) == [None] * 3
    draft = process.spool.draft()
    draft.write(b"x")
    os.kill(process.pid, signal.SIGSTOP)  # so that it dies with a group in its hands
    waiting = draft.commit(Envelope(None), TARGETS).addErrback(lambda f: f.value)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert isinstance(pump.run(waiting), CommitFailed)
    (later,) = process.commit(1)
    assert isinstance(later, ProcessLost)
    assert "start the server again" in str(later)
    pump.until(lambda: bool(process.lost))
    assert len(process.lost) == 1
    pump.run(process.spool.stop())

    again = Process(pump, directory)
    assert pump.run(again.spool.count()) == 3
    pump.run(again.spool.stop())


def test_process_that_is_killed_is_missed_at_once(pump: Pump, directory: Path) -> None:
    process = Process(pump, directory)
    os.kill(process.pid, signal.SIGKILL)
    pump.until(lambda: bool(process.lost))
    (failed,) = process.commit(1)
    assert isinstance(failed, SpoolError)
    assert len(process.lost) == 1
    pump.run(process.spool.stop())


def test_process_goes_on_when_signals_come_that_are_meant_for_the_server(pump: Pump, directory: Path) -> None:
    process = Process(pump, directory)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
    time.sleep(0.05)
    assert process.commit(2) == [None] * 2
    pump.run(process.spool.stop())


def test_process_holds_the_lock(pump: Pump, directory: Path) -> None:
    process = Process(pump, directory)
    with pytest.raises(SpoolError, match="Another mailsuite"):
        pump.run(SqliteSpool(directory, pump).start())
    pump.run(process.spool.stop())
    second = SqliteSpool(directory, pump)
    pump.run(second.start())
    pump.run(second.stop())


def test_defect_is_told_with_its_traceback_and_spoils_nothing(pump: Pump, directory: Path) -> None:
    process = Process(pump, directory)
    envelope = Envelope(None, submitter=object())  # type: ignore[arg-type] - what no database takes
    draft = process.spool.draft()
    draft.write(b"x")
    failing = draft.commit(envelope, TARGETS)
    with pytest.raises(SpoolError):
        pump.run(failing)
    assert process.commit(1) == [None]
    pump.run(process.spool.stop())


def test_process_that_cannot_be_started_is_replaced_by_a_thread(
    pump: Pump, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    spool = SqliteSpool(directory, pump, process=True)
    pump.run(spool.start())
    draft = spool.draft()
    draft.write(b"x")
    pump.run(draft.commit(Envelope(None), TARGETS))
    assert pump.run(spool.count()) == 1
    pump.run(spool.stop())


@pytest.mark.parametrize("database", ["queue.db", "nowhere/queue.db"])
def test_process_whose_server_was_killed_while_it_began_ends_in_silence(database: str, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        command = [sys.executable, "-m", "mailsuite.spool.worker", str(tmp_path / database)]
        done = subprocess.run(command, stdin=ours, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_no_plain_data_fails_alone_and_the_process_lives(pump: Pump, directory: Path) -> None:
    process = Process(pump, directory)
    process.commit(2)
    odd, fine = pump.run(process.spool.claim(TARGETS[0].destination, 2))
    done = Outcome(Result.RELAYED, EnhancedStatus(2, 0, 0), "ok")
    step = Event(1.0, EventKind.FAULT, None, odd.message.queue_id, {"text": lambda: None})
    waiting = [
        process.spool.settle([Settlement(odd, (done,), events=(step,))]).addErrback(lambda f: f.value),
        process.spool.settle([Settlement(fine, (done,))]).addErrback(lambda f: f.value),
    ]
    refused, settled = pump.run(gatherResults(waiting))
    assert isinstance(refused, SpoolError)
    assert settled is None
    assert process.lost == []
    pump.run(process.spool.stop())
