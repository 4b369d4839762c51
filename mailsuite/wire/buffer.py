"""Received octets that wait to be parsed.

Lines are cut at LF and must end with CR LF. A line past the limit is reported once, as soon as it is seen to be
too long, and skipped to its end without being kept.
"""

from __future__ import annotations

from enum import Enum, auto


class LineFault(Enum):
    """Why a line is none."""

    TOO_LONG = auto()
    BARE_LINE_END = auto()


class ReceiveBuffer:
    """A growing end, a parsed beginning. Cheap where input arrives in whole packets."""

    __slots__ = ("_at", "_octets", "_skipping")

    def __init__(self) -> None:
        self._octets = b""
        self._at = 0
        self._skipping = False

    def __len__(self) -> int:
        return len(self._octets) - self._at

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        if self._at == len(self._octets):
            self._octets = data
        else:
            self._octets = self._octets[self._at :] + data
        self._at = 0

    def next_line(self, limit: int) -> bytes | LineFault | None:
        """The next line without its CR LF; None where it has not come whole yet.

        `limit` counts the CR LF (RFC 5321 section 4.5.3.1.4).
        """
        octets, start = self._octets, self._at
        end = octets.find(b"\n", start)
        if self._skipping:
            if end < 0:
                self._octets, self._at = b"", 0
                return None
            self._skipping = False
            self._at = end + 1
            return self.next_line(limit)
        if end < 0:
            if len(octets) - start <= limit:
                return None
            self._octets, self._at, self._skipping = b"", 0, True
            return LineFault.TOO_LONG
        self._at = end + 1
        if self._at - start > limit:
            return LineFault.TOO_LONG
        line = octets[start : end - 1] if end > start and octets[end - 1] == 13 else None
        if line is None or b"\r" in line:
            return LineFault.BARE_LINE_END
        return line

    def take(self, limit: int) -> bytes:
        """Up to `limit` octets, whatever they are."""
        taken = self._octets[self._at : self._at + limit]
        self._at += len(taken)
        return taken

    def take_all(self) -> bytes:
        """Everything there is."""
        taken = self._octets[self._at :] if self._at else self._octets
        self._octets, self._at = b"", 0
        return taken

    def peek(self) -> bytes:
        """Everything there is; it stays."""
        return self._octets[self._at :]

    def put_back(self, data: bytes) -> None:
        """Return octets that were taken and belong to what comes next; the buffer must be empty."""
        self._octets, self._at = data, 0
