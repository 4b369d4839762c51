"""What is measured, and one run of it against one server.

A run has two times, both from the first connection on: until the last message was accepted, and until
the last copy of the last message was in its maildir.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace

from bench import load
from bench.load import Load, LoadError
from bench.servers import MailServer

_WARM_UP = 20
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load under a short name.

    `goals`: the least ratio to a peer, by its name, for accepted and for delivered (None: no goal).
    """

    name: str
    title: str
    load: Load
    goals: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def with_messages(self, messages: int) -> Scenario:
        """The same, with another number of messages."""
        return replace(self, load=replace(self.load, messages=messages))

    def scaled(self, factor: float) -> Scenario:
        """The same, with so many times the messages; at least two for each session."""
        return self.with_messages(max(2 * self.load.sessions, round(self.load.messages * factor)))


SCENARIOS = (
    Scenario("kept", "4 KiB, 10 kept connections", Load(messages=2000), goals={"postfix": (3.0, 2.0)}),
    Scenario("fresh", "4 KiB, 10 connections, one message each", Load(messages=1000, keep=False)),
    Scenario("lone", "4 KiB, one kept connection", Load(messages=500, sessions=1)),
    Scenario("64k", "64 KiB, 10 kept connections", Load(messages=500, length=2**16)),
    Scenario(
        "10m",
        "10 MiB, 4 kept connections",
        Load(messages=24, sessions=4, length=10 * 2**20),
        goals={"postfix": (1.0, None)},
    ),
    Scenario("ten", "4 KiB to ten recipients, 10 kept connections", Load(messages=300, recipients=10)),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took, in messages a second."""

    accepted: float
    delivered: float


def warm_up(server: MailServer, scenario: Scenario, *, timeout: float) -> None:
    """A short run that does not count: files opened, code compiled, processes forked."""
    few = min(_WARM_UP, scenario.load.messages)
    measure(server, scenario.with_messages(few), timeout=timeout)


def measure(server: MailServer, scenario: Scenario, *, timeout: float) -> Run:
    """One run, from empty maildirs and a quiet disk. Raises `LoadError`."""
    server.clear()
    os.sync()
    messages = scenario.load.messages
    copies = messages * scenario.load.recipients if server.copies_for_each else messages
    started = time.perf_counter()
    accepted = load.send(scenario.load, server.port, timeout=timeout)
    while (count := server.delivered()) < copies:
        if time.perf_counter() - started > timeout:
            raise LoadError(f"{count} of {copies} were delivered in {timeout:.0f} seconds")
        time.sleep(_POLL_SECONDS)
    delivered = time.perf_counter() - started
    if count > copies:
        raise LoadError(f"{count} were delivered where {copies} were sent")
    return Run(messages / accepted, messages / delivered)
