"""Quotas: how much may be held for a customer (452 4.2.2 at RCPT beyond it).

The spool is asked for what it holds every few seconds at most (every second, before anybody is refused); in between,
each recipient that was let in counts as a message. So many sessions at once stay near the limit. A message counts once
it is on its way to the spool, its octets when it is there: a customer's octets may be exceeded by what arrives within
those seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import ISpool, Refused, SpoolError
from mailsuite.mail import replies
from mailsuite.mail.customer import Customer
from mailsuite.mail.queue import HeldMail
from mailsuite.mail.reply import Reply

_FRESH: Final = 5.0  # seconds
_FRESH_REFUSAL: Final = 1.0

OVER_QUOTA: Final = Reply.make(452, "4.2.2", "Too much mail is held for this domain, try again later")


class Quota:
    """Refuses what would be too much."""

    _log = Logger()

    def __init__(self, spool: ISpool, clock: IReactorTime) -> None:
        self._spool = spool
        self._clock = clock
        self._held: Mapping[str, HeldMail] | None = None
        self._asked = float("-inf")
        self._let_in: Counter[str] = Counter()  # by customer, since the spool was asked
        self._waiters: list[Deferred[None]] | None = None
        self._tasks = Tasks()

    async def check(self, customer: Customer) -> None:
        """Let one more message in. Raises `Refused`: 452 4.2.2, or 451 where the spool cannot tell."""
        if customer.max_messages is None and customer.max_octets is None:
            return
        if self._is_older_than(_FRESH):
            await self._ask()
        if self._is_over(customer) and self._is_older_than(_FRESH_REFUSAL):
            await self._ask()  # it may have collected its mail
        if self._is_over(customer):
            raise Refused(OVER_QUOTA)
        self._let_in[customer.name] += 1

    def _is_older_than(self, seconds: float) -> bool:
        return self._held is None or self._clock.seconds() >= self._asked + seconds

    def _is_over(self, customer: Customer) -> bool:
        if self._held is None:
            raise Refused(replies.LOCAL_ERROR)
        held = [self._held[domain] for domain in customer.domains if domain in self._held]
        messages = sum(one.messages for one in held) + self._let_in[customer.name]
        if customer.max_messages is not None and messages >= customer.max_messages:
            return True
        return customer.max_octets is not None and sum(one.octets for one in held) >= customer.max_octets

    async def _ask(self) -> None:
        waiter: Deferred[None] = Deferred()
        if self._waiters is not None:
            self._waiters.append(waiter)
        else:
            self._waiters = [waiter]
            self._tasks.start(self._read(), "the look at what is held")
        await waiter

    async def _read(self) -> None:
        let_in, self._let_in = self._let_in, Counter()
        try:
            self._held = {one.domain: one for one in await self._spool.held()}
            self._asked = self._clock.seconds()
        except SpoolError as error:
            self._let_in += let_in
            self._held = None
            self._log.error("what is held cannot be told: {error}", error=str(error))
        finally:
            waiters, self._waiters = self._waiters or [], None
            for waiter in waiters:
                if not waiter.called:
                    waiter.callback(None)
