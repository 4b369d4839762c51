"""One connection of the relay agent: dialled, held by a relay session, and what is learned from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred

from mailsuite.delivery.agents.relay.health import Place
from mailsuite.delivery.agents.relay.outcomes import NO_HOST, TLS_FAILED, of_dns, of_silence
from mailsuite.delivery.agents.relay.policies import label, mode_of
from mailsuite.delivery.agents.relay.screened import ScreenedRun
from mailsuite.delivery.agents.relay.settings import IsConnection, Shared
from mailsuite.delivery.agents.relay.slots import Slot, Slots
from mailsuite.delivery.tasks import uncancelled
from mailsuite.interfaces import ILingeringRun, IQueueRun
from mailsuite.mail.networks import LOOPBACK, is_within
from mailsuite.mail.queue import Outcome, Result, Via
from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import TLSFailureKind, TLSPolicy, TLSResult
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import TLSFailed
from mailsuite.session.relay import RelayEnd, RelaySession, RelaySettings, Stage
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow, RemoteProtocolError

# How a session may end that has met no defect.
_NO_DEFECTS: Final = (CancelledError, ConnectionClosed, PeerTooSlow, RemoteProtocolError, TLSFailed)


@dataclass(frozen=True, slots=True)
class LineEnd:
    """What a connection has come to.

    `outcome` is what the recipients of the run come to if no other host is tried. `used` are the addresses that have
    had their turn, `address` is the one that was spoken to.
    """

    took_mail: bool
    tls_failed: bool
    outcome: Outcome
    screened: ScreenedRun
    address: str
    used: Sequence[str]


class Line:
    """A connection to one of the addresses of a host, under one policy; `door` is the first of them."""

    def __init__(
        self, hop: NextHop, policy: TLSPolicy, shared: Shared, source: IQueueRun, door: Place, *, urgent: bool
    ) -> None:
        self._hop = hop if hop.tls == policy.mode else replace(hop, tls=mode_of(policy, hop))
        self._policy = policy
        self._shared = shared
        self._door: Place | None = None if urgent else door
        self._screened = ScreenedRun(source, self._is_safe)
        self._failed: list[str] = []
        self._slot: Slot | None = None
        self._ready_at: Place | None = None
        self._creator: Any = None
        self._session: RelaySession | None = None
        # What was put aside must not wait for this connection to end, so it knows of that too.
        self._stay: Stay | None = None
        if ILingeringRun.providedBy(source):
            self._stay = Stay(ILingeringRun(source), shared.slots, self._screened)

    async def admitted(self) -> bool:
        """Wait until one more may dial the host; False where it has been found dead."""
        health, door = self._shared.health, self._door
        if door is None:
            return True
        try:
            await health.admit(door)
        except CancelledError:
            self._door = None
            raise
        if health.trouble(door) is not None:
            self.leave_door()
            return False
        return True

    def leave_door(self) -> None:
        """Let others dial."""
        door, self._door = self._door, None
        if door is not None:
            self._shared.health.dial_over(door)

    async def hold(self, addresses: Sequence[str], slot: Slot) -> LineEnd:
        """Dial, and see the session to its end. Raises `TLSSettingsError`, and what the session has met as a defect.

        Then what it took is in the hands of the run still.
        """
        hop, shared = self._hop, self._shared
        self._slot = slot
        self._creator = await self._make_creator()
        settings = RelaySettings(shared.settings.hostname, hop, policy=label(self._policy), quit_early=True)
        session = self._session = RelaySession(
            self._screened,
            settings,
            tls=None if self._creator is None else lambda: self._creator,
            in_thread=shared.in_thread,
            ready=self._is_ready,
            lingers=self._stay,
        )
        try:
            connection = await shared.dialer.dial(
                hop.host,
                hop.port,
                settings.core(),
                session,
                tls=self._creator if hop.tls == "implicit" else None,
                source_address=None if hop.host.startswith("/") else hop.source_address,
                addresses=addresses,
                failed=self._note_failed,
            )
        except ConnectFailed as failure:
            return self._unconnected(failure, addresses)
        except DnsFailure as failure:
            return self.unusable(of_dns(failure), addresses)
        try:
            ending = await _see_off(connection)
        finally:
            if self._ready_at is not None:
                shared.health.left(self._ready_at)
        if ending is not None and not isinstance(ending, _NO_DEFECTS):
            raise ending
        return self._judge(session, ending, addresses)

    def unusable(self, outcome: Outcome, addresses: Sequence[str]) -> LineEnd:
        """The end of a line that could not be dialled at all."""
        return LineEnd(False, False, outcome, self._screened, addresses[0], addresses)

    # --------------------------------------------------------------------------------- while it goes on

    async def _make_creator(self) -> Any:  # noqa: ANN401 - what Twisted's startTLS takes
        hop, tls = self._hop, self._shared.tls
        if hop.tls == "none":
            return None
        if hop.certificate is None:
            return tls.for_policy(hop.host, self._policy)
        # A certificate of the route's own: its files may have to be read.
        return await self._shared.in_thread(
            lambda: tls.for_policy(hop.host, self._policy, certificate=hop.certificate, key=hop.key)
        )

    def _note_failed(self, address: str, why: str) -> None:
        self._failed.append(address)
        self._shared.health.failed(Place(address, self._hop.port), why)

    def _is_ready(self) -> None:
        """Mail can be sent: the host is alive, and so is whoever has this slot."""
        assert self._session is not None
        self._ready_at = Place(self._session.via.address or self._hop.host, self._hop.port)
        self._shared.health.is_ready(self._ready_at)
        self.leave_door()
        if self._slot is not None:
            self._slot.prove()

    def _is_safe(self) -> bool:
        session = self._session
        if session is None:
            return False
        if self._hop.lmtp and (not session.via.address or is_within(session.via.address, LOOPBACK)):
            return True  # a mail store on our own machine: RFC 8689 section 4.4 leaves it to the reader's side
        return self._policy.proves_the_host and session.offers.offers("REQUIRETLS")

    # ------------------------------------------------------------------------------------- at its end

    def _unconnected(self, failure: ConnectFailed, addresses: Sequence[str]) -> LineEnd:
        hop = self._hop
        text = f"cannot connect to {hop.host}: {failure}"
        via = Via(hop.host, addresses[-1], hop.port, policy=label(self._policy))
        outcome = of_silence(hop.host, text, via)
        if failure.tls is not None:
            self._note_tls(failure.tls, addresses[-1])
            outcome = replace(outcome, status=TLS_FAILED)
        return LineEnd(False, failure.tls is not None, outcome, self._screened, addresses[-1], addresses)

    def _judge(self, session: RelaySession, ending: Exception | None, addresses: Sequence[str]) -> LineEnd:
        hop, end, via = self._hop, session.end, session.via
        self._note_of_session(session, ending)
        outcome = end.outcome or NO_HOST
        if isinstance(ending, TLSFailed) and end.outcome is not None:
            outcome = replace(outcome, status=TLS_FAILED, text=f"TLS with {hop.host} has failed: {ending}")
        took_mail = end.reached and (end.outcome is None or self._screened.heard)
        if outcome.via is None and not took_mail:
            outcome = replace(outcome, via=via)
        address = via.address if via.address in addresses else self._first_left(addresses)
        if not took_mail and _is_ill(end):
            self._shared.health.failed(Place(via.address or hop.host, hop.port), outcome.text)
        return LineEnd(took_mail, end.tls_failed, outcome, self._screened, address, [*self._failed, address])

    def _first_left(self, addresses: Sequence[str]) -> str:
        return next((address for address in addresses if address not in self._failed), addresses[0])

    def _note_of_session(self, session: RelaySession, ending: Exception | None) -> None:
        """Tell what became of TLS; where nobody came as far as that there is nothing to tell."""
        if session.via.tls is not None:
            self._note_tls(None, session.via.address, session)
        elif isinstance(ending, TLSFailed):
            self._note_tls(ending, session.via.address, session)
        elif self._hop.tls != "none" and (session.end.reached or session.end.tls_failed):
            self._note(TLSFailureKind.STARTTLS_NOT_SUPPORTED, "STARTTLS is not offered", session.via.address, session)

    def _note_tls(self, failed: TLSFailed | None, address: str, session: RelaySession | None = None) -> None:
        problem = getattr(self._creator, "problem", None)
        if problem is not None:
            self._note(problem.kind, problem.text, address, session)
        elif failed is not None:
            self._note(TLSFailureKind.VALIDATION, str(failed), address, session)
        else:
            self._note(None, "", address, session)

    def _note(self, kind: TLSFailureKind | None, why: str, address: str, session: RelaySession | None) -> None:
        domain = self._hop.domain
        if domain:
            local = "" if session is None else session.local.host
            result = TLSResult(domain, self._policy, self._hop.host, address, local, kind, why)
            self._shared.policies.note(result)


class Stay:
    """Lets a drained connection stay for a moment, as long as nobody else waits for a slot."""

    def __init__(self, run: ILingeringRun, slots: Slots, screened: ScreenedRun) -> None:
        self._run = run
        self._slots = slots
        self._screened = screened

    @property
    def is_worthwhile(self) -> bool:
        return bool(self._run.expects_more and not (self._slots.waiting or self._screened.aside))

    async def more(self) -> bool:
        waiter: Deferred[bool] = self._run.more()
        with self._slots.idle(waiter):
            return await waiter


async def _see_off(connection: IsConnection) -> Exception | None:
    """Wait for a connection's end. When we are cancelled it is broken off, and its session gives its leases back."""
    try:
        return await connection.finished()
    except CancelledError:
        connection.abort()
        await uncancelled(connection.finished())
        raise


def _is_ill(end: RelayEnd) -> bool:
    """Whether what was wrong is wrong with the host, for whoever asks, and may be over in a while.

    That it takes no mail at all (RFC 7504) each destination is told by itself, and believed.
    """
    if end.stage not in (Stage.GREETING, Stage.HELLO, Stage.READY):
        return False
    return end.outcome is not None and end.outcome.result is not Result.FAILED
