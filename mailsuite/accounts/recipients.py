"""A file of recipients: an address in each line, or `@example.org` for everybody in a domain; `#` begins a comment.

A line with a fault makes the whole file one, for a recipient that is left out in silence is mail refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mailsuite.accounts.errors import DirectoryError, reason_of
from mailsuite.accounts.names import recipient_key

_COMMENT = re.compile(r"(?:^|\s)#")  # within a word it is part of an address


class Stamp(NamedTuple):
    """What tells whether a file is still the same."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """That of a file as it is now. Raises `OSError`."""
        status = path.stat()
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def addresses_in(lines: Iterable[str], source: str) -> Iterator[str]:
    """The addresses of a file, each looked at. `source` names it in the `DirectoryError` of a line that has none."""
    for number, line in enumerate(lines, 1):
        text = _COMMENT.split(line, 1)[0].strip()
        if not text:
            continue
        try:
            recipient_key(text)
        except DirectoryError as error:
            raise DirectoryError(f"{source}, line {number}: {error}") from None
        yield text


def read_recipients(path: Path) -> dict[str, frozenset[str]]:
    """The folded local parts of a file by domain; an empty one stands for everybody. Blocks.

    Raises `DirectoryError`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DirectoryError(f"the recipients in {path} cannot be read: {reason_of(error)}") from None
    found: dict[str, set[str]] = {}
    for address in addresses_in(text.splitlines(), str(path)):
        local_part, domain = recipient_key(address)
        found.setdefault(domain, set()).add(local_part)
    return {domain: frozenset(local_parts) for domain, local_parts in found.items()}
