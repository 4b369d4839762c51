"""A disk that is really full: a small file system in memory."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailsuite.interfaces import SpoolFull
from mailsuite.mail.queue import Settlement
from mailsuite.spool.sqlite import SqliteSpool
from tests.contracts.spool.kit import DELIVERED, ENVELOPE, RELAY, target
from tests.spool.conftest import check_whole
from tests.spool.pump import Pump

pytestmark = pytest.mark.slow

SMALL = 5_000
LARGE = 300_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, with a ballast of 2 MB to give room back."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "mailsuite-test", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small file system")
    (path / "ballast").write_bytes(bytes(2_000_000))
    yield path
    subprocess.run(["umount", str(path)], check=True)


def content_of(queue_id: str, size: int) -> bytes:
    return (queue_id.encode() * size)[:size]


def test_full_disk_refuses_new_mail_and_loses_none(pump: Pump, disk: Path) -> None:
    directory = disk / "spool"
    spool = SqliteSpool(directory, pump, spill=100_000, reserve=0)
    pump.run(spool.start())

    async def commit(size: int) -> str:
        draft = spool.draft()
        content = content_of(draft.queue_id, size)
        try:
            for at in range(0, size, 64 * 1024):
                waiting = draft.write(content[at : at + 64 * 1024])
                if waiting is not None:
                    await waiting
            await draft.commit(ENVELOPE, [target(RELAY)])
        finally:
            draft.abort()
        return str(draft.queue_id)

    accepted: dict[str, int] = {}
    refused = 0
    for number in range(3000):
        size = LARGE if number % 50 == 0 else SMALL
        try:
            accepted[pump.run(commit(size))] = size
        except SpoolFull:
            refused += 1
    assert refused > 100
    assert len(accepted) > 100

    # Still full: what is there can be read, and what was delivered can be written down, or is refused as a whole.
    taken: list[Any] = []
    try:
        taken += pump.run(spool.claim(RELAY, 20))
        pump.run(spool.settle([Settlement(one, (DELIVERED,)) for one in taken]))
        for one in taken:
            del accepted[one.message.queue_id]
    except SpoolFull:
        pass
    assert pump.run(spool.count()) == len(accepted)

    (disk / "ballast").unlink()
    for size in (SMALL, LARGE):
        accepted[pump.run(commit(size))] = size
    pump.run(spool.stop())
    check_whole(directory)

    spool = SqliteSpool(directory, pump, reserve=0)
    pump.run(spool.start())
    found = {}
    for delivery in pump.run(spool.claim(RELAY, 10_000)):
        queue_id, size = delivery.message.queue_id, delivery.content.size
        assert pump.run(delivery.content.read(0, size)) == content_of(queue_id, size)
        found[queue_id] = size
    assert found == accepted
    pump.run(spool.stop())
    check_whole(directory)
