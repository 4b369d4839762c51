"""Sends what waits for a provider as next hop, while there is a line to it: the other half of a pull."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import SpoolError
from mailsuite.mail.route import Destination

_LOOK_EVERY: Final = 0.5  # seconds


class Hurries(Protocol):
    """What is asked of the scheduler."""

    async def hurry(self, destinations: Sequence[Destination]) -> int:
        """See `mailsuite.delivery.scheduler.Scheduler.hurry`."""

    def is_busy(self, destination: Destination) -> bool:
        """See `mailsuite.delivery.scheduler.Scheduler.is_busy`."""


class Pusher:
    """Hurries the destinations whose next hop is a host of the routes, and waits until they have come to rest.

    `wake_hosts` has hosts tried that are left alone: there is a line now.
    """

    _log = Logger()

    def __init__(
        self,
        routes: Routes,
        scheduler: Hurries,
        clock: IReactorTime,
        *,
        wake_hosts: Callable[[], object] = lambda: None,
        limit: float = 300.0,
    ) -> None:
        self._routes = routes
        self._scheduler = scheduler
        self._clock = clock
        self._wake_hosts = wake_hosts
        self._limit = limit

    async def push(self, host: str) -> int:
        """Send what waits for this host; tell how many messages that were.

        Returns when nothing more is under way there, sent or failed, at the latest after the limit of seconds: then it
        goes on by itself.
        """
        destinations = self._routes.destinations_at(host)
        self._wake_hosts()
        try:
            count = await self._scheduler.hurry(destinations)
        except SpoolError as error:
            self._log.error("nothing is pushed to {host}: {error}", host=host, error=str(error))
            return 0
        until = self._clock.seconds() + self._limit
        # The next turn of the reactor is the first in which runs can begin.
        await deferLater(self._clock, 0)
        while any(map(self._scheduler.is_busy, destinations)) and self._clock.seconds() < until:
            await deferLater(self._clock, _LOOK_EVERY)
        return count
