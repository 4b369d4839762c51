"""Slots: how many may be under way at once, so that the dead do not use up what the living need.

Those who ask are of a standing. Who has proved alive may have every slot. Who is not known yet, or has failed, may have
half of them together, until it proves alive: so ten thousand dead destinations keep no living one waiting. Where slots
are scarce those who are not known come before those who have failed, but for each fourth one; and a tenth of all slots
goes to both of them before the living have the rest, so that a destination can become known beside many busy ones.

Slots are counted in all and for each source (an address that connections leave from). Whoever waits is cheap: one
Deferred.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from twisted.internet.defer import Deferred


class Standing(IntEnum):
    """What is known of whoever wants a slot."""

    ALIVE = 0
    UNKNOWN = 1
    FAILED = 2


class Slot:
    """One of the slots. It is released once, whatever happened; releasing it again does nothing."""

    __slots__ = ("_is_proved", "_slots", "source")

    def __init__(self, slots: Slots, source: str | None, *, is_proved: bool) -> None:
        self.source = source
        self._slots: Slots | None = slots
        self._is_proved = is_proved

    def prove(self) -> None:
        """Whoever has it is alive."""
        if self._slots is not None and not self._is_proved:
            self._is_proved = True
            self._slots.proved()

    def release(self) -> None:
        """Give it back."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.returned(self.source, is_proved=self._is_proved)


class Slots:
    """`total` slots, of which at most `per_source` for one source; None where there is no such limit."""

    def __init__(self, total: int, per_source: int | None = None) -> None:
        self._total = total
        self._per_source = per_source
        self._most_unproved = max(1, total // 2)
        self._reserved = total // 10  # for who has not proved alive, before the living get more
        self._used = 0
        self._unproved = 0
        self._of_source: dict[str | None, int] = {}
        self._waiting: dict[Standing, dict[str | None, deque[Deferred[Slot]]]] = {one: {} for one in Standing}
        self._waiters = 0
        self._turn = 0
        self._is_handing_out = False
        self._idle: dict[Deferred[bool], None] = {}

    @property
    def used(self) -> int:
        """How many are taken."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._waiters

    async def acquire(self, source: str | None, standing: Standing) -> Slot:
        """Wait for a slot. A cancelled wait leaves nothing behind."""
        queue = self._waiting[standing].get(source)
        if not queue and self._has_room(source, standing):
            return self._take(source, standing)
        if queue is None:
            queue = self._waiting[standing][source] = deque()
        waiter: Deferred[Slot] = Deferred(lambda gone: self._forget(gone, source, standing))
        queue.append(waiter)
        self._waiters += 1
        self._call_back_idle()
        return await waiter

    @contextmanager
    def idle(self, wait: Deferred[bool]) -> Iterator[None]:
        """A slot is idle within: as soon as somebody waits for one, the wait is ended with False."""
        self._idle[wait] = None
        try:
            yield
        finally:
            self._idle.pop(wait, None)

    def proved(self) -> None:
        """One of those that have a slot has proved alive (see `Slot.prove`)."""
        self._unproved -= 1
        self._hand_out()

    def returned(self, source: str | None, *, is_proved: bool) -> None:
        """A slot comes back (see `Slot.release`)."""
        self._used -= 1
        if not is_proved:
            self._unproved -= 1
        left = self._of_source[source] - 1
        if left:
            self._of_source[source] = left
        else:
            del self._of_source[source]
        self._hand_out()

    def _call_back_idle(self) -> None:
        """Whoever has a slot and does nothing is to give it back, whatever source it is of."""
        waits, self._idle = self._idle, {}
        for wait in waits:
            if not wait.called:
                wait.callback(False)

    def _has_room(self, source: str | None, standing: Standing) -> bool:
        if self._used >= self._total:
            return False
        if standing is not Standing.ALIVE and self._unproved >= self._most_unproved:
            return False
        return self._per_source is None or self._of_source.get(source, 0) < self._per_source

    def _take(self, source: str | None, standing: Standing) -> Slot:
        self._used += 1
        self._of_source[source] = self._of_source.get(source, 0) + 1
        is_proved = standing is Standing.ALIVE
        if not is_proved:
            self._unproved += 1
        return Slot(self, source, is_proved=is_proved)

    def _hand_out(self) -> None:
        """Give away what can be given. Whoever gets a slot may release it at once: that makes no deeper stack."""
        if self._is_handing_out:
            return
        self._is_handing_out = True
        try:
            self._hand_out_all()
        finally:
            self._is_handing_out = False

    def _hand_out_all(self) -> None:
        while self._waiters and self._used < self._total:
            for standing in self._order():
                source = self._next_source(standing)
                if source is not None:
                    self._hand_to(source[0], standing)
                    break
            else:
                return

    def _order(self) -> tuple[Standing, ...]:
        newcomers = (Standing.UNKNOWN, Standing.FAILED)
        if self._turn % 4 == 3:
            newcomers = (Standing.FAILED, Standing.UNKNOWN)
        if self._unproved < self._reserved:
            return (*newcomers, Standing.ALIVE)
        return (Standing.ALIVE, *newcomers)

    def _next_source(self, standing: Standing) -> tuple[str | None] | None:
        """The source whose first waiter has room; in a tuple, since None is a source too."""
        for source, queue in self._waiting[standing].items():
            if queue and self._has_room(source, standing):
                return (source,)
        return None

    def _hand_to(self, source: str | None, standing: Standing) -> None:
        queues = self._waiting[standing]
        queue = queues.pop(source)
        waiter = queue.popleft()
        if queue:
            queues[source] = queue  # behind the others
        self._waiters -= 1
        if standing is not Standing.ALIVE:
            self._turn += 1
        waiter.callback(self._take(source, standing))

    def _forget(self, waiter: Deferred[Slot], source: str | None, standing: Standing) -> None:
        queue = self._waiting[standing].get(source)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            self._waiters -= 1
            if not queue:
                del self._waiting[standing][source]
