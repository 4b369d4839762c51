"""Gathering: what is to be reported waits a moment for more of the same message, so that its sender gets one report.

Recipients of one message fail at different destinations, one soon after the other. Each that is to be reported is kept
here, under its lease and with nothing written down, until the time of its case is over: then the case is closed, and
all of it is settled in one transaction with its report. A crash meanwhile loses nothing: the attempt is made anew, and
fails again. So nothing must be gathered here that somebody has got.

Of contents that lie in memory only what a report returns is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsuite.delivery.srs import stands_for
from mailsuite.mail.address import Address
from mailsuite.mail.content import Content, MemoryContent
from mailsuite.mail.history import Event
from mailsuite.mail.queue import Delivery, Message, Outcome

_MAX_TOGETHER: Final = 500  # recipients in a report, but for those of one delivery
_MAX_GATHERED: Final = 1000  # deliveries in memory; one more, and all cases are closed at once
_SLACK: Final = 1.0  # seconds
_NOTHING: Final = MemoryContent(b"")


class Part(NamedTuple):
    """Some recipients of a delivery with what became of them, in an attempt that ended `at` some time."""

    delivery: Delivery
    outcomes: Sequence[Outcome]
    at: float
    seconds: float | None = None
    events: Sequence[Event] = ()


def reader_of(delivery: Delivery) -> Address | None:
    """Who is told what becomes of a delivery: its sender himself, where its reverse-path stands for him by SRS."""
    path, sender = delivery.reverse_path, delivery.message.envelope.reverse_path
    if path is None or sender is None or path == sender:
        return path
    return sender if stands_for(path, sender) else path


@dataclass(slots=True)
class Case:
    """What one report tells of. `reader` is None for a message that nobody has sent."""

    message: Message
    reader: Address | None
    content: Content
    closes: float = 0.0
    recipients: int = 0
    parts: list[Part] = field(default_factory=list)

    @classmethod
    def of(cls, part: Part, excerpt: int) -> Case:
        """A case with its first part; a report returns no more than `excerpt` octets of the message."""
        delivery = part.delivery
        octets = delivery.content.in_memory()
        content = delivery.content if octets is None else MemoryContent(octets[:excerpt])
        case = cls(delivery.message, reader_of(delivery), content)
        case.add(part)
        return case

    def add(self, part: Part) -> None:
        """Let the report tell of more of the message."""
        if part.delivery.content.in_memory() is not None:
            part = part._replace(delivery=replace(part.delivery, content=_NOTHING))
        self.parts.append(part)
        self.recipients += len(part.delivery.recipients)


class Gathering:
    """Open cases. Each is handed to `closed` when `window` seconds are over since it was opened, or sooner."""

    def __init__(self, clock: IReactorTime, window: float, closed: Callable[[Case], object]) -> None:
        self._clock = clock
        self._window = window
        self._closed = closed
        # In the order of their ends.
        self._cases: dict[tuple[str, Address | None], Case] = {}
        self._count = 0
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many deliveries are gathered."""
        return self._count

    def add(self, part: Part, excerpt: int) -> None:
        """Gather this with what there is of its message, for the same reader."""
        key = part.delivery.message.queue_id, reader_of(part.delivery)
        case = self._cases.get(key)
        if case is not None and case.recipients + len(part.delivery.recipients) > _MAX_TOGETHER:
            self._close(key)
            case = None
        if case is None:
            case = self._cases[key] = Case.of(part, excerpt)
            case.closes = self._clock.seconds() + self._window
        else:
            case.add(part)
        self._count += 1
        if self._count > _MAX_GATHERED:
            self.close_all()
        elif self._timer is None:
            self._timer = self._clock.callLater(self._window, self._close_due)
        elif self._timer.getTime() > self._clock.seconds() + self._window + _SLACK:
            self.mind_clock()

    def mind_clock(self) -> None:
        """Look at the clock, which was set back: nobody waits for longer than the window."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(0.0)

    def close_all(self) -> None:
        """Wait for nothing more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        for key in list(self._cases):
            self._close(key)

    def forget(self) -> None:
        """Give up what there is: nothing of it is written down, all of it is found again in the spool."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._cases.clear()
        self._count = 0

    def _close(self, key: tuple[str, Address | None]) -> None:
        case = self._cases.pop(key)
        self._count -= len(case.parts)
        self._closed(case)

    def _close_due(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for key, case in list(self._cases.items()):
            # A clock that was set back makes nobody wait longer than the window.
            left = case.closes - now
            if 0 < left <= self._window:
                self._timer = self._clock.callLater(left, self._close_due)
                return
            self._close(key)
