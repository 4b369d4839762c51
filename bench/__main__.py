"""`python -m bench`: measures mailsuite beside its peers, in turns, and prints the ratios."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import dead, load, memory, relaying, report, satellite
from bench.dead import Dead
from bench.load import LoadError
from bench.report import Result
from bench.satellite import Crossing
from bench.scenarios import SCENARIOS, Scenario, measure, warm_up
from bench.servers import SERVERS, MailServer, Mailsuite
from tests.peers.process import PeerError, free_port

_MEMORY = "memory"
# ioctl_iflags(2): FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000
_QUICK = 0.15
# What stands for itself, and its number of messages.
_EXTRAS: dict[str, tuple[Callable[..., Crossing | Dead], int]] = {
    "satellite": (satellite.cross, satellite.MESSAGES),
    "dead": (dead.measure, dead.MESSAGES),
}
_NAMES = [server.name for server in SERVERS]


def main(arguments: Sequence[str]) -> int:
    """Measure and print. 1 when a server failed, or when `--check` is given and a goal was missed."""
    options = _options(arguments)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    memory.raise_file_limit()
    names = {options.subject, *options.peers}
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(_scratch(options.directory))
        facts = report.machine(base) | {"load": load.generator()}
        for name, value in facts.items():
            print(f"{name}: {value}")
        if not (options.scenarios or options.memory):
            names.clear()
        servers, absent = _start(stack, names, base)
        versions = {server.name: server.version() for server in servers}
        results = [_measure_rounds(scenario, servers, options) for scenario in options.scenarios]
    results += [
        _measure_relaying(scenario, {options.subject, *options.peers}, options) for scenario in options.relaying
    ]
    octets: dict[str, float] = {}
    if options.memory:
        octets = _measure_memory([type(server) for server in servers], options)
    peers = [name for name in versions if name != options.subject]
    if options.relaying:
        peers = sorted({*peers, *relaying.RELAYING} - {options.subject})
    if results and peers:
        print("\n".join(report.summary_lines(results, options.subject, peers)))
    missed: list[str] = []
    if options.subject == Mailsuite.name:  # the goals are its own
        missed = [sentence for result in results for sentence in result.missed(options.subject)]
    extras = {name: _look(name, options) for name in _EXTRAS if name in options.extras}
    if not options.quick:
        missed += [sentence for extra in extras.values() if extra for sentence in extra.missed()]
    if missed:
        print("\ngoals that were not reached:", *missed, sep="\n  ")
    if options.json:
        outcome: dict[str, Any] = {
            "machine": facts,
            "subject": options.subject,
            "versions": versions,
            "not measured": absent,
            "scenarios": [result.as_json(options.subject) for result in results],
            "octets for an idle connection": octets,
            **{name: dataclasses.asdict(extra) if extra else None for name, extra in extras.items()},
            "goals not reached": missed,
        }
        options.json.write_text(json.dumps(outcome, indent=1) + "\n")
    failed = any(result.failures for result in results) or None in extras.values()
    return int(failed or bool(missed and options.check))


def _start(stack: contextlib.ExitStack, names: set[str], base: Path) -> tuple[list[MailServer], dict[str, str]]:
    """Start each that can be; returns those that run, and why the others do not."""
    servers: list[MailServer] = []
    absent: dict[str, str] = {}
    for kind in SERVERS:
        if kind.name not in names:
            continue
        reason = kind.why_missing()
        if reason is None:
            server = kind(base / kind.name)
            try:
                server.start()
            except PeerError as problem:
                reason = f"it does not start: {problem}"
            else:
                stack.callback(server.stop)
                servers.append(server)
        if reason is None:
            print(f"{kind.name}: {kind.version()}")
        else:
            absent[kind.name] = reason
            print(f"{kind.name}: NOT MEASURED: {reason}")
    return servers, absent


def _measure_rounds(scenario: Scenario, servers: Sequence[MailServer], options: argparse.Namespace) -> Result:
    """All rounds of a scenario: every server in turn, in the other order in every other round."""
    result = Result(scenario, {server.name: [] for server in servers})
    for number in range(options.rounds + 1):
        note = f"round {number} of {options.rounds}" if number else "warming up"
        print(f"{scenario.name}: {note}", file=sys.stderr, flush=True)
        for server in servers if number % 2 else reversed(servers):
            if server.name in result.failures:
                continue
            try:
                if number == 0:
                    warm_up(server, scenario, timeout=options.timeout)
                else:
                    result.rounds[server.name].append(measure(server, scenario, timeout=options.timeout))
            except LoadError as problem:
                result.failures[server.name] = str(problem)
    for server in servers:
        server.clear()
    print("\n".join(report.scenario_lines(result, options.subject)), flush=True)
    return result


def _measure_relaying(scenario: Scenario, names: set[str], options: argparse.Namespace) -> Result:
    """All rounds of a scenario in which mail is relayed."""
    port = free_port()
    destinations = relaying.DESTINATIONS[scenario.name]
    with (
        _scratch(options.directory) as base,
        relaying.sink(port, base / "sink") as output,
        relaying.servers(names, destinations, port, base) as servers,
    ):
        result = Result(scenario, {server.name: [] for server in servers})
        for number in range(options.rounds + 1):
            print(f"{scenario.name}: round {number} of {options.rounds}", file=sys.stderr, flush=True)
            for server in servers if number % 2 else reversed(servers):
                if server.name in result.failures:
                    continue
                try:
                    one = relaying.measure(server, scenario, output, timeout=options.timeout)
                except LoadError as problem:
                    result.failures[server.name] = str(problem)
                else:
                    result.rounds[server.name] += [one] if number else []
    print("\n".join(report.scenario_lines(result, options.subject)), flush=True)
    return result


def _measure_memory(kinds: Sequence[type[MailServer]], options: argparse.Namespace) -> dict[str, float]:
    """Octets for an idle connection, by server, each started afresh: used memory hides what is new."""
    print("\nmemory: an idle connection, EHLO answered")
    octets = {}
    for kind in kinds:
        count = min(options.connections, kind.most_connections)
        with _scratch(options.directory) as base:
            server = kind(base / kind.name)
            try:
                with server:
                    octets[kind.name] = memory.idle_connection(server, count)
            except PeerError as problem:
                print(f"  {kind.name:<28}failed: {problem}")
            else:
                print(f"  {kind.name:<28}{octets[kind.name] / 1024:.1f} KiB each, of {count}")
    return octets


def _look(name: str, options: argparse.Namespace) -> Crossing | Dead | None:
    """One of the extras. None, and said why, where it fails."""
    measured, count = _EXTRAS[name]
    with _scratch(options.directory) as base:
        try:
            extra = measured(base, round(count * (_QUICK if options.quick else 1)), timeout=options.timeout)
        except (PeerError, LoadError, AssertionError) as problem:
            print(f"\n{name}: failed: {problem}")
            return None
    print("\n".join(extra.lines()))
    return extra


@contextlib.contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mailsuite-bench-", dir=directory) as name:
        base = Path(name)
        base.chmod(0o755)  # Postfix delivers as another user
        _spread(base)
        yield base


def _spread(directory: Path) -> None:
    """Have ext4 put each server's directory into another part of the disk: what one removes is not beside the others'.

    A file system that knows nothing of the kind is left as it is.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            flags = bytearray(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))
            flags[:4] = (int.from_bytes(flags[:4], sys.byteorder) | _TOP_DIRECTORY).to_bytes(4, sys.byteorder)
            fcntl.ioctl(descriptor, _SET_FLAGS, bytes(flags))
    finally:
        os.close(descriptor)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [*(scenario.name for scenario in (*SCENARIOS, *relaying.SCENARIOS)), _MEMORY, *_EXTRAS]
    parser.add_argument("--quick", action="store_true", help="few messages, two rounds: does it run at all?")
    parser.add_argument("--only", help=f"scenarios, by commas: {','.join(names)}")
    parser.add_argument("--rounds", type=int, help="how often each is measured (5)")
    parser.add_argument("--messages", type=int, help="messages in `kept` (2000); others in proportion")
    parser.add_argument("--subject", choices=_NAMES, default=_NAMES[0], help="the server in the ratios")
    parser.add_argument("--peers", help=f"the others, by commas: {','.join(_NAMES[1:])}")
    parser.add_argument("--connections", type=int, help="idle connections for memory (1000)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one run (%(default)s)")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="a file system to measure on (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is not reached")
    options = parser.parse_args(arguments)
    only = _chosen(parser, options.only, names)
    options.peers = _chosen(parser, options.peers, _NAMES)
    options.memory = _MEMORY in only
    options.extras = [name for name in _EXTRAS if name in only]
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.connections = options.connections or (300 if options.quick else 1000)
    factor = _QUICK if options.quick else 1.0
    if options.messages:
        factor = options.messages / SCENARIOS[0].load.messages
    options.scenarios = [scenario.scaled(factor) for scenario in SCENARIOS if scenario.name in only]
    options.relaying = [scenario.scaled(factor) for scenario in relaying.SCENARIOS if scenario.name in only]
    return options


def _chosen(parser: argparse.ArgumentParser, value: str | None, names: Sequence[str]) -> list[str]:
    chosen = value.split(",") if value else list(names)
    for name in chosen:
        if name not in names:
            parser.error(f"there is no {name!r}; there are {', '.join(names)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
