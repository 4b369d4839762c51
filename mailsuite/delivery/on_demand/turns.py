"""Turns: who may have the connection turned around, and what comes of it (RFC 2645 section 5.2.1).

A customer has one turn at a time, unless its turns are shared: then each takes its part by lease. Whatever becomes of
a turn, its lock and its leases come back: when `ended` is called, and when whoever had the turn forgets it.

`turn_interval` is counted from the end of the last turn that was complete: a customer whose line broke may come back at
once, and so may one whose turn ended before all was sent. Of turns that break before anything was sent, only the first
is written down at once; those of the next minute become one event, which tells how many `times` it happened.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.on_demand.held_run import HeldQueue, HeldRun
from mailsuite.delivery.on_demand.record import Record
from mailsuite.interfaces import DirectoryUnavailable, ICustomers, ITurn, Refused, SpoolError
from mailsuite.mail import replies
from mailsuite.mail.address import domain_key
from mailsuite.mail.customer import Customer
from mailsuite.mail.history import EventKind
from mailsuite.mail.route import HOLD, Destination
from mailsuite.mail.session import Identity, Peer

_SETTLING: Final = 2.0  # seconds that the outcomes of the last turn may take to be written down
_JUST_NOW: Final = 10.0
_SEEN_EVERY: Final = 3600.0
_TOGETHER: Final = 60.0  # seconds whose turns that came to nothing are one event


@implementer(ITurn)
class Turn:
    """One turn. See `ITurn`."""

    def __init__(
        self, customer: Customer, run: HeldRun, peer: Peer, begun: float, over: Callable[[Turn, str | None], None]
    ) -> None:
        self.customer = customer
        self.run = run
        self.peer = peer
        self.begun = begun
        self._over: Callable[[Turn, str | None], None] | None = over

    def ended(self, error: str | None) -> None:
        over, self._over = self._over, None
        if over is not None:
            over(self, error)


Detail = dict[str, str | float | bool | None]


class _Ends:
    """When a customer's last turn ended, when its last complete one did, and what was under way when one broke.

    `vain` is the last of the turns that came to nothing and are not written down yet, `times` how many they are.
    `noted` runs where one was written down a short while ago. `seen` is when it was written down last that there was
    no mail.
    """

    __slots__ = ("broke", "complete", "last", "noted", "seen", "times", "vain")

    def __init__(self) -> None:
        self.last = self.complete = self.seen = float("-inf")
        self.broke: Sequence[str] = ()
        self.vain: Detail = {}
        self.times = 0
        self.noted: IDelayedCall | None = None


class Turns:
    """Begins turns and notes how they ended."""

    _log = Logger()

    def __init__(self, customers: ICustomers, queue: HeldQueue, record: Record) -> None:
        self._customers = customers
        self._queue = queue
        self._clock = queue.clock
        self._record = record
        # Weakly: a turn that its session has lost is over.
        self._under_way: dict[str, weakref.WeakSet[Turn]] = {}
        self._ends: dict[str, _Ends] = {}

    def is_under_way(self, customer: Customer) -> bool:
        """Whether the customer has a turn now."""
        return bool(self._under_way.get(customer.name))

    async def begin(self, identity: Identity, domains: Sequence[str], peer: Peer) -> Turn:
        """See `IOnDemand.begin_turn`."""
        try:
            customer = self._customer(identity, peer)
        except DirectoryUnavailable as error:
            self._log.error("no turn for {name}: {error}", name=identity.name, error=str(error))
            raise Refused(replies.ATRN_UNAVAILABLE) from None
        keys = self._allowed(customer, domains)
        now = self._clock.seconds()
        ends = self._ends.setdefault(customer.name, _Ends())
        if self.is_under_way(customer) and not customer.shared_turns:
            raise Refused(replies.ATRN_UNDER_WAY)
        if now < ends.complete + customer.turn_interval:
            raise Refused(replies.ATRN_TOO_SOON)
        turn = self._turn(customer, keys, peer, ends.broke)
        try:
            found = await self._look(turn.run, just_now=now < ends.last + _JUST_NOW)
        except SpoolError as error:
            self._forget(turn)
            self._log.error("no turn for {name}: {error}", name=customer.name, error=str(error))
            raise Refused(replies.ATRN_UNAVAILABLE) from None
        except BaseException:
            self._forget(turn)
            raise
        if not found:
            self._forget(turn)
            self._note_seen(customer, peer, ends)
            raise Refused(replies.NO_MAIL)
        return turn

    def _customer(self, identity: Identity, peer: Peer) -> Customer:
        customer = None if identity.customer is None else self._customers.customer(identity.customer)
        if customer is None:
            raise Refused(replies.ATRN_REFUSED.saying("ATRN request refused: no mail is held for this account"))
        if not customer.is_at_home(peer.host):
            raise Refused(replies.ATRN_REFUSED.saying("ATRN request refused: not from this address"))
        return customer

    def _allowed(self, customer: Customer, domains: Sequence[str]) -> list[Destination]:
        """The destinations that are asked for."""
        keys = dict.fromkeys(map(domain_key, domains)) or dict.fromkeys(customer.domains)
        for key in keys:
            if key not in customer.domains:
                # RFC 2645 section 5.2.1: "MUST NOT send mail for any domains"
                raise Refused(replies.ATRN_REFUSED.saying(f"ATRN request refused: {key} is not yours"))
        if not keys:
            raise Refused(replies.NO_MAIL)
        return [Destination(HOLD, key) for key in keys]

    def _turn(self, customer: Customer, destinations: Sequence[Destination], peer: Peer, last: Sequence[str]) -> Turn:
        def objection() -> str | None:
            return self._objection(customer.name, destinations)

        run = self._queue.run(destinations, last=last, objection=objection)
        turn = Turn(customer, run, peer, self._clock.seconds(), self._ended)
        weakref.finalize(turn, run.end).atexit = False
        self._under_way.setdefault(customer.name, weakref.WeakSet()).add(turn)
        return turn

    def _objection(self, name: str, destinations: Sequence[Destination]) -> str | None:
        """Why a turn that is under way ends short, if it does: it is a customer no more, or not for a domain."""
        try:
            customer = self._customers.customer(name)
        except DirectoryUnavailable:
            return None  # it was there when the turn began, and nobody says that it is not
        if customer is None:
            return "the customer is gone"
        lost = next((one.name for one in destinations if one.name not in customer.domains), None)
        return None if lost is None else f"{lost} is not held for the customer any more"

    async def _look(self, run: HeldRun, *, just_now: bool) -> bool:
        """Whether there is mail, that included whose outcome in a turn that has just ended is being written down."""
        if await run.look():
            return True
        if not just_now or self._queue.settlements.is_idle:
            return False
        settled: Deferred[None] = self._queue.settlements.drained()
        try:
            await settled.addTimeout(_SETTLING, self._clock)
        except TimeoutError:
            return False
        return await run.look()

    def _forget(self, turn: Turn) -> None:
        """End a turn that has not begun."""
        turn.run.end()
        self._under_way[turn.customer.name].discard(turn)

    def _note_seen(self, customer: Customer, peer: Peer, ends: _Ends) -> None:
        """A customer that asks for nothing all day is logged each time, and written down once an hour."""
        now = self._clock.seconds()
        detail: Detail = {"address": peer.host, "messages": 0, "text": "no mail"}
        if now < ends.seen + _SEEN_EVERY:
            self._record.say(EventKind.SEEN, customer.name, detail)
            return
        ends.seen = now
        self._record.note(EventKind.SEEN, customer.name, **detail)

    def _ended(self, turn: Turn, error: str | None) -> None:
        first, *others = turn.run.under_way or ("",)
        self._forget(turn)
        run, now = turn.run, self._clock.seconds()
        why = error or run.trouble
        ends = self._ends.setdefault(turn.customer.name, _Ends())
        ends.last = now
        ends.broke = (*others, first)
        if why is None:
            ends.complete = now
        tally = run.tally
        detail: Detail = {
            "messages": tally.messages,
            "octets": tally.octets,
            "deferred": tally.deferred,
            "failed": tally.failed,
            "seconds": round(now - turn.begun, 3),
            "address": turn.peer.host,
            "complete": why is None,
            "text": why or "all was sent",
        }
        if why is None or tally.messages or tally.failed:
            self._note_vain(turn.customer.name, ends)
            self._record.note(EventKind.TURN, turn.customer.name, **detail)
            return
        ends.vain = detail
        ends.times += 1
        if ends.noted is None:
            self._note_vain(turn.customer.name, ends)

    def _note_vain(self, name: str, ends: _Ends) -> None:
        """Write down the turns that came to nothing, if there are any; for a minute those that follow only count."""
        if ends.noted is not None and ends.noted.active():
            ends.noted.cancel()
        ends.noted = None
        if not ends.times:
            return
        self._record.note(EventKind.TURN, name, **ends.vain, times=ends.times)
        ends.vain, ends.times = {}, 0
        ends.noted = self._clock.callLater(_TOGETHER, self._note_vain, name, ends)

    def stop(self) -> None:
        """Write down what has not been."""
        for name, ends in self._ends.items():
            self._note_vain(name, ends)
            if ends.noted is not None and ends.noted.active():
                ends.noted.cancel()
            ends.noted = None
