"""One run of the relay agent: its way from host to host, until one takes mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from mailsuite.delivery.agents.relay.health import Place
from mailsuite.delivery.agents.relay.line import Line, LineEnd
from mailsuite.delivery.agents.relay.outcomes import (
    of_barred,
    of_configuration,
    of_dns,
    of_silence,
    of_unsafe,
    of_untried,
    sum_up,
)
from mailsuite.delivery.agents.relay.policies import mode_of, relaxed
from mailsuite.delivery.agents.relay.screened import MOST_ASIDE, ListedRun, ScreenedRun, does_without_tls
from mailsuite.delivery.agents.relay.settings import Shared
from mailsuite.delivery.next_hops import Unroutable, loop_of
from mailsuite.delivery.routes import is_configured
from mailsuite.interfaces import Barred, IQueueRun
from mailsuite.mail.password_file import PasswordUnreadable, read_password
from mailsuite.mail.queue import Delivery, Outcome, Result
from mailsuite.mail.route import HOLD, NextHop
from mailsuite.mail.tls_policy import PolicySource, TLSPolicy
from mailsuite.net.addresses import parse_address
from mailsuite.net.dialer import SocketPath, reachable
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import TLSSettingsError

_IN_PLAINTEXT = TLSPolicy("none")
_log = Logger()


class Trip:
    """A run on its way. `relaxed` heeds no policies but the configuration: for mail that wants it so."""

    def __init__(self, run: IQueueRun, shared: Shared, *, relaxed: bool = False) -> None:
        self._run = run
        self._shared = shared
        self._relaxed = relaxed
        self._outcomes: list[Outcome] = []
        self._tried = 0
        self._is_urgent = run.destination.agent == HOLD  # whoever asked for what is held is there
        self._met_policy = False  # a policy of the destination has kept mail from some host
        self._last = ("", False)  # the last host that was ready for mail, and whether it had proved itself
        self._begun: set[str] = set()  # the domains some of whose hosts have had their turn
        self._looped: set[str] = set()  # those of which no host is left that is nearer than we are

    async def go(self) -> None:
        """Deliver what there is; settle the run as a whole where no host took any."""
        run, shared = self._run, self._shared
        destination = run.destination
        try:
            hops: Sequence[NextHop] = await shared.lookups.run(destination, lambda: shared.next_hops.find(destination))
        except Unroutable as unroutable:
            run.fail(unroutable.outcome)
            return
        reached = await self._visit(hops)
        shared.lookups.note(destination, alive=reached)
        if reached:
            return
        if self._met_policy and not self._relaxed:
            await self._send_what_does_without(hops)
        run.fail(sum_up(self._outcomes, defer=is_configured(destination)))

    async def _visit(self, hops: Sequence[NextHop]) -> bool:
        """Go to the hosts in their order; whether one was ready for mail.

        After that one only those messages go on that it was not safe enough for.
        """
        source: IQueueRun = self._run
        rest: ListedRun | None = None
        for number, hop in enumerate(hops):
            if hop.domain in self._looped:
                continue
            if self._tried >= self._shared.settings.attempts:
                self._leave(hop)
                break
            if await self._is_among(equals_of(hops, number), hop.domain):
                continue
            screened = await self._try_host(hop, source)
            self._begun.add(hop.domain)
            if screened is not None and not (screened.aside or (rest is not None and rest.left)):
                return True
            if screened is not None:
                left = () if rest is None else rest.left
                source = rest = ListedRun(self._run, [*screened.aside, *left])
        if rest is None:
            return False
        host, is_proved = self._last
        may_change = any(outcome.result is Result.DEFERRED for outcome in self._outcomes)
        rest.fail(of_unsafe(host, is_proved=is_proved, may_change=may_change))
        return True

    async def _send_what_does_without(self, hops: Sequence[NextHop]) -> None:
        """RFC 8689 section 4.2.2: a policy is followed, but such mail does "not fail if this is unsuccessful"."""
        picked: list[Delivery] = []
        others: list[Delivery] = []
        while len(picked) + len(others) < MOST_ASIDE and (delivery := await self._run.next()) is not None:
            (picked if does_without_tls(delivery) else others).append(delivery)
        if picked:
            listed = ListedRun(self._run, picked)
            await Trip(listed, self._shared, relaxed=True)._visit(hops)  # noqa: SLF001 - it is one of us
            others += listed.left
        for delivery in reversed(others):
            self._run.release(delivery)

    # -------------------------------------------------------------------------------------- one host

    async def _try_host(self, hop: NextHop, source: IQueueRun) -> ScreenedRun | None:
        """Try a host at its addresses; the run as it saw it where it was ready for mail, else None."""
        try:
            hop = await self._prepared(hop)
            policy, addresses = await self._shared.lookups.run(self._run.destination, lambda: self._look_up(hop))
        except Barred as barred:
            self._met_policy = True
            self._outcomes.append(of_barred(hop.host, barred))
            return None
        except DnsFailure as failure:
            self._outcomes.append(of_dns(failure))
            return None
        except PasswordUnreadable as error:
            self._outcomes.append(of_configuration(error))
            return None
        if self._are_ours(hop, addresses):
            self._turn_back(hop.domain)
            return None
        untried = list(reachable(addresses, hop.source_address))
        if not untried:
            why = f"{hop.host} has no address that {hop.source_address} could reach"
            self._outcomes.append(of_silence(hop.host, why))
        while untried and self._tried < self._shared.settings.attempts:
            untried = self._without_resting(hop, untried)
            if not untried:
                break
            candidates = untried[: self._shared.settings.attempts - self._tried]
            screened, used = await self._try_addresses(hop, policy, candidates, source)
            if screened is not None:
                return screened
            untried = [address for address in untried if address not in used]
        if untried:
            self._leave(hop)
        return None

    def _leave(self, hop: NextHop) -> None:
        """The attempts of this run are used up: nobody may say that no host takes the mail."""
        if all(outcome.result is Result.FAILED for outcome in self._outcomes):
            self._outcomes.append(of_untried(hop.host, self._outcomes))

    async def _prepared(self, hop: NextHop) -> NextHop:
        """A next hop with its source address, and the password that its file has now. Raises `PasswordUnreadable`."""
        if hop.source_address is None and self._shared.settings.source_address is not None:
            hop = replace(hop, source_address=self._shared.settings.source_address)
        if hop.password_file is None:
            return hop
        return replace(hop, password=await self._shared.in_thread(read_password, hop.password_file))

    async def _look_up(self, hop: NextHop) -> tuple[TLSPolicy, Sequence[str]]:
        """The policy and the addresses. Raises `Barred`, `DnsFailure`."""
        shared = self._shared
        policy = relaxed(hop) if self._relaxed else await shared.policies.policy(hop.domain, hop)
        return policy, await self._addresses(hop)

    async def _addresses(self, hop: NextHop) -> Sequence[str]:
        """Raises `DnsFailure`."""
        if hop.domain and parse_address(hop.host) is not None:
            raise DnsFailure(hop.domain, f"its MX records lead to the address {hop.host}", temporary=False)
        if hop.host.startswith("/") and not hop.domain:
            return (SocketPath(hop.host),)
        return await self._shared.addresses(hop.host)

    def _without_resting(self, hop: NextHop, addresses: Sequence[str]) -> list[str]:
        if self._is_urgent:
            return list(addresses)
        able, why = [], None
        for address in addresses:
            trouble = self._shared.health.trouble(Place(address, hop.port))
            if trouble is None:
                able.append(address)
            else:
                why = trouble
        if why is not None and not able:
            self._outcomes.append(of_silence(hop.host, f"{hop.host} is left alone for a while: {why}"))
        return able

    # ------------------------------------------------------------------------------------- ourselves

    async def _is_among(self, equals: Sequence[NextHop], domain: str) -> bool:
        """Whether we are one of several hosts of one preference: then none of them is nearer than we are.

        RFC 5321 section 5.1. The addresses of a host that stands alone are looked at when it has its turn.
        """
        if len(equals) < 2 or not self._shared.settings.own.ports:
            return False
        asked: list[Deferred[Any]] = [Deferred.fromCoroutine(self._is_ourselves(hop)) for hop in equals]
        is_among = any(await gatherResults(asked, consumeErrors=True))
        if is_among:
            self._turn_back(domain)
        return is_among

    async def _is_ourselves(self, hop: NextHop) -> bool:
        try:
            addresses = await self._shared.lookups.run(self._run.destination, lambda: self._addresses(hop))
        except DnsFailure:
            return False  # nobody can reach it, and so cannot we
        return self._are_ours(hop, addresses)

    def _are_ours(self, hop: NextHop, addresses: Sequence[str]) -> bool:
        return bool(hop.domain) and any(self._shared.settings.own.answer(address, hop.port) for address in addresses)

    def _turn_back(self, domain: str) -> None:
        """No host of a domain is left but ourselves, and those that are no nearer (RFC 5321 section 5.1)."""
        self._looped.add(domain)
        if domain not in self._begun:
            self._outcomes.append(loop_of(domain))

    # --------------------------------------------------------------------------- one host, its addresses

    async def _try_addresses(
        self, hop: NextHop, policy: TLSPolicy, addresses: Sequence[str], source: IQueueRun
    ) -> tuple[ScreenedRun | None, set[str]]:
        """Make a connection to one of these, and a second one without TLS where the policy allows that.

        Also tells which of the addresses have had their turn.
        """
        end = await self._connect(hop, policy, addresses, source)
        if end is None:
            return None, set()  # while we waited for our turn somebody has found out something about the first one
        self._tried += len(end.used)
        used = set(end.used)
        if end.tls_failed:
            if mode_of(policy, hop) == "opportunistic":
                again = await self._connect(hop, _IN_PLAINTEXT, [end.address], source)
                end = again or end
            else:
                self._met_policy |= policy.source is not PolicySource.CONFIGURED
        if not end.took_mail:
            for delivery in reversed(end.screened.aside):
                source.release(delivery)
            self._outcomes.append(end.outcome)
            _log.debug(
                "{destination}: {host} at {address} took nothing: {text}",
                destination=str(self._run.destination),
                host=hop.host,
                address=end.address,
                text=end.outcome.text,
            )
            return None, used
        self._last = (hop.host, policy.proves_the_host)
        return end.screened, used

    async def _connect(
        self, hop: NextHop, policy: TLSPolicy, addresses: Sequence[str], source: IQueueRun
    ) -> LineEnd | None:
        """Wait for our turn and for a slot, then hold a session. None where the first address rests by then."""
        shared = self._shared
        places = [Place(address, hop.port) for address in addresses]
        line = Line(hop, policy, shared, source, places[0], urgent=self._is_urgent)
        if not await line.admitted():
            return None
        try:
            slot = await shared.slots.acquire(hop.source_address, shared.health.standing(places))
            try:
                if not self._is_urgent and shared.health.trouble(places[0]) is not None:
                    return None
                return await line.hold(addresses, slot)
            except TLSSettingsError as error:
                return line.unusable(of_configuration(error), addresses)
            finally:
                slot.release()
        finally:
            line.leave_door()


def equals_of(hops: Sequence[NextHop], number: int) -> Sequence[NextHop]:
    """The hosts of one MX with the preference of this one, where it is the first of them; else none."""
    place = hops[number].domain, hops[number].preference
    if not place[0] or (number and (hops[number - 1].domain, hops[number - 1].preference) == place):
        return ()
    return list(takewhile(lambda hop: (hop.domain, hop.preference) == place, hops[number:]))
