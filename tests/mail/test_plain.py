"""What others say, made plain."""

import pytest

from mailsuite.mail.plain import plain


@pytest.mark.parametrize("code", [0x00, 0x0A, 0x1B, 0x7F, 0x85, 0x9B, *range(0x2028, 0x202F), *range(0x2066, 0x206A)])
def test_what_is_no_text_becomes_a_space(code) -> None:
    assert plain(f"a{chr(code)}b") == "a b"


@pytest.mark.parametrize("text", ["Go\ton", "caf\xe9", "\u05e9\u05dc\u05d5\u05dd", "\u2027\u202f\u2065", "\U0001f4ec"])
def test_text_stays(text) -> None:
    assert plain(text) == text
