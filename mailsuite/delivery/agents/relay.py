"""The relay agent: finds the next hop, dials, and lets a relay session drain the run.

Hosts are tried in their order, each at each of its addresses, until one takes mail (RFC 5321 section 5.1); how many
are tried in one run is bounded. Everything that is due for a destination goes over the connection that came about.

Rules
- Opportunistic TLS that fails at the handshake is tried once more in plaintext with the same address; TLS that is
  required, verified or implicit never is.
- A run fails as a whole where no host took mail. It fails for good only where every host said so: one that could not
  be asked may take the mail tomorrow. A next hop from the configuration defers whatever it says before it takes mail:
  our own configuration must not bounce mail.
- A connection that is lost before the server has said anything about a single message counts as a host that took none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.next_hops import Unroutable
from mailsuite.delivery.tasks import uncancelled
from mailsuite.interfaces import IDeliveryAgent, INextHops, IQueueRun
from mailsuite.mail.password_file import PasswordUnreadable, read_password
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import RELAY, Destination, NextHop
from mailsuite.mail.status import EnhancedStatus
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import TLSFailed
from mailsuite.session.handover import Session
from mailsuite.session.relay import RelayEnd, RelaySession, RelaySettings, Stage
from mailsuite.wire.core import Core

_NO_ANSWER: Final = EnhancedStatus(4, 4, 1)  # RFC 3463 section 3.5
_DIRECTORY_FAILURE: Final = EnhancedStatus(4, 4, 3)
_UNABLE_TO_ROUTE: Final = EnhancedStatus(5, 4, 4)
_CONFIGURATION: Final = EnhancedStatus(4, 3, 5)  # "System incorrectly configured", section 3.4
_TLS_FAILED: Final = EnhancedStatus(4, 7, 5)  # "Cryptographic failure", section 3.8
_NO_HOST: Final = Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 4), "No host could be tried")

InThread = Callable[..., Awaitable[Any]]
Addresses = Callable[[str], Awaitable[Sequence[str]]]


class IsConnection(Protocol):
    """A connection that was dialled."""

    def finished(self) -> Deferred[Exception | None]:
        """See `mailsuite.net.connection.Connection.finished`."""

    def abort(self) -> None:
        """End it now."""


class Dials(Protocol):
    """What is asked of the dialer."""

    async def dial(
        self,
        host: str,
        port: int,
        core: Core,
        session: Session,
        *,
        tls: Any = None,  # noqa: ANN401 - as there
        source_address: str | None = None,
    ) -> IsConnection:
        """See `mailsuite.net.dialer.Dialer.dial`."""


class MakesTLS(Protocol):
    """What is asked of the TLS settings."""

    def for_host(self, hostname: str, mode: str) -> Any:  # noqa: ANN401 - what Twisted's startTLS takes
        """See `mailsuite.net.tls.ClientTLS.for_host`."""


@dataclass(frozen=True, slots=True)
class RelayAgentSettings:
    """What we call ourselves, how many connections there are at once to one destination and in all, how many addresses
    are tried in one run, and the address that connections leave from.
    """  # noqa: D205 - one sentence

    hostname: str
    concurrency: int = 5
    connections: int = 200
    attempts: int = 5
    source_address: str | None = None


@implementer(IQueueRun)
class _Heard:
    """A run that knows whether the server has said anything about a message."""

    __slots__ = ("_run", "destination", "heard")

    def __init__(self, run: IQueueRun) -> None:
        self._run = run
        self.destination: Destination = run.destination
        self.heard = False

    def next(self) -> Awaitable[Delivery | None]:
        return self._run.next()

    def batch(self, limit: int) -> Awaitable[Sequence[Delivery]]:
        return self._run.batch(limit)

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        self.heard = self.heard or any(map(_was_heard, outcomes))
        self._run.settle(delivery, outcomes)

    def release(self, delivery: Delivery) -> None:
        self._run.release(delivery)

    def fail(self, outcome: Outcome) -> None:
        self._run.fail(outcome)


@implementer(IDeliveryAgent)
class RelayAgent:
    """Relays by SMTP, and by LMTP to next hops that speak it.

    `addresses` gives the addresses of a host, each of which is tried by itself; without it that is the dialer's
    business, and a host whose greeting refuses us is not tried at its other addresses.
    """

    _log = Logger()
    name = RELAY
    batch = 5

    def __init__(
        self,
        next_hops: INextHops,
        dialer: Dials,
        tls: MakesTLS,
        in_thread: InThread,
        settings: RelayAgentSettings,
        *,
        addresses: Addresses | None = None,
    ) -> None:
        self.concurrency = settings.concurrency
        self._next_hops = next_hops
        self._dialer = dialer
        self._tls = tls
        self._in_thread = in_thread
        self._settings = settings
        self._addresses = addresses
        self._slots = DeferredSemaphore(settings.connections)

    async def deliver(self, run: IQueueRun) -> None:
        await self._slots.acquire()
        try:
            await self._deliver(run)
        finally:
            self._slots.release()

    async def _deliver(self, run: IQueueRun) -> None:
        configured = _is_configured(run.destination)
        outcomes: list[Outcome] = []
        try:
            hops = [await self._with_password(hop) for hop in await self._next_hops.find(run.destination)]
        except Unroutable as unroutable:
            run.fail(unroutable.outcome)
            return
        except PasswordUnreadable as error:
            run.fail(Outcome(Result.DEFERRED, _CONFIGURATION, str(error)))
            return
        async for hop, address in self._places(hops, outcomes):
            outcome = await self._attempt(run, hop, address)
            if outcome is None:
                return
            outcomes.append(outcome)
        run.fail(_sum_up(outcomes, defer=configured))

    async def _with_password(self, hop: NextHop) -> NextHop:
        """A next hop with the password that its file has now. Raises `PasswordUnreadable`."""
        if hop.password_file is None:
            return hop
        return replace(hop, password=await self._in_thread(read_password, hop.password_file))

    async def _places(self, hops: Sequence[NextHop], outcomes: list[Outcome]) -> AsyncIterator[tuple[NextHop, str]]:
        """Hosts and addresses in their order; what the DNS has to say against a host goes to `outcomes`."""
        tried = 0
        for hop in hops:
            try:
                addresses = [hop.host] if self._addresses is None else await self._addresses(hop.host)
            except DnsFailure as failure:
                outcomes.append(_of_dns(failure))
                continue
            for address in addresses:
                if tried == self._settings.attempts:
                    return
                tried += 1
                yield hop, address

    async def _attempt(self, run: IQueueRun, hop: NextHop, address: str) -> Outcome | None:
        """Try one address. None where the host took mail, else why it did not."""
        end, heard = await self._hold_session(run, hop, address)
        if end.tls_failed and hop.tls == "opportunistic":
            end, heard = await self._hold_session(run, replace(hop, tls="none"), address)
        if end.reached and (end.outcome is None or heard):
            return None
        self._log.debug(
            "{destination}: {host} at {address} took nothing: {text}",
            destination=str(run.destination),
            host=hop.host,
            address=address,
            text=_NO_HOST.text if end.outcome is None else end.outcome.text,
        )
        return end.outcome or _NO_HOST

    async def _hold_session(self, run: IQueueRun, hop: NextHop, address: str) -> tuple[RelayEnd, bool]:
        """Dial, and see a relay session to its end; also tells whether anything was heard of a message."""
        listening = _Heard(run)
        creator = None if hop.tls == "none" else self._tls.for_host(hop.host, hop.tls)
        implicit = hop.tls == "implicit"
        settings = RelaySettings(self._settings.hostname, hop)
        session = RelaySession(
            listening, settings, tls=None if creator is None else lambda: creator, in_thread=self._in_thread
        )
        try:
            connection = await self._dialer.dial(
                address,
                hop.port,
                settings.core(),
                session,
                tls=creator if implicit else None,
                source_address=self._settings.source_address,
            )
        except ConnectFailed as failure:
            text = f"cannot connect to {hop.host}: {failure}"
            return RelayEnd(Stage.GREETING, Outcome(Result.DEFERRED, _NO_ANSWER, text, remote=hop.host)), False
        except DnsFailure as failure:
            return RelayEnd(Stage.GREETING, _of_dns(failure)), False
        ending = await _see_off(connection)
        end = session.end
        if isinstance(ending, TLSFailed) and end.outcome is not None:
            text = f"TLS with {hop.host} has failed: {ending}"
            end = replace(end, outcome=replace(end.outcome, status=_TLS_FAILED, text=text))
        return end, listening.heard


async def _see_off(connection: IsConnection) -> Exception | None:
    """Wait for a connection's end. When we are cancelled it is broken off, and its session gives its leases back."""
    try:
        return await connection.finished()
    except CancelledError:
        connection.abort()
        await uncancelled(connection.finished())
        raise


def _was_heard(outcome: Outcome) -> bool:
    """Whether an outcome is the server's word on a recipient, not on the connection (421: RFC 5321 section 3.8)."""
    if outcome.reply is not None:
        return outcome.reply.code != 421
    return outcome.result is not Result.DEFERRED


def _is_configured(destination: Destination) -> bool:
    """Whether a destination names a next hop of the configuration: its mail is there by our own will."""
    return "]:" in destination.name


def _of_dns(failure: DnsFailure) -> Outcome:
    if failure.temporary:
        return Outcome(Result.DEFERRED, _DIRECTORY_FAILURE, str(failure))
    # RFC 5321 section 5.1: an MX that cannot be used is an error where there is no other.
    return Outcome(Result.FAILED, _UNABLE_TO_ROUTE, str(failure))


def _sum_up(outcomes: Sequence[Outcome], *, defer: bool) -> Outcome:
    """What all hosts together come to."""
    deferred = [outcome for outcome in outcomes if outcome.result is Result.DEFERRED]
    if deferred:
        return deferred[-1]
    if not outcomes:
        return _NO_HOST
    last = outcomes[-1]
    return replace(last, result=Result.DEFERRED, status=last.status.of_class(4)) if defer else last
