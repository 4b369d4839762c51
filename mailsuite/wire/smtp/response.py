"""Reads a server's replies out of what it sends (RFC 5321 section 4.2).

Rules: replies are taken as peers really send them. A line may end in a bare LF, the space behind the code may be
missing ("clients SHOULD be prepared to process the code alone", RFC 5321 section 4.2), and text may hold any octets:
it is read as UTF-8, what is none is replaced, what is no text becomes spaces. Not taken are a code outside 200 to
599, lines of one reply with different codes (a 250 that begins as 550 must count as neither), and replies past the
limits.

Known limit: an enhanced status is looked for at the head of the first line, then of the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mailsuite.mail.plain import plain
from mailsuite.mail.reply import Reply
from mailsuite.mail.status import EnhancedStatus
from mailsuite.wire.core import RemoteProtocolError

_SHORT: Final = 1024  # octets

# Code, then what stands behind it; a fourth digit makes it no code at all.
_LINE = re.compile(rb"([2-5][0-9]{2})(?![0-9])([ -]?)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """What a server may send as one reply.

    RFC 5321 section 4.5.3.1.5 allows 512 octets for a line, and many servers take more; a SASL challenge
    may have 12288 (RFC 4954 section 4). `size` bounds all lines of a reply together.
    """

    line: int = 12_288 + 6
    lines: int = 256
    size: int = 16_384


class ReplyReader:
    """A buffer that octets go into and replies come out of."""

    __slots__ = ("_buffer", "_code", "_limits", "_lines", "_searched", "_size")

    def __init__(self, limits: ReplyLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0  # how far the buffer holds no LF
        self._code: bytes | None = None  # of the reply whose lines are being gathered
        self._lines: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Append what came."""
        self._buffer += data

    def peek(self) -> bytes:
        """What has not been read; it stays."""
        return bytes(self._buffer)

    def take_all(self) -> bytes:
        """Take out what has not been read."""
        octets = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return octets

    def next_reply(self, *, status_in_positive: bool = True) -> Reply | None:
        """The next reply, or None until more has come.

        `status_in_positive` is false where 2yz carries no enhanced status: the greeting, the answer to EHLO and
        HELO (RFC 2034 section 4). Raises `RemoteProtocolError` on what is no reply; nothing can be read after that.
        """
        while (line := self._next_line()) is not None:
            match = _LINE.fullmatch(line)
            if match is None:
                raise RemoteProtocolError(f"not a reply: {_excerpt(line)}")
            code, mark, text = match.groups()
            # RFC 5321 section 4.2.1: "the reply code on each of the lines MUST be the same".
            if self._code is not None and code != self._code:
                raise RemoteProtocolError(f"a reply with two codes, {self._code.decode()} and {code.decode()}")
            self._code = code
            self._size += len(line)
            self._lines.append(text)
            if self._size > self._limits.size or len(self._lines) > self._limits.lines:
                raise RemoteProtocolError(
                    f"a reply of more than {self._limits.lines} lines or {self._limits.size} octets"
                )
            if mark != b"-":
                size, lines = self._size, self._lines
                self._lines, self._code, self._size = [], None, 0
                compose = _compose_known if size <= _SHORT else _compose
                return compose(int(code), tuple(lines), status_in_positive)
        return None

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if (len(self._buffer) if end < 0 else end + 1) > self._limits.line:
            raise RemoteProtocolError(f"a reply line of more than {self._limits.line} octets")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line.removesuffix(b"\r")


def _compose(code: int, raw: tuple[bytes, ...], status_in_positive: bool) -> Reply:  # noqa: FBT001 - for the cache
    lines = [plain(line.decode("utf-8", "replace")) for line in raw]
    status: EnhancedStatus | None = None
    # RFC 2034 section 4: in 2yz, 4yz and 5yz, never in 3yz; every line of a reply repeats it.
    if code >= 400 or (code < 300 and status_in_positive):
        status = EnhancedStatus.parse(lines[0])
        if status is None and len(lines) > 1:
            status = EnhancedStatus.parse(lines[-1])
        if status is not None:
            lines = [_without(status, line) for line in lines]
    return Reply(code, status, tuple(lines))


# A server says the same all day: of what is short, what was said last is kept.
_compose_known = lru_cache(maxsize=512)(_compose)


def _without(status: EnhancedStatus, line: str) -> str:
    if EnhancedStatus.parse(line) != status:
        return line
    _, _, rest = line.partition(" ")
    return rest.lstrip(" ")


def _excerpt(line: bytes) -> str:
    """The head of a line for a log, without anything that is not printable."""
    return ascii(line[:60].decode("latin-1"))
