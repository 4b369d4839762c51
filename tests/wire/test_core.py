"""The few things in the core contract that do something."""

import pytest

from mailsuite.wire.core import NEED_DATA, PAUSED, Answer, EndOfFile, PeerTooSlow, Phase, Violation


def test_peer_too_slow_says_at_what() -> None:
    error = PeerTooSlow(Phase.DATA_BLOCK)
    assert error.phase is Phase.DATA_BLOCK
    assert str(error) == "the limit of time for data-block has passed"


@pytest.mark.parametrize("event", [Answer(b""), Violation("why"), EndOfFile()])
def test_events_are_values_and_true(event: object) -> None:
    """`while event := core.next_event()` must not stop at an event."""
    assert event
    assert event == event.__class__(*(getattr(event, name) for name in event.__slots__))  # type: ignore[attr-defined]
    assert event not in (NEED_DATA, PAUSED)
