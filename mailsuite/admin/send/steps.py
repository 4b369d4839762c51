"""What `mailsuite send` tells: one step after the other, for people as it happens, for programs in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import click

from mailsuite.admin.output import plain

_NAME_WIDTH: Final = 11
_LONGEST: Final = 1000  # characters of what a peer says


class Mark(StrEnum):
    """How it stands with a step; `SAID` and `HEARD` are the lines of the conversation."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    WRONG = "wrong"
    SAID = "said"
    HEARD = "heard"


_SIGNS: Final = {
    Mark.OK: ("ok", "green"),
    Mark.NOTE: ("", None),
    Mark.WARNING: ("warning", "yellow"),
    Mark.WRONG: ("wrong", "red"),
    Mark.SAID: ("->", "cyan"),
    Mark.HEARD: ("<-", "blue"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `seconds` is when it was, counted from the first."""

    name: str
    mark: Mark
    text: str
    seconds: float = 0.0


class Teller:
    """Gathers steps, and gives each to `show` as it comes. `seconds()` tells the time."""

    def __init__(self, seconds: Callable[[], float], show: Callable[[Step], object]) -> None:
        self._seconds = seconds
        self._show = show
        self._began = seconds()
        self.steps: list[Step] = []

    def tell(self, name: str, mark: Mark, text: str) -> None:
        """A step, in one line or in several."""
        step = Step(name, mark, text, round(self._seconds() - self._began, 3))
        self.steps.append(step)
        self._show(step)

    def ok(self, name: str, text: str) -> None:
        """It went well."""
        self.tell(name, Mark.OK, text)

    def note(self, name: str, text: str) -> None:
        """Something to know."""
        self.tell(name, Mark.NOTE, text)

    def warn(self, name: str, text: str) -> None:
        """It goes on, and may not be meant."""
        self.tell(name, Mark.WARNING, text)

    def wrong(self, name: str, text: str) -> None:
        """It did not go well."""
        self.tell(name, Mark.WRONG, text)

    def rows(self) -> list[dict[str, Any]]:
        """All of it, for JSON."""
        return [{**asdict(step), "mark": step.mark.value} for step in self.steps]


def print_step(step: Step) -> None:
    """Show a step to people."""
    sign, color = _SIGNS[step.mark]
    head = f"{step.seconds:7.3f}  {click.style(f'{sign:<7}', fg=color)} {step.name:<{_NAME_WIDTH}} "
    blank = " " * (7 + 2 + 7 + 1 + _NAME_WIDTH + 1)
    for number, line in enumerate(step.text.split("\n")):
        click.echo((blank if number else head) + plain(line, _LONGEST))
