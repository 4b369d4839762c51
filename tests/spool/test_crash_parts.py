"""A process that keeps and resumes parts is killed at any moment; what it was told is kept is there, and whole."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailsuite.mail.partial import Completed
from mailsuite.mail.route import HOLD
from mailsuite.spool.sqlite import SqliteSpool
from tests.spool.committer import DESTINATIONS, SPILL, content_of, targets_of
from tests.spool.conftest import check_whole
from tests.spool.keeper import ENVELOPE, own
from tests.spool.pump import Pump

ROOT = Path(__file__).parents[2]
ROUNDS = 6

pytestmark = pytest.mark.slow


def run_and_kill(directory: Path, seed: str, seconds: float, where: str) -> list[list[str]]:
    command = [sys.executable, "-m", "tests.spool.keeper", str(directory), seed, where]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        end = time.monotonic() + seconds
        while time.monotonic() < end:  # a full pipe would stop the process
            lines.append(process.stdout.readline())
        process.kill()
        lines += process.stdout.readlines()
    return [line.decode().split() for line in lines if line.endswith(b"\n")]


def look(
    directory: Path, where: str, names: set[str]
) -> tuple[dict[str, tuple[str, int]], set[str], dict[str, tuple[str, int]]]:
    """The parts by name, the messages, and what is complete by name.

    Parts are finished and their whole compared; messages are as well.
    """
    pump = Pump()
    spool = SqliteSpool(directory, pump, spill=SPILL, process=where == "process")
    pump.run(spool.start())
    parts: dict[str, tuple[str, int]] = {}
    completed: dict[str, tuple[str, int]] = {}
    finished: set[str] = set()
    for name in names:
        part = pump.run(spool.resume(own(name)))
        if part is None:
            continue
        if isinstance(part, Completed):
            assert (part.envelope, list(part.targets)) == (ENVELOPE, targets_of(part.queue_id))
            completed[name] = part.queue_id, part.received
            continue
        queue_id, size = part.draft.queue_id, part.draft.size
        assert part.received == size
        assert (part.envelope, list(part.targets)) == (ENVELOPE, targets_of(queue_id))
        parts[name] = queue_id, size
        rest = content_of(queue_id)[size:]
        for at in range(0, len(rest), 9000):
            waiting = part.draft.write(rest[at : at + 9000])
            if waiting is not None:
                pump.run(waiting)
        pump.run(part.draft.commit(part.envelope, part.targets))
        finished.add(queue_id)
    messages: set[str] = set()
    for destination in set(DESTINATIONS):
        hold = destination.agent == HOLD
        while taken := pump.run(spool.claim_held([destination], 500) if hold else spool.claim(destination, 500)):
            for delivery in taken:
                content = content_of(delivery.message.queue_id)
                assert pump.run(delivery.content.read(0, len(content) + 1)) == content
                messages.add(delivery.message.queue_id)
    assert pump.run(spool.count()) == len(messages)
    assert finished <= messages
    assert {queue_id for queue_id, _ in completed.values()} <= messages  # never a name without its message
    pump.run(spool.stop())
    check_whole(directory)
    return parts, messages, completed


def last_said(said: list[list[str]]) -> dict[str, tuple[str, int] | None]:
    """For each name what must be there; None where something was under way."""
    state: dict[str, tuple[str, int] | None] = {}
    for words in said:
        if words[0] == "T":
            state[words[1]] = None
        elif words[0] in {"K", "N"}:
            state[words[1]] = words[2], int(words[3])
    return state


@pytest.mark.parametrize("where", ["thread", "process"])
def test_what_was_kept_is_there_and_nothing_is_mixed(tmp_path: Path, where: str) -> None:
    directory = tmp_path / "spool"
    seed = random.randrange(10**9)
    choice = random.Random(seed)
    print(f"seed {seed}")
    committed: set[str] = set()
    surely = resumed = complete = 0
    for number in range(ROUNDS):
        said = run_and_kill(directory, f"{seed}-{number}", choice.uniform(0.02, 0.6), where)
        committed |= {words[1] for words in said if words[0] == "C"}
        expected = last_said(said)
        parts, messages, completed = look(directory, where, set(expected))
        assert committed <= messages
        for name, part in expected.items():
            if part is not None:
                assert {**parts, **completed}[name] == part
                surely += 1
        resumed += len(parts)
        complete += len(completed)
        committed |= messages
    print(f"{len(committed)} committed, {surely} names that had to be there; {resumed} parts, {complete} complete")
    assert complete > 10
    assert len(committed) > 30
    assert surely > 10
