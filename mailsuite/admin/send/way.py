"""The way of a test message: routed as the server would, relayed by the server's own agent, each step told.

It stands in no queue: what cannot be sent now is told, and not tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from mailsuite.admin.queue.rows import place
from mailsuite.admin.send.around import WatchedDialer, WatchedDNS, WatchedHops, WatchedPolicies
from mailsuite.admin.send.delivery import OneRun
from mailsuite.admin.send.message import body_of
from mailsuite.admin.send.steps import Teller
from mailsuite.admin.send.watching import Trial
from mailsuite.config import Settings
from mailsuite.delivery.agents.relay import RelayAgent, RelayAgentSettings
from mailsuite.delivery.next_hops import NextHops
from mailsuite.delivery.on_demand.hops import HeldHops
from mailsuite.interfaces import INextHops, Refused
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.options import NO_WISHES, PLAIN, MessageOptions, RecipientOptions
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Result
from mailsuite.mail.route import HOLD, RELAY, Destination, NextHop, Target
from mailsuite.mail.status import EnhancedStatus
from mailsuite.net.dialer import Dialer
from mailsuite.net.resolver import Resolver, system_resolver
from mailsuite.net.timeouts import Timeouts
from mailsuite.service.endpoints import place_of
from mailsuite.service.routes import name_servers, optional_path, own_addresses, own_names, use_known_srs_secret
from mailsuite.service.tls_policies import make_client_tls, make_tls_policies, make_validating_resolver

if TYPE_CHECKING:
    from mailsuite.service.parts import Parts

# Somebody sits before it and waits.
_TIMEOUTS: Final = Timeouts(greeting=60.0, command=60.0, response=60.0, connect=15.0, handshake=20.0, closing=5.0)
_DNS_LIMIT: Final = 20.0
_QUEUE_ID: Final = "TEST"


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be sent, to whom. `server` is spoken to where it is there, whatever the routes say.

    With `dry_run` the recipient is named to the server, and then leave is taken.
    """

    sender: Address | None
    recipient: Address
    octets: bytes = field(repr=False)
    options: MessageOptions = PLAIN
    wishes: RecipientOptions = NO_WISHES
    server: NextHop | None = None
    dry_run: bool = False


