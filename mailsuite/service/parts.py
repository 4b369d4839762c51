"""The parts of the server that are built once, from the settings alone. Nothing runs yet, nothing is on the disk."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from mailsuite.accounts.customer_snapshot import Customers
from mailsuite.accounts.portal import make_authenticator
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.accounts.refusals import Refusals
from mailsuite.accounts.snapshot import Directory
from mailsuite.config import Settings
from mailsuite.delivery.bounces import ReportSettings
from mailsuite.delivery.managing import Managing
from mailsuite.delivery.next_hops import NextHops
from mailsuite.delivery.on_demand.admission import Admission
from mailsuite.delivery.on_demand.holding import Holding
from mailsuite.delivery.on_demand.hops import HeldHops
from mailsuite.delivery.on_demand.provider import OnDemand
from mailsuite.delivery.on_demand.quota import Quota
from mailsuite.delivery.on_demand.recipients import Callouts, Commands, Recipients
from mailsuite.delivery.router import Router
from mailsuite.delivery.scheduler import Scheduler, SchedulerSettings
from mailsuite.delivery.tls_reports import ReportRules, keep_aside, report_agent
from mailsuite.interfaces import INextHops
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.tls_policy import TLSResult
from mailsuite.net.dialer import Dialer
from mailsuite.net.limits import ConnectionLimits
from mailsuite.net.resolver import Resolver, system_resolver
from mailsuite.net.timeouts import Timeouts
from mailsuite.service.agents import AgentParts, make_agents, make_relay_agent
from mailsuite.service.on_demand import configured_customers, on_demand_settings
from mailsuite.service.routes import (
    make_retry,
    make_rewriting,
    make_routes,
    name_servers,
    own_addresses,
    own_literals,
    own_names,
)
from mailsuite.service.tls_policies import make_client_tls, make_tls_policies, make_validating_resolver
from mailsuite.service.tls_reports import make_tls_reports
from mailsuite.session.checkpoints import Checkpoints
from mailsuite.session.loglines import LogLines
from mailsuite.spool.sqlite import SqliteSpool


class Parts:
    """Each part by its name. Raises `StartError`, `TLSSettingsError` for what is wrong with the settings.

    `lost` is told when the queue can be written no more, and the server must end.
    """

    def __init__(self, settings: Settings, reactor: Any, lost: Callable[[Exception], object]) -> None:
        self.settings = settings
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        chance = SystemRandom()

        # The network.
        self.log_lines = LogLines(reactor)
        self.limits = ConnectionLimits(settings.limits.connections, settings.limits.connections_per_address)
        limits = settings.limits
        self.timeouts = Timeouts(
            command=limits.command_time, data_block=limits.content_time, dead_line=limits.dead_line_time or None
        )
        names = system_resolver(reactor, name_servers(settings))
        self.resolver = Resolver(names, reactor, chance, own_names=own_names(settings))
        self.dialer = Dialer(reactor, timeouts=self.timeouts, resolver=self.resolver)
        self.client_tls = make_client_tls(settings, reactor.seconds)
        self.validating = make_validating_resolver(settings, reactor)

        # The accounts.
        reader = DirectoryReader(settings.path(settings.accounts.file))
        postmaster = settings.accounts.postmaster
        self.directory = Directory(
            reader,
            reactor,
            self.in_thread,
            delimiter=settings.accounts.subaddress_delimiter,
            postmaster=None if postmaster is None else parse_mailbox(postmaster),
        )
        customers = configured_customers(settings)
        self.customers = Customers(
            reader,
            reactor,
            self.in_thread,
            customers,
            default_domain=settings.accounts.default_domain,
            delimiter=settings.accounts.subaddress_delimiter,
        )
        self.authenticator = make_authenticator(
            reader, reactor, self.in_thread, default_domain=settings.accounts.default_domain, customers=customers
        )

        # The queue, and what becomes of it.
        self.spool = SqliteSpool(
            settings.path(settings.spool.directory),
            reactor,
            spill=settings.spool.large,
            reserve=settings.spool.reserve,
            history_time=settings.on_demand.history_time,
            journal_time=settings.spool.history_time,
            partials_time=settings.on_demand.checkpoint_time,
            process=settings.spool.process,
            lost=lost,
        )
        self.checkpoints = Checkpoints()
        self.quota = Quota(self.customers, self.spool, self.reactor)
        self.refusals = Refusals(self.authenticator.find, self.spool, reactor)
        self.commands = Commands(self.in_thread)
        routes = self.routes = make_routes(settings)
        relayed = NextHops(routes, self.resolver, own_names(settings), own_addresses(settings))
        self.next_hops = next_hops = HeldHops(self.customers, relayed, routes)
        self.rewriting = make_rewriting(settings, self.seconds)
        self.router = Router(
            self.directory,
            routes,
            local_agent=settings.local.agent,
            literals=own_literals(settings),
            held=self._admission(next_hops),
            rewriting=self.rewriting,
        )
        addresses = self.resolver.addresses
        self.tls_reports = make_tls_reports(
            settings, reactor, self.validating, addresses, self.in_thread, self.spool, self.router, chance.random
        )
        note = _uncounted if self.tls_reports is None else self.tls_reports.note
        self.tls_policies = make_tls_policies(
            settings, reactor, self.validating, addresses, self.in_thread, note, chance.random
        )
        lent = AgentParts(settings, reactor, self.in_thread)
        relay = make_relay_agent(
            settings, lent, next_hops, self.resolver, self.dialer, self.client_tls, self.tls_policies
        )
        rerouted = keep_aside(self.router.rerouted)
        self.scheduler = Scheduler(
            self.spool,
            [*make_agents(settings, lent), relay, report_agent(relay)],
            self.router,
            reactor,
            hostname=settings.hostname,
            chance=chance.random,
            settings=SchedulerSettings(
                retry=make_retry(settings),
                grace=settings.stop_time,
                rules=ReportRules(routes),
                total_rate=settings.relay.total_rate,
                reports=ReportSettings(
                    double_bounces=settings.reports.double_bounces == "postmaster",
                    return_size=settings.reports.return_size,
                ),
            ),
            reroute=rerouted,
        )
        self.wake_hosts = relay.wake
        self.managing = Managing(self.spool, self.scheduler, rerouted, wake_hosts=relay.wake)

        # What is held for customers.
        self.on_demand = OnDemand(
            self.customers,
            self.router,
            self.spool,
            self.scheduler.settlements,
            reactor,
            relay=relay,
            hurry=self.scheduler.hurry,
            settings=on_demand_settings(settings),
        )
        self.holding = Holding(
            self.customers,
            self.router,
            self.spool,
            self.scheduler.settlements,
            reactor,
            hostname=settings.hostname,
        )

    def _admission(self, next_hops: INextHops) -> Admission:
        callouts = Callouts(next_hops, self.dialer, self.reactor, self.settings.hostname)
        return Admission(self.customers, self.quota, Recipients(self.customers, self.commands, callouts))

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run blocking work in the reactor's thread pool."""
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *args)


def _uncounted(_result: TLSResult) -> None:
    """Nobody is told what comes of TLS."""
