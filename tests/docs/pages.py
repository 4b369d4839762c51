"""What a test needs of a page of Markdown: its fenced blocks, and a place to run them in."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.peers.process import LOOPBACK, free_port, spawn, stop, wait_for_greeting

ROOT = Path(__file__).resolve().parents[2]
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=")
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# (\S+)\n")


class Block(NamedTuple):
    """A fenced block: its language, the file that its first line names ("" for none), its text."""

    language: str
    name: str
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page below the root of the tree, in order."""
    found = []
    for language, text in _FENCED.findall((ROOT / page).read_text(encoding="utf-8")):
        named = _FILE_NAME.match(text)
        found.append(Block(language, "" if named is None else named[1], text))
    return found


class Workplace:
    """A directory where the programs of a page are written and run, each port of theirs replaced by a free one."""

    def __init__(self, directory: Path, page: str) -> None:
        self.directory = directory
        self.output = directory / "output"
        self.expected_failures = 0  # how many tracebacks a test provokes
        self._texts = {block.name: block.text for block in blocks(page) if block.name}
        self._ports: dict[int, int] = {}
        self._processes: list = []

    def port(self, number: int) -> int:
        """The port that stands for this one of the page."""
        return self._ports.setdefault(number, free_port())

    def write(self, name: str) -> Path:
        """Write a program of the page down."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.with_ports(self._texts[name]), encoding="utf-8")
        return path

    def with_ports(self, text: str) -> str:
        """The text with its ports (2525, 2587, 8080) replaced."""
        return re.sub(r"\b(2525|2587|8080)\b", lambda match: str(self.port(int(match[1]))), text)

    def start(self, command: Sequence[str | Path], *, greets: int) -> None:
        """Run a command that serves, and return when it greets on the port that stands for `greets`."""
        environment = {"PYTHONPATH": f"{self.directory}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        process = spawn(command, output=self.output, cwd=self.directory, environment=environment)
        self._processes.append(process)
        wait_for_greeting(self.port(greets), process, output=self.output, timeout=30.0)

    def stop(self) -> None:
        """End what was started, the last first."""
        while self._processes:
            stop(self._processes.pop())

    def printed(self) -> str:
        """What the programs have printed so far."""
        return self.output.read_text("utf-8", "replace")

    def address(self, number: int) -> tuple[str, int]:
        """Where the port of the page is reached."""
        return LOOPBACK, self.port(number)
