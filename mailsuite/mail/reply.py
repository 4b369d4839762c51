"""Replies: a code, an enhanced status, and text (RFC 5321 section 4.2, RFC 2034).

A reply that we send is a constant of `mail.replies`, perhaps with another text; a reply that a peer sent is
parsed by the client core. Text is never trusted: line ends and control characters in it are replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from mailsuite.mail.status import EnhancedStatus

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]+")
# RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets, code, status and CRLF included.
_TEXT_LIMIT = 480


@dataclass(frozen=True)
class Reply:
    """One reply, of one line or several.

    `status` is None for codes that carry none (220 and 3yz, and 250 to HELO or EHLO: RFC 2034 section 4).
    """

    code: int
    status: EnhancedStatus | None
    lines: tuple[str, ...]

    @classmethod
    def make(cls, code: int, status: str | None, *lines: str) -> Reply:
        """Compose one from text, as in `Reply.make(550, "5.1.1", "No such user")`."""
        parsed = None if status is None else EnhancedStatus.parse(status)
        if status is not None and parsed is None:
            raise ValueError(f"not an enhanced status: {status!r}")
        return cls(code, parsed, lines or ("",))

    def saying(self, *lines: str) -> Reply:
        """The same code and status with another text."""
        return Reply(self.code, self.status, lines)

    @property
    def is_positive(self) -> bool:
        """2yz: the action was completed."""
        return 200 <= self.code < 300

    @property
    def is_intermediate(self) -> bool:
        """3yz: the peer waits for more."""
        return 300 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """4yz: the same may succeed later."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: the same will not succeed later."""
        return self.code >= 500

    @property
    def text(self) -> str:
        """All lines in one, for logs and reports."""
        return " ".join(self.lines)

    def __str__(self) -> str:
        head = f"{self.code}" if self.status is None else f"{self.code} {self.status}"
        return f"{head} {self.text}".rstrip()

    @cached_property
    def encoded(self) -> bytes:
        """The octets on the wire, last CRLF included; characters outside ASCII become `?`."""
        return _encode(self)


def _encode(reply: Reply) -> bytes:
    code, status = reply.code, "" if reply.status is None else f"{reply.status} "
    if code == 334:
        # RFC 4954 section 4: a challenge is one line, however long, with its space even where it is empty.
        return f"334 {_CONTROL.sub(' ', reply.text)}\r\n".encode("ascii", "replace")
    if len(reply.lines) == 1 and len(reply.lines[0]) <= _TEXT_LIMIT:
        clean = _CONTROL.sub(" ", reply.lines[0])
        return f"{code} {status}{clean}".rstrip(" ").encode("ascii", "replace") + b"\r\n"
    lines: list[str] = []
    for line in reply.lines:
        clean = _CONTROL.sub(" ", line)
        lines.extend(clean[at : at + _TEXT_LIMIT] for at in range(0, max(len(clean), 1), _TEXT_LIMIT))
    # RFC 2034 section 4: every line of a multi-line reply repeats the status.
    wire = [f"{code}-{status}{line}\r\n" for line in lines[:-1]]
    last = f"{code} {status}{lines[-1]}".rstrip(" ")
    return f"{''.join(wire)}{last}\r\n".encode("ascii", "replace")
