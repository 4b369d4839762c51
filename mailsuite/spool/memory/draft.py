"""A message on its way into a spool in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from mailsuite.interfaces import IDraft, SpoolError
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.origin import Origin
from mailsuite.mail.route import Target


@implementer(IDraft)
class MemoryDraft:
    """See `IDraft`."""

    def __init__(self, queue_id: str, commit: Callable[..., Deferred[None]], have: bytes) -> None:
        self.queue_id = queue_id
        self.size = len(have)
        self._commit = commit
        self._chunks = [have]
        self._open = True

    def write(self, data: bytes) -> None:
        if not self._open:
            raise SpoolError(f"The draft {self.queue_id} is closed")
        self.size += len(data)
        self._chunks.append(data)

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
        content = MemoryContent(b"".join(self._chunks))
        return self._commit(self.queue_id, envelope, targets, content, name, received, origin)

    def abort(self) -> None:
        self._open = False
        self._chunks.clear()

    def finish(self, size: int | None) -> bytes:
        """End it, for `ISpool.keep`: the first `size` octets. Raises `SpoolError` where it is closed already."""
        if not self._open:
            raise SpoolError(f"The draft {self.queue_id} is closed")
        self._open = False
        return b"".join(self._chunks)[:size]
