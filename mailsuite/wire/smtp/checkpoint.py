"""Checkpoints of a transaction: the name a client gives it, and the offset a server resumes it at (RFC 1845).

The offset counts octets of the content as it is meant, before any stuffing. One of more than 20 digits is none.
"""

from __future__ import annotations

import re

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply

KEYWORD = "CHECKPOINT"
LINE_ROOM = 88
"""By how many octets a MAIL line may be longer (RFC 1845 section 2)."""

# RFC 1845 section 2: no SPACE, no CTLs, no "." and no tspecials, which are those of RFC 1521.
_ATOM = r"[!#$%&'*+\-0-9A-Z^_`a-z{|}~]+"
_TOKEN = rf"{_ATOM}(?:\.{_ATOM})*"
_TRANSID = re.compile(rf"{_TOKEN}@{_TOKEN}")
_MAX_TRANSID = 80 - len("<>")
_OFFSET = re.compile(r"([0-9]{1,20})(?=[ \t]|$)")


def is_transid(text: str) -> bool:
    """Whether this can be the value of TRANSID, its angle brackets taken off (RFC 1845 section 2)."""
    return len(text) <= _MAX_TRANSID and _TRANSID.fullmatch(text) is not None


def resuming(offset: int) -> Reply:
    """The answer to MAIL that resumes an interrupted transaction: the next octet of content is number `offset`.

    A line must begin there, since nobody knows yet whether DATA or BDAT comes (RFC 1845 section 3).
    """
    return replies.RESUMING.saying(f"{offset} is the transaction offset")


def offset_of(reply: Reply) -> int | None:
    """The octet at which a transaction is to be resumed; None where a reply says no such thing (RFC 1845 section 3)."""
    match = _OFFSET.match(reply.lines[0]) if reply.code == 355 else None
    return None if match is None else int(match[1])
