"""kill -9 in the midst of 2,000 messages, several times: what has had its 250 arrives, and nothing is left over."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.instance import Instance
from tests.load import Load
from tests.peers.process import LOOPBACK

pytestmark = pytest.mark.slow

COUNT = 2000
KILLS = 4


def kill_in_the_midst(load: Load, *servers: Instance) -> None:
    """Kill one of the servers and start it again, at moments that chance determines, until the load is through."""
    seed = random.randrange(10**6)
    print(f"seed: {seed}")  # pytest shows it when the test fails
    chance = random.Random(seed)
    for threshold in sorted(chance.sample(range(50, COUNT - 200), KILLS)):
        load.wait_for(threshold)
        time.sleep(chance.random() / 20)
        server = chance.choice(servers)
        server.kill()
        server.start()
    load.join(120.0)
    # What was under way when the connection went: at the most one message for each session and kill.
    assert len(load.doubtful) <= 8 * KILLS
    assert len(load.noted) + len(load.doubtful) == COUNT


def delivered(server: Instance) -> list[Path]:
    return list(server.data.glob("maildirs/*/*/new/*"))


@pytest.mark.parametrize("turn", range(2))
def test_what_was_promised_is_delivered_after_a_kill(instances: Callable[..., Instance], turn: int) -> None:
    users = ["alice", "bob", "carol"]
    server = instances("a.test", users=users)
    with Load(server.smtp_port, [server.address(user) for user in users], count=COUNT) as load:
        kill_in_the_midst(load, server)
        server.wait_until_drained(60.0)
        copies = load.check(delivered(server))
    # A file in a maildir bears its queue id, so a delivery that is made again after a crash makes no second one.
    assert set(copies.values()) == {1}
    server.check_leftovers()


def test_what_was_promised_is_relayed_whichever_is_killed(instances: Callable[..., Instance]) -> None:
    far = instances("b.test", users=["alice", "bob"])
    hop = {"domain": "b.test", "next_hop": f"{LOOPBACK}:{far.smtp_port}", "relay": True}
    near = instances("a.test", routes=[hop])
    with Load(near.smtp_port, ["alice@b.test", "bob@b.test"], count=COUNT) as load:
        kill_in_the_midst(load, near, far)
        for server in (near, far):
            server.wait_until_drained(60.0)
        copies = load.check(delivered(far))
    # RFC 1047: what was handed over, and not settled or not answered when the kill came, is handed over again.
    assert sum(count - 1 for count in copies.values()) < COUNT / 4
    near.check_leftovers()
    far.check_leftovers()
