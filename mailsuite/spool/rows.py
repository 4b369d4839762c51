"""The shapes of what goes to the database: plain tuples, made on the reactor's thread, as quick to send as to make."""

from __future__ import annotations

from typing import Any

Row = tuple[Any, ...]
Rows = tuple[Row, Row | None, list[Row], Row]
"""Of a message: its own, its content's, its recipients', and what `journal.received` makes its first step of."""


def storable(text: str) -> str:
    """A text as SQLite takes it: without halves of characters, which others may put into what they say."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
