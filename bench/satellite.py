"""A turn of on-demand mail relay over a satellite link: a customer of ours pulls what a provider of ours holds.

`python -m bench --only satellite`. The link is a process of its own (`tests.peers.proxies`): 300 ms each way, 1 Mbit/s,
full duplex. Its octets, TLS's and SMTP's included, would need a certain time at that rate; what counts is how many
times as long the turn takes, from the dialling to the last octet. Round trips in which nobody sends make the
difference.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.load import Load
from bench.names import DOMAIN, USERS
from tests.instance import PASSWORD, Instance
from tests.peers.process import LOOPBACK, PeerError, free_port, wait_until

DELAY = 0.3  # seconds, each way
RATE = 1e6  # bits a second, each way
MESSAGES = 1000
LENGTH = 4096  # octets of a message, without its header
GOAL = 1.5
"""The most times as long as the octets need."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """What one turn took: octets each way, and seconds."""

    messages: int
    up: int
    down: int
    seconds: float

    @property
    def least(self) -> float:
        """The seconds that the octets of the fuller direction need at the link's rate."""
        return max(self.up, self.down) * 8 / RATE

    @property
    def ratio(self) -> float:
        return self.seconds / self.least

    def lines(self) -> list[str]:
        """As text."""
        return [
            "",
            f"satellite: {self.messages} messages of {LENGTH // 1024} KiB, {DELAY} s each way, {RATE:,.0f} bit/s",
            f"  {self.down} octets to the customer, {self.up} to the provider; they need {self.least:.1f} s",
            f"  the turn took {self.seconds:.1f} s: {self.ratio:.2f} times that (goal: at most {GOAL})",
        ]

    def missed(self) -> list[str]:
        """The goal that was not reached, as a sentence."""
        is_missed = self.ratio > GOAL
        return [f"satellite: {self.ratio:.2f} times what its octets need, goal {GOAL}"] if is_missed else []


def cross(directory: Path, messages: int = MESSAGES, *, timeout: float = 300.0) -> Crossing:
    """Pull so many messages over the link. Raises `PeerError`, `LoadError`, `AssertionError`."""
    provider = Instance(
        directory / "provider",
        "provider.test",
        customers=[{"name": "ship", "password": PASSWORD, "domains": [DOMAIN]}],
        settings={"limits.connections_per_address": 1000},
    )
    with provider, _link(provider.odmr_port) as (port, seen):
        load.send(Load(messages=messages, sessions=4, length=LENGTH), provider.smtp_port, timeout=timeout)
        pull = {
            "name": "satellite",
            "provider": f"{LOOPBACK}:{port}",
            "username": "ship",
            "password": PASSWORD,
            "tls": "required",
            "interval": 0,
        }
        with Instance(directory / "customer", DOMAIN, users=USERS, pulls=[pull]) as customer:
            user = USERS[0]
            wait_until(
                lambda: len(customer.messages(user)) >= messages,
                timeout=timeout,
                why=lambda: f"{len(customer.messages(user))} of {messages}: {customer.log()[-2000:]}",
            )
            # What it says when the link has carried the QUIT, too.
            wait_until(lambda: "pull satellite: " in customer.log(), timeout=30.0, why=customer.log)
    # The first connection with mail is the turn; the queue is empty behind it.
    connections = [dict(zip(words[::2], words[1::2], strict=True)) for words in map(str.split, seen)]
    most = max(connections, key=lambda words: int(words["down"]))
    return Crossing(messages, int(most["up"]), int(most["down"]), float(most["seconds"]))


@contextlib.contextmanager
def _link(target: int) -> Iterator[tuple[int, list[str]]]:
    """The link as a process; its port, and a list that has its account in lines when the block has ended."""
    port = free_port()
    command = [sys.executable, "-m", "tests.peers.proxies", str(target), "--port", str(port)]
    command += ["--delay", str(DELAY), "--rate", str(RATE)]
    checkout = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout) as process:
        assert process.stdout is not None
        account: list[str] = []
        try:
            if process.stdout.readline().strip() != str(port):
                raise PeerError(f"the link does not listen on {LOOPBACK}:{port}")
            yield port, account
        finally:
            process.terminate()
            account += process.stdout.read().splitlines()
