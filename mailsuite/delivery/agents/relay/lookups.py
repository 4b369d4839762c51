"""Look-ups before a connection: next hops, addresses, policies. How many are under way at once is bounded.

Each may need a socket of its own, and dead name servers keep it for half a minute: so destinations that were alive when
they were last tried have room of their own, as they have among the connections.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from mailsuite.delivery.agents.relay.slots import Slots, Standing
from mailsuite.mail.route import Destination

_T = TypeVar("_T")
_MOST: Final = 20_000  # destinations that are remembered


class Lookups:
    """Runs look-ups, `total` at once; knows how destinations stand."""

    def __init__(self, total: int = 200) -> None:
        self._slots = Slots(total)
        self._standings: OrderedDict[Destination, Standing] = OrderedDict()

    def note(self, destination: Destination, *, alive: bool) -> None:
        """Whether a host of a destination was ready for mail."""
        self._standings[destination] = Standing.ALIVE if alive else Standing.FAILED
        self._standings.move_to_end(destination)
        if len(self._standings) > _MOST:
            self._standings.popitem(last=False)

    async def run(self, destination: Destination, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What `ask` comes to, as soon as there is room."""
        slot = await self._slots.acquire(None, self._standings.get(destination, Standing.UNKNOWN))
        try:
            return await ask()
        finally:
            slot.release()
