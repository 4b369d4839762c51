"""A queue full of mail for a host that is dead, and mail for a living one beside it.

`python -m bench --only dead`, mailsuite alone: the rate at which mail is relayed to a living next hop, without and with
100,000 messages that wait for a dead one; what the server then takes in memory, and how long it takes to start and to
list.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import load, memory, relaying
from bench.load import Load
from bench.servers import Mailsuite
from tests.peers.process import LOOPBACK, PeerError, free_port, run, wait_until

MESSAGES = 100_000
LIVE = 1500
ROUNDS = 3
DEAD, ALIVE = "user@dead.test", "user@alive.test"
LEAST_RATE, MOST_SECONDS, MOST_MEMORY = 0.9, 2.0, 200 * 2**20
"""The goals: the part of its rate that live mail keeps, seconds to start, octets of memory."""

_MAILSUITE = "from mailsuite.admin.command import main; main()"


class _Server(Mailsuite):
    """Ours, with a route to nobody and one to the sink."""

    def __init__(self, directory: Path, dead: int, sink: int) -> None:
        super().__init__(directory)
        self._ports = {"dead.test": dead, "alive.test": sink}

    def prepare(self) -> None:
        config = self.directory / "mailsuite.toml"
        if config.exists():  # a second start, over the queue of the first
            return
        super().prepare()
        routes = (
            f'[[route]]\ndomain = "{name}"\nnext_hop = "{LOOPBACK}:{port}"\n' for name, port in self._ports.items()
        )
        config.write_text(f"{config.read_text()}[receive]\ntrust_loopback = true\n{''.join(routes)}")

    def command_line(self, *arguments: str) -> str:
        """What a `mailsuite` command says."""
        config = self.directory / "mailsuite.toml"
        done = run(
            [sys.executable, "-c", _MAILSUITE, "--config", config, *arguments], timeout=120.0, cwd=self.directory
        )
        if done.returncode:
            raise PeerError(f"mailsuite {' '.join(arguments)}: {done.stdout[-1000:]}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Dead:
    """What was found: rates in messages a second, medians; memory in octets; times in seconds."""

    messages: int
    before: float
    beside: float
    octets: float
    start: float
    listing: float
    top: float

    @property
    def kept(self) -> float:
        """The part of its rate that live mail keeps."""
        return self.beside / self.before

    def lines(self) -> list[str]:
        """As text."""
        rates = f"{self.before:.0f} a second without them, {self.beside:.0f} with: {self.kept:.2f}"
        room = f"{self.octets / 2**20:.0f} MiB (goal: {MOST_MEMORY / 2**20:.0f})"
        return [
            "",
            f"dead: {self.messages} messages wait for a dead host",
            f"  live mail: {rates} (goal: {LEAST_RATE})",
            f"  the server takes {room}, starts in {self.start:.2f} s (goal: {MOST_SECONDS})",
            f"  `mailsuite queue list` of all: {self.listing:.1f} s; `queue top --once`: {self.top:.1f} s",
        ]

    def missed(self) -> list[str]:
        """The goals that were not reached, each as a sentence."""
        sentences = []
        if self.kept < LEAST_RATE:
            sentences.append(f"dead: live mail keeps {self.kept:.2f} of its rate, goal {LEAST_RATE}")
        if self.start > MOST_SECONDS:
            sentences.append(f"dead: the start takes {self.start:.2f} s, goal {MOST_SECONDS}")
        if self.octets > MOST_MEMORY:
            sentences.append(f"dead: {self.octets / 2**20:.0f} MiB of memory, goal {MOST_MEMORY / 2**20:.0f}")
        return sentences


def measure(directory: Path, messages: int = MESSAGES, *, timeout: float = 300.0) -> Dead:
    """Queue so many for a dead host, and look. Raises `PeerError`, `LoadError`, `AssertionError`."""
    dead, alive = free_port(), free_port()
    server = _Server(directory / "mailsuite", dead, alive)
    with relaying.sink(alive, directory / "sink") as output:
        with server:
            before = _live(server, output, timeout)
            load.send(Load(messages=messages, sessions=20, length=1024), server.port, timeout=1200.0, recipient=DEAD)
            time.sleep(5.0)  # the last ones are deferred
            beside = _live(server, output, timeout)
        started = time.perf_counter()
        with server:
            taken = time.perf_counter() - started
            time.sleep(5.0)
            octets = memory.resident(server.pid)
            started = time.perf_counter()
            found = server.command_line("queue", "list", "--json")
            listing = time.perf_counter() - started
            if (count := found.count("dead.test")) < messages:
                raise PeerError(f"{count} of {messages} messages are listed")
            started = time.perf_counter()
            server.command_line("queue", "top", "--once")
            top = time.perf_counter() - started
    return Dead(messages, before, beside, octets, taken, listing, top)


def _live(server: Mailsuite, output: Path, timeout: float) -> float:
    """The rate of mail to the living host, the median of some runs."""
    rates = []
    for number in range(ROUNDS + 1):
        have = relaying.count(output)
        started = time.perf_counter()
        load.send(Load(messages=LIVE), server.port, timeout=timeout, recipient=ALIVE)
        wait_until(lambda have=have: relaying.count(output) - have >= LIVE, timeout=timeout)  # type: ignore[misc]
        if number:
            rates.append(LIVE / (time.perf_counter() - started))
    return statistics.median(rates)
