"""Content: header and body as octets with CRLF line ends, read again and again while it waits in the queue."""

from __future__ import annotations

from collections.abc import Awaitable
from io import BytesIO
from typing import BinaryIO, Protocol


class Content(Protocol):
    """The octets of one message, wherever they lie.

    They keep the CRLF they arrived with; an agent converts what it must. A large content never lies in memory whole.
    """

    @property
    def size(self) -> int:
        """How many octets there are."""

    def in_memory(self) -> bytes | None:
        """All octets where they lie in memory already, else None. Never blocks."""

    def read(self, offset: int, limit: int) -> Awaitable[bytes]:
        """Up to `limit` octets from `offset`, read off the reactor's thread; empty past the end.

        Raises `OSError` (also for a lost file or database) where they cannot be read.
        """

    def open(self) -> BinaryIO:
        """A file at the first octet. Blocks: for worker threads only. Raises `OSError` as `read` does."""


class MemoryContent:
    """Content that lies in memory: small messages, and what we compose ourselves."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    @property
    def size(self) -> int:
        """How many octets there are."""
        return len(self._octets)

    def in_memory(self) -> bytes:
        """All octets."""
        return self._octets

    async def read(self, offset: int, limit: int) -> bytes:
        """Up to `limit` octets from `offset`."""
        return self._octets[offset : offset + limit]

    def open(self) -> BinaryIO:
        """A file at the first octet."""
        return BytesIO(self._octets)
