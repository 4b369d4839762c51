"""What is leased and ready to be taken, in memory: bounded for each destination, and for all of them together.

What has not shown that it is alive may fill half of what there is for all, no more.

What is urgent is taken before what is less so (RFC 6710 section 5.1), the rest as it came.

Suspects are deliveries that were in the hands of an agent when it met a defect, together with others: they are taken
one by one from then on, so that it shows which of them it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mailsuite.mail.queue import Delivery


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be ready in memory. `octets` counts contents up to `large` each: larger ones lie on the disk."""

    count: int = 1000
    octets: int = 16 * 1024 * 1024
    total_count: int = 20_000
    total_octets: int = 64 * 1024 * 1024
    large: int = 256 * 1024


class Load:
    """What is ready in all queues together, against the bounds."""

    __slots__ = ("bounds", "count", "octets")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.count = 0
        self.octets = 0

    def has_room(self, size: int, *, alive: bool) -> bool:
        """Whether one more may become ready, for a destination that has or has not shown that it is alive."""
        bounds = self.bounds
        count, octets = self.count, self.octets + min(size, bounds.large)
        if not alive:
            count, octets = 2 * count, 2 * octets
        return count < bounds.total_count and octets <= bounds.total_octets


class Ready:
    """What is ready for one destination, the first taken first."""

    __slots__ = ("_deliveries", "_load", "_octets", "_suspects")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._deliveries: deque[Delivery] = deque()
        self._suspects: list[Delivery] = []
        self._octets = 0

    def __len__(self) -> int:
        return len(self._deliveries) + len(self._suspects)

    @property
    def has_suspects(self) -> bool:
        """Whether there are some that are taken one by one."""
        return bool(self._suspects)

    def has_room(self, size: int, *, alive: bool) -> bool:
        """Whether one more may become ready here."""
        load, bounds = self._load, self._load.bounds
        return (
            len(self._deliveries) < bounds.count
            and self._octets + min(size, bounds.large) <= bounds.octets
            and load.has_room(size, alive=alive)
        )

    def add(self, deliveries: Iterable[Delivery], *, first: bool = False) -> None:
        """Add some; `first` puts them before the others."""
        added = list(deliveries)
        if first:
            self._deliveries.extendleft(reversed(added))
        else:
            for delivery in added:
                self._join(delivery)
        self._count(added, 1)

    def _join(self, delivery: Delivery) -> None:
        """Put one behind the last that is as urgent."""
        ready = self._deliveries
        priority = delivery.message.envelope.options.priority
        at = len(ready)
        while at and ready[at - 1].message.envelope.options.priority < priority:
            at -= 1
        ready.insert(at, delivery)

    def suspect(self, deliveries: Sequence[Delivery]) -> None:
        """Add some that are taken one by one."""
        self._suspects += deliveries
        self._count(deliveries, 1)

    def take(self, limit: int) -> list[Delivery]:
        """Take out up to `limit` of those that are not suspected."""
        ready = self._deliveries
        taken = [ready.popleft() for _ in range(min(limit, len(ready)))]
        if taken:
            self._count(taken, -1)
        return taken

    def take_suspect(self) -> list[Delivery]:
        """Take out one that is suspected."""
        taken = [self._suspects.pop(0)]
        self._count(taken, -1)
        return taken

    def withdraw(self, ids: Collection[str] | None = None) -> list[Delivery]:
        """Take out those of these messages; without `ids` all."""
        everything = [*self._suspects, *self._deliveries]
        taken = [one for one in everything if ids is None or one.message.queue_id in ids]
        if taken:
            kept = [] if ids is None else [one for one in self._deliveries if one.message.queue_id not in ids]
            suspects = [] if ids is None else [one for one in self._suspects if one.message.queue_id not in ids]
            self._deliveries = deque(kept)
            self._suspects = suspects
            self._count(taken, -1)
        return taken

    def _count(self, deliveries: Sequence[Delivery], sign: int) -> None:
        load = self._load
        large = load.bounds.large
        octets = sign * sum([min(delivery.message.size, large) for delivery in deliveries])
        self._octets += octets
        load.octets += octets
        load.count += sign * len(deliveries)
