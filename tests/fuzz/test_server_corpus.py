"""Every input of the corpus, to the core and to the session behind it."""

from pathlib import Path

import pytest

from tests.fuzz.server import CORPUS, run_core, run_session

INPUTS = sorted(CORPUS.iterdir())


def test_there_is_a_corpus() -> None:
    assert len(INPUTS) > 40


@pytest.mark.parametrize("path", INPUTS, ids=[path.name for path in INPUTS])
def test_input_does_no_harm(path: Path) -> None:
    octets = path.read_bytes()
    assert octets
    run_core(octets)
    run_session(octets)
