"""What is relayed: the same load to each server, which hands it on to Postfix's `smtp-sink`.

A run ends when the sink has had the last message. To one destination, a next hop of the configuration, the load comes
from `smtp-source`; to many it comes from `bench.burst`, and each domain has a host of its own, all of them the sink:
mailsuite learns them from a name server (`bench.zone`), Postfix from a table and a file of hosts, so it asks no DNS.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import load
from bench.burst import domain
from bench.load import Load, LoadError
from bench.scenarios import Run, Scenario
from bench.servers import CHECKOUT, MailServer, Mailsuite, Postfix
from bench.zone import HOSTS
from tests.peers import postfix, smtpstone
from tests.peers.process import LOOPBACK, PeerError, free_port, run, spawn, stop, wait_for_greeting, wait_until

SCENARIOS = (
    Scenario("relay", "4 KiB, relayed to one destination", Load(messages=2000), goals={"postfix": (None, 2.0)}),
    Scenario("relay1000", "4 KiB, relayed to 1,000 destinations", Load(messages=4000), goals={"postfix": (None, 2.0)}),
)
DESTINATIONS = {"relay": 1, "relay1000": 1000}
RECIPIENT = "user@next.test"


class RelayingMailsuite(Mailsuite):
    """Ours, with routes to the sink, or a name server that leads there."""

    def __init__(self, directory: Path, sink: int, destinations: int) -> None:
        super().__init__(directory)
        self._sink = sink
        self._destinations = destinations
        self._zone = free_port()
        self._names: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        super().prepare()
        config = self.directory / "mailsuite.toml"
        more = "[receive]\ntrust_loopback = true\n"
        if self._destinations == 1:
            more += f'[[route]]\ndomain = "*"\nnext_hop = "{LOOPBACK}:{self._sink}"\n'
        else:
            more += f'[relay]\nport = {self._sink}\nresolver = "{LOOPBACK}:{self._zone}"\n'
        config.write_text(config.read_text() + more)

    def start(self) -> None:
        if self._destinations > 1:
            self.directory.mkdir(parents=True, exist_ok=True)
            output = self.directory / "zone"
            self._names = spawn((sys.executable, "-m", "bench.zone", str(self._zone)), output=output, cwd=CHECKOUT)
            wait_until(lambda: b"ready" in output.read_bytes(), why=output.read_text)
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._names is not None:
            stop(self._names)
            self._names = None


class RelayingPostfix(Postfix):
    """Postfix, with a next hop for all mail, or one for each domain."""

    def __init__(self, directory: Path, sink: int, destinations: int) -> None:
        super().__init__(directory)
        directory.mkdir(parents=True, exist_ok=True)
        settings = {}
        names = [f"{domain(number).partition('.')[0]}.{HOSTS}" for number in range(destinations)]
        if destinations > 1:
            table = directory / "transport"
            lines = (f"{domain(number)} smtp:[{name}]:{sink}\n" for number, name in enumerate(names))
            table.write_text("".join(lines))
            settings["transport_maps"] = f"texthash:{table}"
        self._postfix = postfix.Postfix(
            domain=None,
            next_hop=(LOOPBACK, sink),
            settings=settings,
            directory=directory,
            logged=False,
            hosts=dict.fromkeys(names, LOOPBACK) if destinations > 1 else None,
        )


RELAYING: dict[str, type[RelayingMailsuite | RelayingPostfix]] = {
    "mailsuite": RelayingMailsuite,
    "postfix": RelayingPostfix,
}


@contextlib.contextmanager
def sink(port: int, directory: Path) -> Iterator[Path]:
    """An `smtp-sink` on a port of the loopback; it writes its counters to the file: see `count`."""
    directory.mkdir(parents=True, exist_ok=True)
    output = directory / "sink"
    command: list[str | Path] = [
        postfix.program("smtp-sink"),
        *("-4", "-c", "-u", smtpstone.SINK_USER),
        *("-m", "2000"),
    ]
    process = spawn(
        [*command, f"{LOOPBACK}:{port}", "512"],
        output=output,
        cwd=directory,
        environment=postfix.environment(),
    )
    try:
        wait_for_greeting(port, process, output=output)
        yield output
    finally:
        stop(process)


def count(output: Path) -> int:
    """How many messages a sink has had, by the last line that it wrote."""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 200))
        found = re.findall(rb"mesg=(\d+)", file.read())
    return int(found[-1]) if found else 0


def measure(server: MailServer, scenario: Scenario, output: Path, *, timeout: float) -> Run:
    """One run; `output` is what the sink writes. Raises `LoadError`."""
    messages, destinations = scenario.load.messages, DESTINATIONS[scenario.name]
    before = count(output)
    started = time.perf_counter()
    accepted = send(scenario.load, server.port, destinations, timeout=timeout)
    while (relayed := count(output) - before) < messages:
        if time.perf_counter() - started > timeout:
            raise LoadError(f"{relayed} of {messages} messages were relayed in {timeout:.0f} seconds")
        time.sleep(0.005)
    return Run(messages / accepted, messages / (time.perf_counter() - started))


def send(one: Load, port: int, destinations: int, *, timeout: float) -> float:
    """Send a load to one destination or to many; the seconds that took. Raises `LoadError`."""
    if destinations == 1:
        return load.send(one, port, timeout=timeout, recipient=RECIPIENT)
    started = time.perf_counter()
    done = run(
        [
            *(sys.executable, "-m", "bench.burst", str(port), "--messages", str(one.messages)),
            *("--sessions", str(one.sessions), "--length", str(one.length), "--domains", str(destinations)),
        ],
        timeout=timeout,
        cwd=CHECKOUT,
    )
    if done.returncode:
        raise LoadError(done.stdout.strip()[-500:])
    return time.perf_counter() - started


@contextlib.contextmanager
def servers(names: set[str], destinations: int, port: int, base: Path) -> Iterator[list[MailServer]]:
    """Those of the servers that can relay, started; the sink is to be at that port. Raises `PeerError`."""
    with contextlib.ExitStack() as stack:
        started: list[MailServer] = []
        for name, kind in RELAYING.items():
            if name in names and kind.why_missing() is None:
                server = kind(base / f"{name}-{destinations}", port, destinations)
                server.start()
                stack.callback(server.stop)
                started.append(server)
        if not started:
            raise PeerError("nobody here relays")
        yield started
