"""A disk that is full while reports are to be written: nothing is lost, nobody is told twice."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.disk import MEBIBYTE, SmallDisk, small_disk, why_missing
from tests.instance import Instance, parse
from tests.peers.process import LOOPBACK, wait_until

pytestmark = pytest.mark.slow

COUNT = 20


class Rig(NamedTuple):
    a: Instance
    b: Instance
    disk: SmallDisk


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A server on a small disk, with mail for one behind it, which will refuse half of it and does not run yet."""
    missing = why_missing()
    if missing is not None:
        pytest.skip(missing)
    b = Instance(tmp_path / "b", "b.test", users=["bob"])
    routes = [{"domain": "b.test", "next_hop": f"{LOOPBACK}:{b.smtp_port}"}]
    a = Instance(tmp_path / "a", "a.test", routes=routes)
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(a, 4 * MEBIBYTE))
        a.add_users(["alice"])
        stack.enter_context(a)
        for number in range(COUNT):
            with a.client("alice") as client:
                client.sendmail("alice@a.test", ["bob@b.test", "nobody@b.test"], f"Subject: {number}\r\n\r\nbody\r\n")
        wait_until(lambda: any(attempts for _, attempts, _ in a.queue()), why=a.log)
        yield Rig(a, b, disk)
        b.stop()
    for server in (a, b):
        server.check_log()


@pytest.mark.parametrize("killed", [False, True])
def test_who_is_to_be_told_is_told_once_when_there_is_room(rig: Rig, killed: bool) -> None:
    rig.b.start()
    # Who was taken is written down; who was refused is gathered for some seconds, for one report.
    wait_until(lambda: len(rig.b.messages("bob")) == COUNT, timeout=20, why=rig.a.log)
    wait_until(lambda: {address for address, _, _ in rig.a.queue()} == {"nobody@b.test"}, why=rig.a.log)
    rig.disk.leave(0)
    assert rig.a.messages("alice") == []
    wait_until(lambda: "the spool failed" in rig.a.log(), timeout=20, why=rig.a.log)
    if killed:
        rig.a.kill()
    rig.disk.free()
    if killed:
        rig.a.start()
    rig.a.wait_until_drained(60)
    rig.a.wait_for("alice", COUNT)
    told = Counter(_about(path) for path in rig.a.messages("alice"))
    assert told == dict.fromkeys(range(COUNT), 1)
    assert Counter(rig.b.numbers("bob")) == dict.fromkeys(range(COUNT), 1)
    rig.a.check_leftovers()


def _about(path: Path) -> int:
    """Which message a report returns."""
    returned = parse(path).get_payload()[2]
    return int(returned.as_bytes().partition(b"Subject: ")[2].split()[0])
