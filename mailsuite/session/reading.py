"""Reads the content of a message while it is relayed, and finds where an interrupted one goes on.

A server that resumes a transaction names the octet that it wants next (RFC 1845 section 3). It counts content as it
was said: for BDAT that is as it lies in the spool. In DATA every line end is CR LF, so the count agrees only while no
bare CR or LF stands before it, and there the octet "must also correspond to the beginning of a line".

Known limits: before DATA is taken up again, what lies before the offset is read once, block by block, to see that the
count agrees. BDAT needs nothing of the kind.
"""

from __future__ import annotations

from typing import Final

from mailsuite.mail.content import Content

BLOCK: Final = 256 * 1024
"""Octets that are read, said and put into one BDAT chunk at once."""

_CRLF: Final = b"\r\n"


class ContentUnreadable(Exception):
    """Content could not be read. Where a part of it was said in DATA, the connection must end before the dot comes."""


async def read_block(content: Content, offset: int) -> bytes:
    """Octets from `offset` on, `BLOCK` at the most; empty only at the end. Raises `ContentUnreadable`."""
    octets = content.in_memory()
    try:
        block = await content.read(offset, BLOCK) if octets is None else octets[offset : offset + BLOCK]
    except OSError as error:
        raise ContentUnreadable(f"the message cannot be read: {error}") from error
    left = content.size - offset
    if len(block) > left or (left and not block):
        raise ContentUnreadable("the message is not as long as it was")
    return block


async def place_of(content: Content, offset: int, *, chunking: bool) -> int | None:
    """Where in the content a server means to go on; None where it cannot be gone on from there.

    `content.size` says that it has everything. `chunking` says that BDAT is used, not DATA. Raises `ContentUnreadable`.
    """
    size = content.size
    if offset == 0 or chunking:
        return offset if offset <= size else None
    end = min(offset, size)
    before = await _lines_before(content, end)
    if before is None:
        return None
    if before or not end:
        return offset if offset <= size else None
    # The last line has no end, and DATA has given it one.
    return size if end == size and offset == size + len(_CRLF) else None


async def _lines_before(content: Content, end: int) -> bool | None:
    """Whether a line ends at `end`; None where a bare CR or LF stands before it."""
    at = 0
    held = b""  # a CR, and what follows decides what it is
    last = b""
    while at < end:
        block = (await read_block(content, at))[: end - at]
        at += len(block)
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        block = block.removesuffix(held)
        pairs = block.count(_CRLF)
        if block.count(b"\n") != pairs or block.count(b"\r") != pairs:
            return None
        last = block[-2:] or last
    return None if held else last == _CRLF
