"""Holding: mail is held for a customer's hold time, and then goes back to its sender as a failure (RFC 3464).

At the start, every quarter of an hour, and when the oldest comes to its end, this looks for held mail whose time is
over. Before that, the customer's
contact is warned, once for each message, in one letter for all that have come near their end since the last look. What
contacts were told of is in the history (`EventKind.WARNED`): all that arrived up to the time that is noted there. So a
restart does not warn twice.

Domains that a route holds, for no customer, and those whose customer is gone have three weeks and no contact. Mail that
is under lease, because it is on its way just now, is left alone until the next look.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsuite.delivery.on_demand.digest import MOST_LISTED, digest
from mailsuite.delivery.on_demand.held_run import Returns, TakesOutcomes
from mailsuite.delivery.on_demand.record import Record
from mailsuite.delivery.retry import span
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import DirectoryUnavailable, ICustomers, IRouter, ISpool, Refused, SpoolError
from mailsuite.mail.customer import HOLD_TIME, Customer
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import Delivery, HeldMail, Message, Outcome, Result
from mailsuite.mail.reports import needs_smtputf8
from mailsuite.mail.route import HOLD, Destination
from mailsuite.mail.status import EnhancedStatus

_INTERVAL: Final = 900.0  # seconds between looks
_SHORTEST: Final = 1.0
_BATCH: Final = 20  # deliveries claimed at once
_COMMITTING: Final = 60.0  # seconds from a message's time until it can be seen
_PAGE: Final = 500  # messages looked at at once
_EXPIRED: Final = EnhancedStatus(4, 4, 7)  # RFC 3463 section 3.5: "Delivery time expired"


class Holding(Service):
    """Returns held mail whose time is over, and warns before. `settlements` are the scheduler's."""

    _log = Logger()

    def __init__(
        self,
        customers: ICustomers,
        router: IRouter,
        spool: ISpool,
        settlements: TakesOutcomes,
        clock: IReactorTime,
        *,
        hostname: str,
    ) -> None:
        self._customers = customers
        self._router = router
        self._spool = spool
        self._settlements = settlements
        self._clock = clock
        self._hostname = hostname
        self._record = Record(spool, clock.seconds)
        self._returns = Returns(spool, clock)
        self._warned: dict[str, float] = {}  # by customer: it was warned of all that arrived until then
        self._tasks = Tasks()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._tasks.start(self._keep_looking(), "holding")

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._tasks.cancel()
        await self._tasks.finished()
        await self._record.written()
        self._returns.stop()

    async def _keep_looking(self) -> None:
        while True:
            pause = _INTERVAL
            try:
                pause = await self._look()
            except (SpoolError, DirectoryUnavailable) as error:
                self._log.error("held mail cannot be looked through: {error}", error=str(error))
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - a defect is no reason to hold mail for ever
                self._log.failure("the look through held mail has met a defect")
            await deferLater(self._clock, pause)

    async def _look(self) -> float:
        """Look, and tell when to look again, in seconds."""
        held = await self._spool.held()
        now = self._clock.seconds()
        ends = [one.oldest + self._hold_time(self._customers.customer_of(one.domain)) for one in held]
        for one in held:
            await self._expire(one, self._customers.customer_of(one.domain))
        for customer in self._customers.customers():
            if customer.contact is not None and customer.warning_time > 0:
                await self._warn(customer, [one for one in held if one.domain in customer.domains])
        return min([_INTERVAL, *(max(at - now, _SHORTEST) for at in ends if at > now)])

    # ----------------------------------------------------------------------------------------- expiry

    def _hold_time(self, customer: Customer | None) -> float:
        return HOLD_TIME if customer is None else customer.hold_time

    async def _expire(self, held: HeldMail, customer: Customer | None) -> None:
        hold_time = self._hold_time(customer)
        subject = held.domain if customer is None else customer.name
        destination = Destination(HOLD, held.domain)
        seen: set[int] = set()  # what could not be reported comes back, and is for the next look
        while held.oldest + hold_time <= self._clock.seconds() and not self._settlements.is_behind:
            claimed = await self._spool.claim_held([destination], _BATCH)
            horizon = self._clock.seconds() - hold_time
            expired = [one for one in claimed if one.message.arrived <= horizon and one.recipients[0].key not in seen]
            rest = [one for one in claimed if not any(one is other for other in expired)]
            self._returns.add(rest)
            seen.update(one.recipients[0].key for one in expired)
            self._fail(expired, subject)
            if rest or not expired:
                return
            await deferLater(self._clock, 0)

    def _fail(self, expired: Sequence[Delivery], subject: str) -> None:
        now = self._clock.seconds()
        events = []
        for delivery in expired:
            message = delivery.message
            text = f"Held for {span(now - message.arrived)} and not collected"
            self._settlements.add(delivery, [Outcome(Result.FAILED, _EXPIRED, text)] * len(delivery.recipients))
            detail: dict[str, str | int] = {"domain": delivery.destination.name, "octets": message.size, "text": text}
            events.append(Event(now, EventKind.EXPIRED, subject, message.queue_id, detail))
        if events:
            count = "1 message" if len(events) == 1 else f"{len(events)} messages"
            self._log.info(
                "held for {subject}: {count} not collected in time, back to the senders", subject=subject, count=count
            )
            self._record.write(events)

    # --------------------------------------------------------------------------------------- warnings

    async def _warn(self, customer: Customer, held: Sequence[HeldMail]) -> None:
        """Warn of what comes near its end and was not near it at the last look."""
        now = self._clock.seconds()
        # Never of what may still come: what is being committed has its time already.
        until = now - max(customer.hold_time - customer.warning_time, _COMMITTING)
        if not any(one.oldest <= until for one in held):
            return
        since = await self._warned_until(customer)
        if since >= until:
            return
        found: list[Message] = []
        count = 0
        for one in held:
            begin = max(since, now - customer.hold_time)
            async for page in self._pages(Destination(HOLD, one.domain), begin, until):
                count += len(page)
                found = sorted([*found, *page], key=lambda message: message.arrived)[:MOST_LISTED]
        if count and not await self._send(customer, found, count, now):
            return
        self._warned[customer.name] = until
        if count:
            text = f"{customer.contact} was told that it expires"
            self._record.note(EventKind.WARNED, customer.name, until=until, messages=count, text=text)

    async def _pages(self, destination: Destination, since: float, until: float) -> AsyncIterator[Sequence[Message]]:
        """What arrived after `since`, at `until` or before, in parts; messages of one time may lie in several."""
        seen: set[str] = set()  # ids of those that arrived when the last one of the page before did
        while True:
            limit = _PAGE + len(seen)
            page = await self._spool.held_messages(destination, until, limit, since=since)
            if fresh := [message for message in page if message.queue_id not in seen]:
                yield fresh
            if len(page) < limit:
                return
            last = page[-1].arrived
            seen = {message.queue_id for message in page if message.arrived == last}
            since = math.nextafter(last, -math.inf)

    async def _warned_until(self, customer: Customer) -> float:
        known = self._warned.get(customer.name)
        if known is not None:
            return known
        for event in await self._spool.history(kind=EventKind.WARNED, subject=customer.name, limit=1):
            noted = event.detail.get("until")
            if isinstance(noted, (int, float)):
                return min(float(noted), event.time)
        return 0.0

    async def _send(self, customer: Customer, found: Sequence[Message], count: int, now: float) -> bool:
        """Queue the letter. Whether that is done with: False where it is to be tried again."""
        contact = customer.contact
        assert contact is not None
        try:
            targets = await self._router.resolve(contact, None, trusted=True)
        except Refused as refused:
            self._log.error(
                "customer {name} cannot be warned, <{contact}> is refused: {reply}",
                name=customer.name,
                contact=str(contact),
                reply=str(refused.reply),
            )
            return refused.reply.is_permanent
        listed = [(message, message.arrived + customer.hold_time) for message in found]
        letter = digest(contact, customer.name, listed, count, hostname=self._hostname, now=now)
        # The null reverse-path: a warning that cannot be delivered is not to come back.
        envelope = Envelope(None, Body.SEVEN_BIT if letter.isascii() else Body.EIGHT_BIT, needs_smtputf8(contact))
        draft = self._spool.draft()
        try:
            waiting = draft.write(letter)
            if waiting is not None:
                await waiting
            await draft.commit(envelope, targets)
        finally:
            draft.abort()
        return True
