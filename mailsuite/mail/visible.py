"""Words of strangers as they may stand in a line for people."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text in one line: what no letter, sign or space is stands there as an escape sequence."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
