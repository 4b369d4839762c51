"""SASLprep: the examples of RFC 4013, and what query strings may hold that stored strings may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.wire.sasl import prepare_query, prepare_stored

# RFC 4013 section 3.
EXAMPLES = [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX")]
PROHIBITED = ["\u0007", "\u06271", "", "\u00ad", "a\0b", "\ud800", "\ue000", "\ufffd", "\u0627a\u0627"]

EMOJI = "\U0001f600"  # assigned after Unicode 3.2


@pytest.mark.parametrize("prepare", [prepare_query, prepare_stored])
@pytest.mark.parametrize(("text", "expected"), EXAMPLES)
def test_examples(prepare, text, expected):
    assert prepare(text) == expected


@pytest.mark.parametrize("prepare", [prepare_query, prepare_stored])
@pytest.mark.parametrize("text", PROHIBITED)
def test_prohibited(prepare, text):
    with pytest.raises(ValueError, match="SASLprep"):
        prepare(text)


def test_unassigned_code_points_pass_in_queries_only():
    assert prepare_query(f"\u2168{EMOJI}\u00ad\u2022e\u0301") == f"IX{EMOJI}\u2022\u00e9"
    with pytest.raises(ValueError, match="SASLprep"):
        prepare_stored(f"x{EMOJI}")


def test_unassigned_code_points_do_not_lift_the_other_rules():
    # RFC 3454 section 6: a string with right-to-left letters begins and ends with one.
    with pytest.raises(ValueError, match="SASLprep"):
        prepare_query(f"\u0627{EMOJI}")
    assert prepare_query(f"\u0627{EMOJI}\u0628") == f"\u0627{EMOJI}\u0628"


@given(st.text(max_size=30))
def test_queries_agree_with_stored_strings_where_those_are_allowed(text):
    try:
        stored = prepare_stored(text)
    except ValueError:
        stored = None
    if stored is not None:
        assert prepare_query(text) == stored


@given(st.text(st.characters() | st.sampled_from(f"{EMOJI}\u2022\u0301\u00bd\u0627"), max_size=30))
def test_preparation_raises_value_errors_only_and_settles(text):
    try:
        prepared = prepare_query(text)
    except ValueError:
        return
    assert prepared
    assert prepare_query(prepared) == prepared
    assert prepared.count(EMOJI) == text.count(EMOJI)


def test_errors_do_not_repeat_the_text():
    with pytest.raises(ValueError, match="SASLprep") as caught:
        prepare_stored("tops3cret\u0007")
    assert "tops3cret" not in str(caught.value)
