"""What an operator does with the queue while it is worked on: joins the spool, the scheduler and the router.

Rules
- What is ready for a connection, and not on one yet, is taken back before it is put on hold, deleted, returned or
  routed anew; what is being delivered at this moment stays as it is, and is counted as busy.
- What is to be tried now is tried now, also at destinations that are left alone after a failure: whoever says so has
  mended something.
- `QueueAction.REQUEUE` asks the router anew for the addresses of those messages, and of other messages to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from mailsuite.delivery.active import DestinationStatus
from mailsuite.delivery.tasks import uncancelled
from mailsuite.interfaces import ISpool
from mailsuite.mail.address import Address
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import Managed, Met, QueueAction, QueueState, Selection

MOST_AT_ONCE: Final = 1000
"""Messages that one call should be about: whoever has more says it in parts, and can tell how far it is."""

_TAKES_BACK: Final = frozenset({QueueAction.HOLD, QueueAction.DELETE, QueueAction.EXPIRE, QueueAction.REQUEUE})
_IS_DUE: Final = frozenset({QueueAction.RELEASE, QueueAction.RETRY, QueueAction.REQUEUE, QueueAction.EXPIRE})
_NOBODY: Final = Met(frozenset())
_TRIES: Final = 3  # what was taken back may be on its way again before it is changed

Reroute = Callable[[Address, Destination, Address | None], Destination]


class Schedules(Protocol):
    """What is asked of `mailsuite.delivery.scheduler.Scheduler`."""

    def withdraw(self, ids: Iterable[str] | None = None) -> Awaitable[int]:
        """See there."""

    def wake(self, destinations: Iterable[Destination]) -> None:
        """See there."""

    def status(self) -> Sequence[DestinationStatus]:
        """See there."""


class Managing:
    """Does what `ISpool.manage` says, and sees to it that the scheduler, the routes and the spool agree.

    `reroute` is as in `ISpool.reroute`; `wake_hosts` has hosts tried that are left alone. Raises `SpoolError`.
    """

    def __init__(
        self, spool: ISpool, scheduler: Schedules, reroute: Reroute, *, wake_hosts: Callable[[], object]
    ) -> None:
        self._spool = spool
        self._scheduler = scheduler
        self._reroute = reroute
        self._wake_hosts = wake_hosts

    async def manage(self, action: QueueAction, selection: Selection, *, by: str) -> Managed:
        """Do something with what is selected; `by` names the operator. See `ISpool.manage`.

        What was begun is done, whoever stops waiting for it: what is requeued halfway would go its old way.
        """
        return await uncancelled(self._manage(action, selection, by))

    async def _manage(self, action: QueueAction, selection: Selection, by: str) -> Managed:
        met = _NOBODY
        if action in _IS_DUE:
            met = await self._spool.met(selection, addresses=action is QueueAction.REQUEUE)
        managed = await self._do(action, selection, by)
        destinations = set(met.destinations)
        if action is QueueAction.REQUEUE and managed.recipients:
            await self._spool.reroute(self._choose(met.addresses, destinations))
        if action in _IS_DUE and managed.recipients:
            self._wake_hosts()
            self._scheduler.wake(destinations)
        return managed

    def status(self) -> Sequence[DestinationStatus]:
        """How the scheduler stands with each destination: see `Scheduler.status`."""
        return self._scheduler.status()

    async def _do(self, action: QueueAction, selection: Selection, by: str) -> Managed:
        if action not in _TAKES_BACK:
            return await self._spool.manage(action, selection, by=by)
        active = await self._take_back(selection)
        if selection.state is QueueState.ACTIVE:
            # They are not active any more: those that are meant, and no others of their messages, are named from here.
            selection = replace(selection, keys=tuple(active), state=None)
        done = await self._spool.manage(action, selection, by=by)
        for _ in range(_TRIES - 1):
            if not (active and done.busy):
                break
            # Some may have been on their way again in between; what has been done is not to be done twice.
            active = await self._take_back(replace(selection, keys=tuple(active)))
            ready = active - (await self._active(replace(selection, keys=tuple(active)))).keys()
            if not ready:
                break
            more = await self._spool.manage(action, replace(selection, keys=tuple(ready)), by=by)
            busy = done.busy - more.recipients
            done = Managed(done.messages + more.messages, done.recipients + more.recipients, max(busy, 0))
        return done

    async def _take_back(self, selection: Selection) -> frozenset[int]:
        """Give back what is ready of these messages; tell the keys of all that was meant and under lease."""
        active = await self._active(selection)
        if active:
            await self._scheduler.withdraw(sorted(set(active.values())))
        return frozenset(active)

    async def _active(self, selection: Selection) -> dict[int, str]:
        """What is meant and under lease: keys of recipients, with their queue ids."""
        if selection.state not in (None, QueueState.ACTIVE):
            return {}
        return dict(await self._spool.leased(selection))

    def _choose(self, addresses: frozenset[Address], destinations: set[Destination]) -> Reroute:
        """Ask the router for some addresses only, and note where they go now."""

        def choose(address: Address, present: Destination, sender: Address | None) -> Destination:
            if address not in addresses:
                return present
            chosen = self._reroute(address, present, sender)
            destinations.add(chosen)
            return chosen

        return choose
