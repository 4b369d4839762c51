"""Commands that change messages which are named, without a server: what is said, and with which exit status."""

import json
import os
import subprocess
import sys

import pytest

from mailsuite.admin.queue import work
from mailsuite.mail.selection import EVERYTHING, Managed
from mailsuite.spool.reading import SpoolReader
from mailsuite.spool.sqlite import SqliteSpool

MISSING = "HOENOSUCH"


@pytest.fixture
def command(queue):
    """Run a command of the queue as a process, over a spool whose server has gone; exit status, output, errors."""

    def run(*arguments):
        queue.stop()
        with start(queue, *arguments) as process:
            said, errors = process.communicate(timeout=60)
        return process.returncode, said, errors

    return run


def start(queue, *arguments):
    command = [sys.executable, "-m", "mailsuite", "--config", str(queue.config), "queue", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def states(queue):
    queued = SpoolReader(queue.config.parent / "data" / "spool").select(EVERYTHING, 1000)
    return {one.message.queue_id: one.recipients[0].state.value for one in queued}


def test_what_is_missing_is_told_beside_what_was_done(queue, command):
    queue_id = queue.put("a@one.test")
    status, said, errors = command("hold", queue_id, MISSING)
    assert (status, said) == (1, "1 message, 1 recipient: put on hold.\n")
    assert f"{MISSING} is not in the queue" in errors
    status, said, errors = command("requeue", queue_id, MISSING, "--json")
    assert (status, json.loads(said)["messages"]) == (1, 1)
    assert f"{MISSING} is not in the queue" in errors
    status, said, errors = command("delete", queue_id, MISSING, "--yes")
    assert (status, said) == (1, "1 message, 1 recipient: deleted.\n")
    assert f"{MISSING} is not in the queue" in errors


def test_what_does_not_stand_so_is_told_beside_what_was_done(queue, command):
    held, free = queue.put("a@one.test"), queue.put("b@one.test")
    assert command("hold", held)[0] == 0
    status, said, errors = command("retry", held, free)
    assert (status, said.startswith("1 message, 1 recipient: ")) == (1, True)
    assert f"{held}: is on hold" in errors
    status, said, errors = command("release", held, free)
    assert (status, said.startswith("1 message, 1 recipient: ")) == (1, True)
    assert f"{free}: is not on hold" in errors
    assert set(states(queue).values()) == {"due"}
    status, said, errors = command("expire", held, free, "--recipient", "b@*", "--yes")
    assert (status, said.startswith("1 message, 1 recipient: ")) == (1, True)
    assert f"{held}: does not fit the conditions" in errors


def test_where_all_that_is_named_is_busy_it_may_succeed_later(queue, monkeypatch):
    queue_id = queue.put("a@one.test")
    queue.stop()
    monkeypatch.setattr(work, "change", lambda *_: (Managed(0, 0, 1), False))
    result = queue("queue", "hold", queue_id)
    assert result.exit_code == os.EX_TEMPFAIL
    assert "1 recipient is being served at this moment" in result.stderr
    assert queue("queue", "retry", "--all").exit_code == os.EX_TEMPFAIL
    monkeypatch.setattr(work, "change", lambda *_: (Managed(1, 1, 1), False))
    assert queue("queue", "hold", queue_id).exit_code == 0


@pytest.mark.parametrize("action", ["delete", "expire"])
def test_what_comes_while_the_question_stands_is_not_meant(queue, action):
    before = queue.put("a@one.test", age=5.0)
    queue.stop()
    with start(queue, action, "--all") as process:
        asked = ""
        while not asked.endswith("[y/N]: "):
            letter = process.stderr.read(1)
            assert letter
            asked += letter
        assert "1 message (1 recipient" in asked
        queue.spool = SqliteSpool(queue.config.parent / "data" / "spool", queue.clock, spill=1000)
        queue.clock.run(queue.spool.start())
        queue.clock.rightNow += 60.0  # beyond what the commands take to start
        after = queue.put("b@one.test")
        queue.clock.run(queue.spool.stop())
        said, _ = process.communicate("y\n", timeout=60)
    assert process.returncode == 0
    assert said.startswith("1 message, 1 recipient: ")
    left = SpoolReader(queue.config.parent / "data" / "spool").select(EVERYTHING, 1000)
    by_id = {one.message.queue_id: one.recipients[0].destination.agent for one in left}
    assert after in by_id
    assert before not in by_id or action == "expire"
