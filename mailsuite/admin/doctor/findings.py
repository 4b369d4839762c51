"""What a walk finds at each of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it stands with a step. A warning does not end the walk."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One step of a walk: what was seen there, and what cures it where it is not as it should be."""

    step: str
    verdict: Verdict
    text: str
    cure: str | None = None

    def __str__(self) -> str:
        return self.text if self.cure is None else f"{self.text}; {self.cure}"


class Wrong(Exception):
    """The walk ends here; `finding` is what is wrong."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


class Walk:
    """Tells what is found as it is found: `tell` is called with each finding but the one that ends the walk."""

    def __init__(self, tell: Callable[[Finding], object]) -> None:
        self._tell = tell

    def ok(self, step: str, text: str) -> None:
        """This step is as it should be."""
        self._tell(Finding(step, Verdict.OK, text))

    def warn(self, step: str, text: str, cure: str) -> None:
        """Worth a word, and no reason to stop."""
        self._tell(Finding(step, Verdict.WARNING, text, cure))

    def wrong(self, step: str, text: str, cure: str) -> Wrong:
        """What ends the walk, to be raised."""
        return Wrong(Finding(step, Verdict.WRONG, text, cure))


def split(sentence: str, otherwise: str = "mend that, and see by `mailsuite check`") -> tuple[str, str]:
    """What is wrong, and its cure, of a sentence that has both; `otherwise` is the cure of one that has none."""
    text, semicolon, cure = sentence.rpartition("; ")
    return (text, cure) if semicolon else (sentence, otherwise)
