"""Quotas: how much may be held for a customer (452 4.2.2 at RCPT beyond it, and at the end of content).

What counts is what the spool holds, what has landed since it was asked, and the room that transactions under way keep:
one message each, and the octets that MAIL has announced. A transaction gives its room back when it ends without a
message, so nobody closes a domain by saying RCPT; and since room is kept before anything is accepted, many sessions at
once stay within the limit. Where nothing was announced, the size counts at the end of content.

The spool is asked every few seconds at most (every second, before anybody is refused). A look takes away what had
landed before it began, and nothing else: what lands meanwhile may count twice, until the next one.

Known limits: what we add to a message of an announced size, our trace lines, is let in above the limit. A message to
several domains of a customer keeps room for one, and is held as one in each. Reports of our own keep no room; there are
none where the limit is reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import ICustomers, IQuota, IReservation, ISpool, Refused, SpoolError
from mailsuite.mail import replies
from mailsuite.mail.customer import Customer
from mailsuite.mail.queue import HeldMail
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import HOLD, Target

_FRESH: Final = 5.0  # seconds
_FRESH_REFUSAL: Final = 1.0
_ADDED: Final = 4096  # octets of a message that are ours

OVER_QUOTA: Final = Reply.make(452, "4.2.2", "Too much mail is held for this domain, try again later")


@dataclass(frozen=True, slots=True)
class _Sums:
    """Messages and octets, by customer."""

    messages: Counter[str] = field(default_factory=Counter)
    octets: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, octets: int) -> None:
        self.messages[name] += 1
        self.octets[name] += octets

    def take(self, name: str, octets: int) -> None:
        self.messages[name] -= 1
        self.octets[name] -= octets
        if not self.messages[name]:
            del self.messages[name], self.octets[name]

    def update(self, other: _Sums) -> None:
        self.messages.update(other.messages)
        self.octets.update(other.octets)


@implementer(IQuota)
class Quota:
    """Refuses what would be too much."""

    _log = Logger()

    def __init__(self, customers: ICustomers, spool: ISpool, clock: IReactorTime) -> None:
        self._customers = customers
        self._spool = spool
        self._clock = clock
        self._held: Mapping[str, HeldMail] | None = None
        self._asked = float("-inf")
        self._reserved = _Sums()
        self._landed = _Sums()  # since the spool was asked last
        self._looked_at = _Sums()  # and before a look that is under way
        self._waiters: list[Deferred[None]] | None = None
        self._tasks = Tasks()

    def reservation(self, octets: int) -> Reservation:
        return Reservation(self, octets)

    async def check(self, customer: Customer) -> None:
        """Refuse where the limit is reached by what is there; keeps no room.

        Raises `Refused`: 452 4.2.2, or 451 where the spool cannot tell.
        """
        await self._see_to([customer], 1, None)

    # ----------------------------------------------------------------------------- for reservations

    def limited(self, targets: Iterable[Target]) -> list[Customer]:
        """The customers for whom mail to these targets is held, of those that have a limit."""
        domains = dict.fromkeys(one.destination.name for one in targets if one.destination.agent == HOLD)
        customers = {one.name: one for one in map(self._customers.customer_of, domains) if one is not None}
        return [one for one in customers.values() if one.max_messages is not None or one.max_octets is not None]

    def current(self, names: Iterable[str]) -> list[Customer]:
        """Those customers as they are now."""
        customers = map(self._customers.customer, names)
        return [one for one in customers if one is not None]

    async def make_room(self, customers: Sequence[Customer], octets: int) -> None:
        """See that there is room for one more message for each. The caller adds it to what is `reserved` at once."""
        # A message of which nothing is known has an octet at least.
        await self._see_to(customers, max(octets, 1), self._reserved)

    async def see_that_fits(self, customers: Sequence[Customer], octets: int) -> None:
        """See that there is room for so many octets more, of a message whose room is kept."""
        await self._see_to(customers, octets, self._reserved, messages=0)

    def reserve(self, name: str, octets: int) -> None:
        """Keep room for a message."""
        self._reserved.add(name, octets)

    def give_back(self, name: str, octets: int) -> None:
        """That room is kept no more."""
        self._reserved.take(name, octets)

    def note_landed(self, name: str, octets: int) -> None:
        """A message is in the spool."""
        self._landed.add(name, octets)

    # ------------------------------------------------------------------------------------ underneath

    async def _see_to(
        self, customers: Sequence[Customer], octets: int, reserved: _Sums | None, *, messages: int = 1
    ) -> None:
        """Raises `Refused` where one of these would have too much with so much more."""
        limited = [one for one in customers if one.max_messages is not None or one.max_octets is not None]
        if not limited:
            return
        if self._is_older_than(_FRESH):
            await self._ask()
        if self._is_over(limited, messages, octets, reserved) and self._is_older_than(_FRESH_REFUSAL):
            await self._ask()  # they may have collected their mail
        if self._is_over(limited, messages, octets, reserved):
            raise Refused(OVER_QUOTA)

    def _is_older_than(self, seconds: float) -> bool:
        return self._held is None or self._clock.seconds() >= self._asked + seconds

    def _is_over(self, customers: Sequence[Customer], messages: int, octets: int, reserved: _Sums | None) -> bool:
        if self._held is None:
            raise Refused(replies.LOCAL_ERROR)
        sums = [self._landed, self._looked_at, *([] if reserved is None else [reserved])]
        for customer in customers:
            held = [self._held[domain] for domain in customer.domains if domain in self._held]
            name = customer.name
            all_messages = messages + sum(one.messages for one in held) + sum(one.messages[name] for one in sums)
            all_octets = octets + sum(one.octets for one in held) + sum(one.octets[name] for one in sums)
            if customer.max_messages is not None and messages and all_messages > customer.max_messages:
                return True
            if customer.max_octets is not None and all_octets > customer.max_octets:
                return True
        return False

    async def _ask(self) -> None:
        waiter: Deferred[None] = Deferred()
        if self._waiters is not None:
            self._waiters.append(waiter)
        else:
            self._waiters = [waiter]
            self._tasks.start(self._read(), "the look at what is held")
        await waiter

    async def _read(self) -> None:
        self._looked_at, self._landed = self._landed, _Sums()
        try:
            self._held = {one.domain: one for one in await self._spool.held()}
            self._asked = self._clock.seconds()
        except BaseException as error:
            self._landed.update(self._looked_at)
            self._held = None
            if not isinstance(error, SpoolError):
                raise
            self._log.error("what is held cannot be told: {error}", error=str(error))
        finally:
            self._looked_at = _Sums()
            waiters, self._waiters = self._waiters or [], None
            for waiter in waiters:
                if not waiter.called:
                    waiter.callback(None)


@implementer(IReservation)
class Reservation:
    """The room of one transaction."""

    def __init__(self, quota: Quota, octets: int) -> None:
        self._quota = quota
        self._announced = octets
        self._octets = octets
        self._names: list[str] = []  # of the customers for whom room is kept
        self._ended = False

    async def include(self, targets: Sequence[Target]) -> None:
        further = [one for one in self._quota.limited(targets) if one.name not in self._names]
        if not further:
            return
        await self._quota.make_room(further, self._octets)
        if self._ended:
            return  # while the spool was asked
        for customer in further:
            self._names.append(customer.name)
            self._quota.reserve(customer.name, self._octets)

    async def fit(self, size: int) -> None:
        more = size - self._octets
        if self._names and more > 0 and (not self._announced or more > _ADDED):
            await self._quota.see_that_fits(self._quota.current(self._names), more)
        if self._ended:
            return
        for name in self._names:
            self._quota.give_back(name, self._octets)
            self._quota.reserve(name, size)
        self._octets = size

    def release(self) -> None:
        self._ended = True
        names, self._names = self._names, []
        for name in names:
            self._quota.give_back(name, self._octets)

    def landed(self) -> None:
        for name in self._names:
            self._quota.note_landed(name, self._octets)
        self.release()
