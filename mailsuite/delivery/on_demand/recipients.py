"""Which recipients of a held domain exist, by the customer's rule: all, a list, a command, or its server's word.

Strangers are refused at RCPT instead of bounced later, but never a recipient who may exist: where a command cannot tell
the answer is temporary (450), where the server cannot be asked the mail is taken. `postmaster` exists at every domain
(RFC 5321 section 4.5.1).

A command gets the address as its last argument, without a shell; an address that begins with `-` does not exist then,
it could be taken for an option. Exit status 0 says that it exists, 75 (EX_TEMPFAIL) that this cannot be told now,
another one that it does not. One that takes more than ten seconds is killed, with the children it has by then, unless
they have left its session.

What servers have said is remembered in memory, within a bound: after a restart they are asked again.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from threading import Event
from time import monotonic
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.agents.relay import Dials, IsConnection
from mailsuite.delivery.next_hops import Unroutable
from mailsuite.delivery.on_demand.callout import CalloutSession
from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import ICustomers, INextHops, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import HOLD, Destination
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.resolver import DnsFailure
from mailsuite.wire.smtp.client import SmtpClientCore

CANNOT_TELL: Final = Reply.make(450, "4.3.0", "Whether the recipient exists cannot be told now, try again later")

_COMMAND_TIME: Final = 10.0  # seconds
_COMMANDS: Final = 4  # at once
_LOOK: Final = 0.2  # seconds between looks at whether a command is to be killed
_TEMPFAIL: Final = 75  # sysexits.h

_CALLOUT_TIME: Final = 20.0  # seconds, for all of it: somebody waits at RCPT
_CALLOUTS: Final = 10  # at once
_AWAY: Final = 300.0  # seconds that a server which could not be reached is not asked
_POSITIVE: Final = 7 * 86400.0
_NEGATIVE: Final = 2 * 3600.0
_REMEMBERED: Final = 10_000
_WAITING: Final = 100  # who may wait for a command or a callout

InThread = Callable[..., Awaitable[Any]]


class Memory:
    """What is known of recipients, for a time and within a bound: what was used longest ago goes first."""

    def __init__(self, clock: IReactorTime, bound: int = _REMEMBERED) -> None:
        self._clock = clock
        self._bound = bound
        self._known: dict[Address, tuple[bool, float]] = {}

    def exists(self, address: Address) -> bool | None:
        """What is remembered; None where nothing is."""
        known = self._known.pop(address, None)
        if known is None or known[1] <= self._clock.seconds():
            return None
        self._known[address] = known
        return known[0]

    def note(self, address: Address, *, exists: bool) -> None:
        """Remember an answer."""
        self._known.pop(address, None)
        self._known[address] = exists, self._clock.seconds() + (_POSITIVE if exists else _NEGATIVE)
        if len(self._known) > self._bound:
            del self._known[next(iter(self._known))]


class Callouts:
    """Asks customers' servers. `next_hops` finds them by `hold` destination; `hostname` is said in EHLO."""

    _log = Logger()

    def __init__(self, next_hops: INextHops, dialer: Dials, clock: IReactorTime, hostname: str) -> None:
        self._next_hops = next_hops
        self._dialer = dialer
        self._clock = clock
        self._hostname = hostname
        self._memory = Memory(clock)
        self._away: dict[str, float] = {}  # until when a domain's server is not asked
        self._under_way: dict[Address, list[Deferred[bool | None]]] = {}
        self._slots = DeferredSemaphore(_CALLOUTS)
        self._tasks = Tasks()

    async def exists(self, address: Address) -> bool | None:
        """Whether the server takes this recipient; None where it cannot be told. `address` is in its normal form."""
        known = self._memory.exists(address)
        if known is not None:
            return known
        if self._clock.seconds() < self._away.get(address.domain, 0.0) or len(self._under_way) >= _WAITING:
            return None
        waiter: Deferred[bool | None] = Deferred()
        waiters = self._under_way.get(address)
        if waiters is None:
            self._under_way[address] = [waiter]
            # Apart from whoever asked: the answer is worth having when they are gone.
            self._tasks.start(self._find_out(address), f"the callout for {address}")
        else:
            waiters.append(waiter)
        return await waiter

    async def _find_out(self, address: Address) -> None:
        exists: bool | None = None
        try:
            await self._slots.acquire()
            try:
                exists = await self._ask(address)
            finally:
                self._slots.release()
            if exists is not None:
                self._memory.note(address, exists=exists)
        finally:
            for waiter in self._under_way.pop(address):
                if not waiter.called:
                    waiter.callback(exists)

    async def _ask(self, address: Address) -> bool | None:
        asked = Deferred.fromCoroutine(self._ask_hosts(address))
        limit = self._clock.callLater(_CALLOUT_TIME, asked.cancel)
        try:
            reached, exists = await asked
        except (Unroutable, ConnectFailed, DnsFailure, CancelledError) as error:
            self._log.debug("{address} cannot be asked for: {error}", address=str(address), error=str(error))
            reached, exists = False, None
        finally:
            if limit.active():
                limit.cancel()
        if reached:
            self._away.pop(address.domain, None)
        else:
            self._away[address.domain] = self._clock.seconds() + _AWAY
        return exists

    async def _ask_hosts(self, address: Address) -> tuple[bool, bool | None]:
        """Ask the first host; whether it answered, and what it said."""
        hops = await self._next_hops.find(Destination(HOLD, address.domain))
        session = CalloutSession(address, self._hostname)
        connection = await self._dialer.dial(hops[0].host, hops[0].port, SmtpClientCore(), session)
        await _see_off(connection)
        return session.answered, session.exists