class Way:
    """Sends errands. Raises `TLSSettingsError`, `StartError` for what is wrong with the settings."""

    def __init__(self, reactor: Any, settings: Settings, teller: Teller) -> None:  # noqa: ANN401 - the reactor
        self._reactor = reactor
        self._settings = settings
        self._teller = teller
        self._now: float = reactor.seconds()
        self._ca_file = optional_path(settings, settings.relay.ca_file)
        self._tls = make_client_tls(settings)
        names = system_resolver(reactor, name_servers(settings))
        resolver = Resolver(names, reactor, SystemRandom(), limit=_DNS_LIMIT, own_names=own_names(settings))
        self._dns = WatchedDNS(resolver, teller)
        self._dialer = Dialer(reactor, timeouts=_TIMEOUTS, resolver=resolver)
        self._policies = make_tls_policies(
            settings,
            reactor,
            make_validating_resolver(settings, reactor),
            resolver.addresses,
            self._in_thread,
            lambda _result: None,
            SystemRandom().random,
        )

    async def send(self, errand: Errand) -> Outcome:
        """Send it, and tell what it came to: of several targets, the worst. Raises `DirectoryUnavailable`."""
        if errand.server is not None:
            hop = errand.server
            destination = Destination(RELAY, f"[{hop.host}]:{hop.port}")
            self._teller.note("route", f"{hop.host} port {hop.port}, as you said")
            return await self._relay(errand, Target(errand.recipient, destination), _OneHop(hop))
        return await self._by_route(errand)

    async def close(self) -> None:
        """End what is still under way."""
        await self._policies.stop()

    async def _by_route(self, errand: Errand) -> Outcome:
        from mailsuite.service.parts import Parts

        parts = Parts(self._settings, self._reactor, lambda _error: None)
        use_known_srs_secret(self._settings, parts.rewriting)
        await parts.directory.refresh()
        await parts.customers.refresh()
        for sentence in parts.router.explain(errand.recipient, errand.sender):
            self._teller.note("route", sentence)
        try:
            targets = await parts.router.resolve(errand.recipient, None, trusted=True, sender=errand.sender)
        except Refused as refused:
            self._teller.wrong("route", f"this server itself would refuse the recipient: {refused.reply}")
            return Outcome.of_reply(refused.reply)
        outcomes = [await self._to_target(parts, errand, target) for target in targets]
        return max(outcomes, key=_gravity)

    async def _to_target(self, parts: Parts, errand: Errand, target: Target) -> Outcome:
        destination = target.destination
        rule = f": {target.rule}" if target.rule else ""
        self._teller.ok("route", f"{target.address} goes to {place(str(destination))}{rule}")
        if destination.agent != RELAY:
            text = (
                f"{target.address} {self._fate(destination)}; nothing is dialled: say --server {self._own_door()} to "
                "hand the message to this server"
            )
            self._teller.ok("outcome", text)
            return Outcome(Result.DELIVERED, EnhancedStatus(2, 0, 0), text)
        settings = self._settings
        found = NextHops(parts.routes, self._dns, own_names(settings), own_addresses(settings))
        return await self._relay(errand, target, HeldHops(parts.customers, found, parts.routes))

    def _fate(self, destination: Destination) -> str:
        """What would become of queued mail that goes there, and is not relayed."""
        if destination.agent == HOLD:
            return f"would be held here, for {destination.name}"
        if destination.agent == self._settings.local.agent:
            return "would be delivered here"
        return f"would be handed to the agent {place(str(destination))}"

    def _own_door(self) -> str:
        """Where this server takes mail, as far as that is known."""
        for listen in self._settings.listen:
            end = place_of(listen.endpoint)
            if listen.service == "smtp" and end.kind in ("tcp", "tcp6") and end.name.isdigit():
                anywhere = end.address is None or end.address.is_unspecified
                host = "127.0.0.1" if anywhere else end.interface
                return f"[{host}]:{end.name}" if ":" in host else f"{host}:{end.name}"
        return "HOST:PORT, with a listener of its,"

    async def _relay(self, errand: Errand, target: Target, hops: INextHops) -> Outcome:
        trial = Trial(holds_back=errand.dry_run)
        agent = RelayAgent(
            WatchedHops(hops, self._teller),
            WatchedDialer(self._dialer, self._teller, trial, now=self._now, ca_file=self._ca_file),
            self._tls,
            self._in_thread,
            RelayAgentSettings(self._settings.hostname, source_address=self._settings.relay.source_address),
            addresses=self._dns.addresses,
            clock=self._reactor,
            policies=WatchedPolicies(self._policies, self._teller),
        )
        run = OneRun(self._delivery(errand, target))
        await agent.deliver(run)
        outcome = run.outcome or Outcome(Result.DEFERRED, EnhancedStatus(4, 0, 0), "nothing came of it")
        if trial.is_over and trial.answer is not None:
            outcome = Outcome.of_reply(trial.answer, outcome.remote)
        self._tell(outcome, dry_run=trial.is_over)
        return outcome

    def _delivery(self, errand: Errand, target: Target) -> Delivery:
        reverse_path = target.reverse_path or errand.sender
        utf8 = not (target.address.is_ascii and (reverse_path is None or reverse_path.is_ascii))
        envelope = Envelope(reverse_path, body_of(errand.octets), smtputf8=utf8, options=errand.options)
        message = Message(_QUEUE_ID, envelope, len(errand.octets), self._now)
        recipient = Recipient(1, target.address, target.original, options=errand.wishes)
        return Delivery(message, target.destination, (recipient,), MemoryContent(errand.octets))

    def _tell(self, outcome: Outcome, *, dry_run: bool) -> None:
        said = f"{outcome.status} {outcome.text}"
        if outcome.remote is not None:
            said = f"{outcome.remote}: {said}"
        if outcome.result in (Result.RELAYED, Result.DELIVERED):
            self._teller.ok("outcome", f"it would be taken: {said}" if dry_run else f"{outcome.result.value}: {said}")
        elif outcome.result is Result.DEFERRED:
            self._teller.warn("outcome", f"not now, a queued message would be tried again: {said}")
        else:
            self._teller.wrong("outcome", f"refused for good, a queued message would go back to its sender: {said}")

    def _in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:  # noqa: ANN401 - any function
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)


@implementer(INextHops)
class _OneHop:
    """The one server that was named."""

    def __init__(self, hop: NextHop) -> None:
        self._hop = hop

    async def find(self, destination: Destination) -> Sequence[NextHop]:
        return (self._hop,)


def _gravity(outcome: Outcome) -> int:
    order = (Result.DELIVERED, Result.RELAYED, Result.DEFERRED, Result.HELD, Result.FAILED)
    return order.index(outcome.result)
