"""Every dialogue in tests/dialogues/client, through the client's core: whole, octet by octet, cut anywhere."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.wire.core import NEED_DATA, PAUSED, EndOfFile
from mailsuite.wire.smtp.client import Greeting, Replied
from mailsuite.wire.smtp.commands import ContentEnd
from tests.wire.smtp.client_dialogue import DIALOGUES, Dialogue, one_by_one, read_steps, whole


def codes(text: str) -> list[int]:
    """The codes of the replies in a dialogue: those of lines that have no dash behind the code."""
    lines = [line[3:] for line in text.splitlines() if line.startswith("S:")]
    return [int(line[:3]) for line in lines if line[3:4] != "-"]


@pytest.mark.parametrize("cut", [whole, one_by_one])
@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: Path, cut):
    text = path.read_text(encoding="utf-8")
    dialogue = Dialogue(read_steps(text), cut)
    assert isinstance(dialogue.heard[0], Greeting)
    assert dialogue.replies == codes(text)
    answered = [event.command for event in dialogue.heard if isinstance(event, Replied)]
    once = [said for at, said in enumerate(answered) if not at or said is not answered[at - 1]]
    # Replies come to the commands in the order in which they were said; only the last may be without one.
    if not dialogue.core.lmtp:
        assert answered == dialogue.said[: len(answered)]
        assert len(dialogue.said) - len(answered) == dialogue.core.outstanding
    else:
        assert [said for said in once if not isinstance(said, ContentEnd)] == [
            said for said in dialogue.said if not isinstance(said, ContentEnd)
        ]
        assert dialogue.core.outstanding == 0
    if dialogue.turned:
        assert dialogue.core.next_event() is PAUSED
        return
    assert dialogue.core.next_event() is NEED_DATA
    dialogue.core.receive_data(b"")
    assert isinstance(dialogue.core.next_event(), EndOfFile)


@given(st.sampled_from(DIALOGUES), st.lists(st.integers(min_value=1, max_value=40), min_size=1))
def test_dialogue_cut_anywhere(path: Path, lengths: list[int]):
    text = path.read_text(encoding="utf-8")

    def cut(octets: bytes) -> Iterable[bytes]:
        turn = 0
        while octets:
            yield octets[: lengths[turn % len(lengths)]]
            octets = octets[lengths[turn % len(lengths)] :]
            turn += 1

    assert Dialogue(read_steps(text), cut).heard == Dialogue(read_steps(text), whole).heard
