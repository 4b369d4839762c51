"""Results: what they are, how two servers compare, how they print, and what machine they are from."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.scenarios import Run, Scenario


class Spread(NamedTuple):
    """A median and what it lies between."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Result:
    """All rounds of one scenario, by server; a server that failed is in `failures` with the reason."""

    scenario: Scenario
    rounds: dict[str, list[Run]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def ratios(self, subject: str, peer: str) -> tuple[Spread, Spread] | None:
        """Subject by peer, round by round, accepted and delivered. None when either has no runs."""
        pairs = list(zip(self.rounds.get(subject, []), self.rounds.get(peer, []), strict=False))
        if not pairs:
            return None
        return (
            Spread.of([one.accepted / other.accepted for one, other in pairs]),
            Spread.of([one.delivered / other.delivered for one, other in pairs]),
        )

    def missed(self, subject: str) -> list[str]:
        """The goals of the scenario that the medians did not reach, each as a sentence."""
        sentences = []
        for peer, goals in self.scenario.goals.items():
            ratios = self.ratios(subject, peer)
            for what, goal, ratio in zip(("accepted", "delivered"), goals, ratios or (), strict=False):
                if goal is not None and ratio.median < goal:
                    sentences.append(f"{self.scenario.name}: {what} {ratio.median:.2f} {peer}, goal {goal}")
        return sentences

    def as_json(self, subject: str) -> dict[str, Any]:
        """Everything that was measured, for machines."""
        ratios = {peer: self.ratios(subject, peer) for peer in self.rounds if peer != subject}
        return {
            "name": self.scenario.name,
            "title": self.scenario.title,
            "messages": self.scenario.load.messages,
            "rounds": {
                name: [{"accepted": run.accepted, "delivered": run.delivered} for run in runs]
                for name, runs in self.rounds.items()
            },
            "ratios": {
                peer: {"accepted": both[0]._asdict(), "delivered": both[1]._asdict()}
                for peer, both in ratios.items()
                if both
            },
            "failures": self.failures,
        }


def scenario_lines(result: Result, subject: str) -> Iterable[str]:
    """The table of one scenario: rates of each server, then the ratios of the subject to each peer."""
    yield f"\n{result.scenario.name}: {result.scenario.title}, {result.scenario.load.messages} messages"
    yield f"  {'messages a second':<28}{'accepted':<26}delivered"
    for name, runs in result.rounds.items():
        if runs:
            accepted = Spread.of([run.accepted for run in runs])
            delivered = Spread.of([run.delivered for run in runs])
            yield f"  {name:<28}{_rate(accepted):<26}{_rate(delivered)}"
    for name, reason in result.failures.items():
        yield f"  {name:<28}failed: {reason}"
    for peer in result.rounds:
        ratios = result.ratios(subject, peer) if peer != subject else None
        if ratios:
            yield f"  {f'{subject} / {peer}':<28}{_ratio(ratios[0]):<26}{_ratio(ratios[1])}"


def summary_lines(results: Sequence[Result], subject: str, peers: Sequence[str]) -> Iterable[str]:
    """One row for each scenario, one column for each peer: accepted and delivered, medians."""
    yield f"\n{subject} beside each, medians of the rounds: accepted, delivered"
    yield "  " + "".join(f"{heading:<16}" for heading in ("", *peers))
    for result in results:
        cells = []
        for peer in peers:
            ratios = result.ratios(subject, peer)
            cells.append(f"{ratios[0].median:.2f}  {ratios[1].median:.2f}" if ratios else "-")
        yield "  " + "".join(f"{cell:<16}" for cell in (result.scenario.name, *cells))


def machine(directory: Path) -> dict[str, str]:
    """What the figures depend on."""
    kind, mount = file_system(directory)
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "file system": f"{kind} ({mount}, {directory})",
    }


def file_system(directory: Path) -> tuple[str, str]:
    """The type of the file system that a directory is on, and where that is mounted."""
    found = ("unknown", "/")
    path = directory.resolve()
    for line in Path("/proc/mounts").read_text("utf-8", "replace").splitlines():
        _, mount, kind, *_ = line.split()
        # Later lines cover earlier ones; the longest mount point that the path is below counts.
        if path.is_relative_to(mount) and len(mount) >= len(found[1]):
            found = (kind, mount)
    return found


def _rate(spread: Spread) -> str:
    digits = 0 if spread.median >= 100 else 1
    return f"{spread.median:.{digits}f} ({spread.least:.{digits}f} to {spread.most:.{digits}f})"


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.least:.2f} to {spread.most:.2f})"