class Commands(Service):
    """Runs customers' commands, a few at a time, in threads. When it stops, those under way are killed."""

    _log = Logger()

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._slots = DeferredSemaphore(_COMMANDS)
        self._asked = 0
        self._tasks = Tasks()
        self._stopping = Event()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._stopping.clear()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping.set()
        return Deferred.fromCoroutine(self._tasks.finished())

    async def exists(self, customer: Customer, address: Address) -> bool | None:
        """What the customer's command says; None where it does not."""
        text = str(address)
        if text.startswith("-"):
            return False
        if self._asked >= _WAITING:
            return None
        self._asked += 1
        waiter: Deferred[bool | None] = Deferred()
        # Apart from whoever asked: a thread is busy until the command has ended, whoever has gone meanwhile.
        self._tasks.start(self._find_out(customer, text, waiter), f"the command for {text}")
        return await waiter

    async def _find_out(self, customer: Customer, text: str, waiter: Deferred[bool | None]) -> None:
        exists: bool | None = None
        try:
            await self._slots.acquire()
            try:
                if not (waiter.called or self._stopping.is_set()):
                    exists = await self._ask(customer, text)
            finally:
                self._slots.release()
        finally:
            self._asked -= 1
            if not waiter.called:
                waiter.callback(exists)

    async def _ask(self, customer: Customer, text: str) -> bool | None:
        try:
            status = await self._in_thread(run_command, [*customer.recipients_command, text], self._stopping)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._log.error("the command of customer {name} has failed: {error}", name=customer.name, error=str(error))
            return None
        return None if status < 0 or status == _TEMPFAIL else bool(status == 0)


def run_command(command: Sequence[str], stopping: Event) -> int:
    """Run a command without a shell, and tell its exit status, negative for a signal. Blocks.

    It is a process group of its own, which is killed whole where it takes too long, or when `stopping` is set. Raises
    `OSError`, `subprocess.SubprocessError`.
    """
    until = monotonic() + _COMMAND_TIME
    process = subprocess.Popen(  # noqa: S603 - it stands in the configuration, and no shell reads the address
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Whoever waits is the one who kills: until it was waited for, its number is nobody else's.
    while True:
        left = until - monotonic()
        try:
            return process.wait(max(0.0, min(left, _LOOK)))
        except BaseException as error:
            if isinstance(error, subprocess.TimeoutExpired) and left > 0 and not stopping.is_set():
                continue
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


class Recipients:
    """Refuses recipients that do not exist."""

    def __init__(self, customers: ICustomers, commands: Commands, callouts: Callouts) -> None:
        self._customers = customers
        self._commands = commands
        self._callouts = callouts

    async def check(self, customer: Customer, address: Address, *, at_once: bool = False) -> None:
        """Raises `Refused`: 550 5.1.1 for one that does not exist, 450 4.3.0 where a command cannot tell.

        `at_once` asks the list alone: where a command or a server would have to be asked, they exist.
        """
        rule = customer.recipients
        if rule is RecipientRule.ANY or address.local_part.lower() == "postmaster":
            return
        normal = Address(address.local_part, address.domain_key)
        if rule is RecipientRule.LIST:
            exists: bool | None = self._customers.is_listed(customer, normal)
        elif at_once:
            exists = None
        elif rule is RecipientRule.COMMAND:
            exists = await self._commands.exists(customer, normal)
            if exists is None:
                raise Refused(CANNOT_TELL)
        else:
            exists = await self._callouts.exists(normal)
        if exists is False:
            raise Refused(replies.NO_SUCH_USER)


async def _see_off(connection: IsConnection) -> None:
    """Wait for a connection's end; when we are cancelled it is broken off."""
    try:
        await connection.finished()
    except CancelledError:
        connection.abort()
        raise
