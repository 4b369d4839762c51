"""Parts of messages, and names of completed transactions, that a spool in memory keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mailsuite.mail.envelope import Envelope
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.route import Target
from mailsuite.spool.allowance import Bounds, to_go
from mailsuite.spool.memory.draft import MemoryDraft


class _Part(NamedTuple):
    """What was kept of a message."""

    queue_id: str
    content: bytes
    envelope: Envelope
    targets: Sequence[Target]
    received: int
    kept: float


class Kept:
    """What is kept under names, within `bounds`; the last `completed_count` names of what is complete."""

    def __init__(
        self, clock: IReactorTime, bounds: Bounds, completed_count: int, commit: Callable[..., Deferred[None]]
    ) -> None:
        self._clock = clock
        self._bounds = bounds
        self._completed_count = completed_count
        self._commit = commit
        self._parts: dict[str, _Part] = {}
        self._completed: dict[str, tuple[float, Completed]] = {}  # the oldest first

    def keep(
        self,
        queue_id: str,
        content: bytes,
        name: str,
        envelope: Envelope,
        targets: Sequence[Target],
        received: int,
    ) -> None:
        """Keep a part under a name, where there is room."""
        now = self._clock.seconds()
        self._parts = {other: part for other, part in self._parts.items() if part.kept >= now - self._bounds.time}
        kept = [(other, len(part.content)) for other, part in self._parts.items()]
        places = to_go(kept, name, len(content), self._bounds)
        if places is not None:
            for place in places:
                del self._parts[kept[place][0]]
            self._parts[name] = _Part(queue_id, content, envelope, tuple(targets), received, now)

    def resume(self, name: str) -> Partial | Completed | None:
        """See `ISpool.resume`."""
        since = self._clock.seconds() - self._bounds.time
        when, completed = self._completed.get(name, (since, None))
        if completed is not None and when >= since:
            return completed
        part = self._parts.pop(name, None)
        if part is None or part.kept < since:
            return None
        draft = MemoryDraft(part.queue_id, self._commit, part.content)
        return Partial(draft, part.envelope, part.targets, part.received)

    def forget(self, name: str) -> None:
        """Forget the part of that name."""
        self._parts.pop(name, None)

    def complete(self, name: str, completed: Completed) -> None:
        """A transaction of that name is complete."""
        self._completed.pop(name, None)
        self._completed[name] = self._clock.seconds(), completed
        while len(self._completed) > self._completed_count:
            del self._completed[next(iter(self._completed))]

    def heard(self, names: Sequence[str]) -> None:
        """Forget that these are complete."""
        for name in names:
            self._completed.pop(name, None)
