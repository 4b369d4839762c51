"""Enhanced status codes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.status import MEANINGS, EnhancedStatus


@given(st.sampled_from([2, 4, 5]), st.integers(0, 999), st.integers(0, 999))
def test_status_is_read_as_it_was_written(class_: int, subject: int, detail: int) -> None:
    status = EnhancedStatus(class_, subject, detail)
    assert EnhancedStatus.parse(str(status)) == status
    assert EnhancedStatus.parse(f"{status} and some text") == status


@pytest.mark.parametrize(
    "text",
    [
        "",
        "OK",
        "5.1",
        "5.1.1.1",
        "3.1.1",
        "1.1.1",
        "5.1.1x",
        "5.1000.1",
        "5.1.1000",
        " 5.1.1",
        "5,1,1",
        "5.1.1-",
        "5.٣.1",
    ],
)
def test_what_is_no_status(text: str) -> None:
    assert EnhancedStatus.parse(text) is None


def test_of_class_keeps_what_happened() -> None:
    assert EnhancedStatus(4, 2, 2).of_class(5) == EnhancedStatus(5, 2, 2)


def test_meaning() -> None:
    assert EnhancedStatus(5, 1, 1).meaning == "Bad destination mailbox address"
    assert EnhancedStatus(5, 99, 99).meaning == ""
    assert all(MEANINGS.values())
