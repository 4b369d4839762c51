"""Holds each dialogue of `server/` in every way there is. `ways: whole` at its head says that packets are its point."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from tests.dialogues.dialogue import Dialogue, read_dialogues
from tests.dialogues.runners import Cut, at_random, hold_in_memory, lose_in_memory, one_by_one, whole

DIALOGUES = read_dialogues(Path(__file__).parent / "server")
CUTTABLE = [dialogue for dialogue in DIALOGUES if dialogue.words("ways") != ("whole",)]

every_dialogue = pytest.mark.parametrize("dialogue", DIALOGUES, ids=[dialogue.name for dialogue in DIALOGUES])
every_cuttable_dialogue = pytest.mark.parametrize("dialogue", CUTTABLE, ids=[dialogue.name for dialogue in CUTTABLE])


@pytest.fixture(autouse=True)
def _logged_failures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only dialogues that say so at their head (`logs: failures`) may have failures logged."""
    failures: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    globalLogPublisher.addObserver(observe)
    yield
    globalLogPublisher.removeObserver(observe)
    wanted = request.node.callspec.params["dialogue"].words("logs") == ("failures",)
    assert wanted or not failures, failures


@every_dialogue
@pytest.mark.parametrize("slow", [False, True], ids=["at-once", "slowly"])
def test_dialogue_in_whole_packets(dialogue: Dialogue, slow: bool) -> None:
    assert dialogue.steps
    hold_in_memory(dialogue, whole, slow=slow)


@every_cuttable_dialogue
@pytest.mark.parametrize("slow", [False, True], ids=["at-once", "slowly"])
def test_dialogue_octet_by_octet(dialogue: Dialogue, slow: bool) -> None:
    assert dialogue.steps
    hold_in_memory(dialogue, one_by_one, slow=slow)


@every_cuttable_dialogue
@pytest.mark.parametrize("seed", range(3))
def test_dialogue_in_random_pieces(dialogue: Dialogue, seed: int) -> None:
    assert dialogue.steps
    hold_in_memory(dialogue, at_random(f"{dialogue.name} {seed}"))
    hold_in_memory(dialogue, at_random(f"{dialogue.name} {seed} slowly"), slow=True)


@every_dialogue
@pytest.mark.parametrize("slow", [False, True], ids=["at-once", "slowly"])
def test_connection_lost_after_every_step_leaves_nothing(dialogue: Dialogue, slow: bool) -> None:
    for steps in range(len(dialogue.steps) + 1):
        cut: Cut = at_random(steps) if dialogue in CUTTABLE else whole
        left = lose_in_memory(dialogue, cut, steps, slow=slow)
        assert left == [], f"after {steps} steps"
