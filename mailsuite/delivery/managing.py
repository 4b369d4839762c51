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
from dataclasses import dataclass, replace
from typing import Final, Protocol

from mailsuite.delivery.active import DestinationStatus
from mailsuite.interfaces import ISpool
from mailsuite.mail.address import Address
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import Managed, QueueAction, QueuedMessage, QueueState, Selection

MOST_AT_ONCE: Final = 1000
"""Messages that one call should be about: whoever has more says it in parts, and can tell how far it is."""

_TAKES_BACK: Final = frozenset({QueueAction.HOLD, QueueAction.DELETE, QueueAction.EXPIRE, QueueAction.REQUEUE})
_IS_DUE: Final = frozenset({QueueAction.RELEASE, QueueAction.RETRY, QueueAction.REQUEUE, QueueAction.EXPIRE})
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


@dataclass(frozen=True, slots=True)
class _Met:
    """Whom an action is about."""

    addresses: frozenset[Address]
    destinations: frozenset[Destination]


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
        """Do something with what is selected; `by` names the operator. See `ISpool.manage`."""
        met = await self._met(selection) if action in _IS_DUE else _Met(frozenset(), frozenset())
        managed = await self._do(action, selection, by)
        if action is QueueAction.REQUEUE and managed.recipients:
            await self._spool.reroute(self._choose(met.addresses))
        if action in _IS_DUE and managed.recipients:
            self._wake_hosts()
            self._scheduler.wake(met.destinations)
        return managed

    def status(self) -> Sequence[DestinationStatus]:
        """How the scheduler stands with each destination: see `Scheduler.status`."""
        return self._scheduler.status()

    async def _do(self, action: QueueAction, selection: Selection, by: str) -> Managed:
        if action not in _TAKES_BACK:
            return await self._spool.manage(action, selection, by=by)
        active = await self._take_back(selection)
        if active and selection.state is QueueState.ACTIVE:
            # They are not active any more: what is meant is named by its ids from here on.
            selection = replace(selection, ids=active, state=None)
        done = await self._spool.manage(action, selection, by=by)
        for _ in range(_TRIES - 1):
            if not (active and done.busy):
                break
            # Some may have been on their way again in between; what has been done is not to be done twice.
            active = await self._take_back(selection)
            ready = set(active) - set(await self._active(selection))
            if not ready:
                break
            more = await self._spool.manage(action, replace(selection, ids=tuple(ready)), by=by)
            busy = done.busy - more.recipients
            done = Managed(done.messages + more.messages, done.recipients + more.recipients, max(busy, 0))
        return done

    async def _take_back(self, selection: Selection) -> tuple[str, ...]:
        """Give back what is ready of this; tell the ids of all that was under lease."""
        ids = await self._active(selection)
        if ids:
            await self._scheduler.withdraw(ids)
        return ids

    async def _active(self, selection: Selection) -> tuple[str, ...]:
        if selection.state not in (None, QueueState.ACTIVE):
            return ()
        active = await self._page(replace(selection, state=QueueState.ACTIVE), "")
        return tuple(one.message.queue_id for one in active)

    async def _met(self, selection: Selection) -> _Met:
        addresses: set[Address] = set()
        destinations: set[Destination] = set()
        after = ""
        while page := await self._page(selection, after):
            for message in page:
                for recipient in message.recipients:
                    addresses.add(recipient.address)
                    destinations.add(recipient.destination)
            after = page[-1].message.queue_id
        return _Met(frozenset(addresses), frozenset(destinations))

    async def _page(self, selection: Selection, after: str) -> Sequence[QueuedMessage]:
        return await self._spool.select(selection, MOST_AT_ONCE, after=after)

    def _choose(self, addresses: frozenset[Address]) -> Reroute:
        def choose(address: Address, present: Destination, sender: Address | None) -> Destination:
            return self._reroute(address, present, sender) if address in addresses else present

        return choose
