"""Content as it arrives: by DATA (RFC 5321 section 4.5.2) or in BDAT chunks (RFC 3030 section 2).

A reader takes octets out of the receive buffer and gives the content within them, until it has `ended`. With a
`fault` it goes on to the end and gives nothing more.

DATA: dots are unstuffed, the end is found, line ends follow one rule. It works on whole buffers. Only
`<CRLF>.<CRLF>` ends the content: a bare LF or a bare CR is never part of the end (the SMTP smuggling family),
whatever the rule does with it otherwise.
"""

from __future__ import annotations

from enum import StrEnum

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.buffer import ReceiveBuffer

_END = b"\r\n.\r\n"
_LEADING_DOT = b"\r\n."


class LineEndRule(StrEnum):
    """What becomes of a bare LF in DATA content. A bare CR is refused under either rule."""

    NORMALIZE = "normalize"  # it ends a line: CR LF is stored
    REJECT = "reject"  # the message is refused


class DotReader:
    """Reads the content of one DATA command."""

    __slots__ = ("_held", "_left", "_rule", "_virtual", "altered", "ended", "fault")

    def __init__(self, rule: LineEndRule, max_size: int | None) -> None:
        # The CR LF that ended the DATA command begins the first line: it is needed to see a dot there.
        self._held = b"\r\n"
        self._virtual = 2
        self._rule = rule
        self._left = max_size
        self.fault: Reply | None = None
        self.altered = False  # by the rule
        self.ended = False

    def read(self, buffer: ReceiveBuffer) -> bytes:
        """The content in the buffer; empty where none of it is certain yet, or after a fault."""
        data = buffer.take_all()
        if not data:
            return b""
        raw = self._held + data if self._held else data
        # Base64 has no dots, and most other content none that leads a line: then this is all the searching there is.
        dot = raw.find(_LEADING_DOT) if b"." in raw else -1
        end = dot if dot < 0 or raw.startswith(_END, dot) else raw.find(_END, dot)
        if end >= 0:
            self.ended = True
            buffer.put_back(raw[end + 5 :])
            raw, self._held = raw[: end + 2], b""
        else:
            keep = _partial_end(raw)
            raw, self._held = (raw[:-keep], raw[-keep:]) if keep else (raw, b"")
        return self._clean(raw, stuffed=dot != end) if raw and self.fault is None else b""

    def _clean(self, raw: bytes, *, stuffed: bool) -> bytes:
        pairs = raw.count(b"\r\n")
        bare_lf = raw.count(b"\n") != pairs
        if raw.count(b"\r") != pairs:
            self.fault = replies.BARE_CR_IN_CONTENT
            return b""
        if bare_lf and self._rule is LineEndRule.REJECT:
            self.fault = replies.BARE_LF_IN_CONTENT
            return b""
        # RFC 5321 section 4.5.2: a leading dot is taken off. A dot behind a bare LF does not lead a line.
        content = raw.replace(_LEADING_DOT, b"\r\n") if stuffed else raw
        if self._virtual:
            content, self._virtual = content[self._virtual :], 0
        if bare_lf:
            self.altered = True
            content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0:
                self.fault = replies.TOO_BIG  # RFC 1870 section 6.3
                return b""
        return content


class ChunkReader:
    """Reads the octets of one BDAT chunk, which are content as they are."""

    __slots__ = ("_left", "fault")

    altered = False

    def __init__(self, size: int, fault: Reply | None = None) -> None:
        self._left = size
        self.fault = fault

    @property
    def ended(self) -> bool:
        """Whether the chunk is whole."""
        return not self._left

    def read(self, buffer: ReceiveBuffer) -> bytes:
        """The content in the buffer; empty where there is none, or after a fault."""
        data = buffer.take(self._left)
        self._left -= len(data)
        return data if self.fault is None else b""


def _partial_end(raw: bytes) -> int:
    """How many octets at the end of `raw` may be the beginning of the end of the content."""
    for length in range(min(4, len(raw)), 0, -1):
        if _END.startswith(raw[-length:]):
            return length
    return 0
