"""A process that commits is killed at any moment; whatever it was told is durable is there, and whole."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mailsuite.mail.queue import Delivery, Settlement
from mailsuite.spool.sqlite import SqliteSpool
from tests.spool.committer import DELIVERED, DESTINATIONS, MAILDIR, SPILL, content_of, targets_of
from tests.spool.conftest import check_whole
from tests.spool.pump import Pump

ROOT = Path(__file__).parents[2]
ROUNDS = 8

pytestmark = pytest.mark.slow


class Said(NamedTuple):
    """What the killed process had said."""

    committed: set[str]
    begun: set[str]
    delivered: set[str]


def run_and_kill(directory: Path, seed: str, seconds: float, *, from_first_line: bool) -> Said:
    command = [sys.executable, "-m", "tests.spool.committer", str(directory), seed]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()] if from_first_line else []
        # The pipe holds 64 KiB, and a full one would stop the process: it is read all the time.
        end = time.monotonic() + seconds
        while from_first_line and time.monotonic() < end:
            lines.append(process.stdout.readline())
        time.sleep(max(0, end - time.monotonic()))
        process.kill()
        lines += process.stdout.readlines()
    words = [line.decode().split() for line in lines if line.endswith(b"\n")]
    return Said(*({word[1] for word in words if word[0] == kind} for kind in "CdD"))


def look(directory: Path) -> dict[str, dict[str, Any]]:
    """All messages in the queue: by id and destination, the names of the recipients. Contents are compared here."""
    pump = Pump()
    spool = SqliteSpool(directory, pump, spill=SPILL)
    pump.run(spool.start())
    files = {path.name for path in (directory / "contents").iterdir()}
    found: dict[str, dict[str, Any]] = {}
    for destination in set(DESTINATIONS):
        while taken := take(pump, spool, destination):
            for delivery in taken:
                queue_id = delivery.message.queue_id
                content = content_of(queue_id)
                assert delivery.message.size == delivery.content.size == len(content)
                assert pump.run(delivery.content.read(0, len(content) + 1)) == content
                assert (queue_id in files) == (len(content) > SPILL)
                names = [one.address.local_part for one in delivery.recipients]
                found.setdefault(queue_id, {})[str(destination)] = names
                # All of these were under lease when the process died, or when the look before this one ended.
                assert delivery.replayed or destination != MAILDIR
    assert pump.run(spool.count()) == len(found)
    assert files <= set(found)
    pump.run(spool.stop())
    check_whole(directory)
    return found


def take(pump: Pump, spool: SqliteSpool, destination: Any) -> list[Delivery]:
    claim = spool.claim_held([destination], 500) if destination.agent == "hold" else spool.claim(destination, 500)
    return list(pump.run(claim))


def expected(queue_id: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for target in targets_of(queue_id):
        names.setdefault(str(target.destination), []).append(target.address.local_part)
    return names


def test_nothing_that_was_committed_is_lost_and_nothing_is_half_there(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    seed = random.randrange(10**9)
    choice = random.Random(seed)
    print(f"seed {seed}")
    committed: set[str] = set()
    begun: set[str] = set()
    delivered: set[str] = set()
    before: dict[str, dict[str, Any]] = {}
    for number in range(ROUNDS):
        said = run_and_kill(directory, f"{seed}-{number}", choice.uniform(0.02, 0.8), from_first_line=number % 4 != 3)
        committed |= said.committed
        begun |= said.begun
        delivered |= said.delivered
        found = look(directory)
        for queue_id in committed:
            whole = expected(queue_id)
            rest = {name: names for name, names in whole.items() if name != str(MAILDIR)}
            if queue_id in delivered:
                assert found.get(queue_id, {}) == rest
            elif queue_id in begun:
                assert found.get(queue_id, {}) in (whole, rest)
            else:
                assert found[queue_id] == whole
        for queue_id, names in found.items():
            if queue_id not in committed:  # killed between the commit and the line that tells it
                assert names == expected(queue_id) or queue_id in begun
        assert set(before) <= set(found)
        before = found
    print(f"{len(committed)} committed, {len(delivered)} delivered, {len(before)} in the queue")
    assert len(committed) > 100
    assert len(delivered) > 20
    # Everything can still be delivered, and then nothing is left.
    empty(directory)


def empty(directory: Path) -> None:
    pump = Pump()
    spool = SqliteSpool(directory, pump, spill=SPILL)
    pump.run(spool.start())
    for destination in set(DESTINATIONS):
        while taken := take(pump, spool, destination):
            pump.run(spool.settle([Settlement(one, (DELIVERED,) * len(one.recipients)) for one in taken]))
    assert pump.run(spool.count()) == 0
    pump.run(spool.stop())
    check_whole(directory)
    assert list((directory / "contents").iterdir()) == []
