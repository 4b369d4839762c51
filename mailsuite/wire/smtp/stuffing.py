"""Makes content fit to follow a 354: line ends, leading dots, the end (RFC 5321 sections 2.3.8 and 4.5.2).

It works on whole buffers, wherever they were cut, and copies only where something must change.

Rules: a line that begins with a dot gets a second one. A bare CR or LF, which BDAT may have brought into the spool,
never goes out: each becomes CR LF (RFC 5321 section 2.3.8 forbids sending them, and peers that take them for line ends
can be made to see an end of data where there is none). Content whose last line has no end gets one.
"""

from __future__ import annotations

from typing import Final

END: Final = b".\r\n"


class DotStuffer:
    """The octets of one message on their way into DATA."""

    __slots__ = ("_at_line_start", "_held_cr")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held_cr = False  # the last octet was a CR, and what follows decides what it is

    def stuff(self, data: bytes) -> bytes:
        """The next octets of the content, as they go on the wire. A CR at their end is kept for the next call."""
        if not data:
            return data
        if self._held_cr:
            data = b"\r" + data
        self._held_cr = data[-1] == 13
        if self._held_cr:
            data = data[:-1]
            if not data:
                return data
        pairs = data.count(b"\r\n")
        if data.count(b"\n") != pairs or data.count(b"\r") != pairs:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        # RFC 5321 section 4.5.2: "one additional period is inserted at the beginning of the line".
        stuffed = data.replace(b"\n.", b"\n..")
        if self._at_line_start and stuffed[0] == 46:
            stuffed = b"." + stuffed
        self._at_line_start = stuffed[-1] == 10
        return stuffed

    def finish(self) -> bytes:
        """What ends the content: the end of an unfinished line, and the lone dot."""
        if self._held_cr or not self._at_line_start:
            return b"\r\n" + END
        return END
