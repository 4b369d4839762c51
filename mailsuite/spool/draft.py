"""A message on its way into the SQLite spool: gathered in memory, past a bound streamed to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsuite.interfaces import IDraft, SpoolError
from mailsuite.mail.content import Content, MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.origin import Origin
from mailsuite.mail.route import Target
from mailsuite.spool.disk import detached
from mailsuite.spool.errors import CommitFailed
from mailsuite.spool.files import ArrivingFile, ContentFiles

Named = tuple[str, int]
"""The name of a transaction that is complete, and how many octets the peer's content had."""
# Queues a message whose content is there; the Deferred fires when that is durable.
Enter = Callable[[str, Envelope, Sequence[Target], Content, Named | None, Origin | None], Deferred[None]]


@implementer(IDraft)
class SqliteDraft:
    """See `IDraft`. `spill` is the size above which the content goes to a file."""

    __slots__ = ("_chunks", "_enter", "_file", "_files", "_open", "_spill", "queue_id", "size")

    def __init__(
        self,
        queue_id: str,
        spill: int,
        files: ContentFiles,
        enter: Enter,
        size: int = 0,
        have: bytes | ArrivingFile = b"",
    ) -> None:
        """`have` is the `size` octets to go on behind, or the file they are in."""
        self.queue_id = queue_id
        self.size = size
        self._spill = spill
        self._files = files
        self._enter = enter
        self._chunks = [have] if isinstance(have, bytes) else []
        self._file = have if isinstance(have, ArrivingFile) else None
        self._open = True

    def write(self, data: bytes) -> Deferred[None] | None:
        if not self._open:
            raise SpoolError(f"The draft {self.queue_id} is closed")
        self.size += len(data)
        if self._file is not None:
            return self._file.append(data)
        self._chunks.append(data)
        if self.size <= self._spill:
            return None
        self._file = self._files.arrive(self.queue_id)
        chunks, self._chunks = self._chunks, []
        return self._file.append(b"".join(chunks))

    def commit(
        self,
        envelope: Envelope,
        targets: Sequence[Target],
        *,
        name: str | None = None,
        received: int = 0,
        origin: Origin | None = None,
    ) -> Deferred[None]:
        if not self._open:
            return fail(SpoolError(f"The draft {self.queue_id} is closed"))
        if not targets:
            return fail(ValueError("a message without recipients cannot be queued"))
        self._open = False
        named = None if name is None else (name, received)
        if self._file is None:
            chunks, self._chunks = self._chunks, []
            return self._enter(self.queue_id, envelope, targets, MemoryContent(b"".join(chunks)), named, origin)
        return detached(self._commit_file(self._file, envelope, targets, named, origin))

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._chunks.clear()
            if self._file is not None:
                self._file.discard()

    def finish(self, size: int | None = None) -> Deferred[bytes | None]:
        """End it for `ISpool.keep`: its octets, or None where they are in a file, which is durable then.

        With `size` it is cut back to so many. Raises `SpoolError`, at once where it is closed already: then there is
        nothing to discard.
        """
        if not self._open:
            raise SpoolError(f"The draft {self.queue_id} is closed")
        self._open = False
        if size is not None:
            self.size = min(size, self.size)
        if self._file is not None:
            return self._file.finish(self.size).addCallback(_nothing)
        chunks, self._chunks = self._chunks, []
        return succeed(b"".join(chunks)[: self.size])

    def discard(self) -> None:
        """Remove the file, if there is one, of a draft that was finished and cannot be kept."""
        if self._file is not None:
            self._file.discard()

    async def _commit_file(
        self,
        file: ArrivingFile,
        envelope: Envelope,
        targets: Sequence[Target],
        named: Named | None,
        origin: Origin | None,
    ) -> None:
        try:
            await file.finish()
            content = self._files.content(self.queue_id, self.size)
            await self._enter(self.queue_id, envelope, targets, content, named, origin)
        except CommitFailed:
            # The row may be on the disk, and show again at the next start; so its file stays until then.
            raise
        except SpoolError:
            file.discard()
            raise


def _nothing(_: None) -> bytes | None:
    return None
