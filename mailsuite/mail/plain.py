"""Text of others, made plain: nothing that a remote host says reaches a terminal, a log or a letter as more than text.

Besides the control characters these are what ends a line or a paragraph in Unicode, and what turns the direction in
which text around it is shown (UAX #9: embeddings, overrides, isolates): by these a line can be made to say the reverse.
A tab is text (RFC 5321 section 4.2: `textstring`).
"""

from __future__ import annotations

import re
from typing import Final

_NOT_TEXT: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with a space in the place of each character that is none."""
    return _NOT_TEXT.sub(" ", text)
