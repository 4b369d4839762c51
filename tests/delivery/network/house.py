"""A server of ours in the test network: all that routes and relays, made as the service makes it.

The spool lives in memory. It counts: which message arrived where and how often, what its senders were told.
"""

import random
import re
from collections import Counter
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred

from mailsuite.config import Settings
from mailsuite.delivery.bounces import ReportSettings
from mailsuite.delivery.next_hops import NextHops
from mailsuite.delivery.router import Router
from mailsuite.delivery.scheduler import Scheduler, SchedulerSettings
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.selection import EVERYTHING
from mailsuite.net.dialer import Dialer
from mailsuite.net.resolver import Resolver, system_resolver
from mailsuite.net.tls import ClientTLS
from mailsuite.service.agents import AgentParts, make_relay_agent
from mailsuite.service.routes import make_retry, make_routes, name_servers, own_addresses, own_names
from mailsuite.spool.memory import MemorySpool
from tests.delivery.fakes import FakeDirectory
from tests.reports import read_report

SENDER = "boss@office.test"


class House:
    """`network` has the sockets, the names and the time; `tables` is a configuration beside its name server."""

    def __init__(self, network, **tables):
        relay = {"resolver": f"127.0.0.1:{network.names.port}", "port": network.hops.port, "tls": "none"}
        tables = {"hostname": "mail.home.test", **tables, "relay": {**relay, **tables.get("relay", {})}}
        settings = Settings.parse(tables, "the test", Path("/nonexistent"))
        clock, chance = network.reactor, random.Random(5)
        self.network = network
        self.spool = MemorySpool(clock, journal_time=365 * 86400.0)
        self.resolver = Resolver(
            system_resolver(clock, name_servers(settings), maybeDeferred), clock, chance, own_names=own_names(settings)
        )
        routes = make_routes(settings)
        self.router = Router(FakeDirectory({"home.test"}), routes)
        self.agent = make_relay_agent(
            settings,
            AgentParts(settings, clock, maybeDeferred),
            NextHops(routes, self.resolver, own_names(settings), own_addresses(settings)),
            self.resolver,
            Dialer(clock, resolver=self.resolver),
            ClientTLS(None),
        )
        self.scheduler = Scheduler(
            self.spool,
            [self.agent],
            self.router,
            clock,
            hostname=settings.hostname,
            chance=chance.random,
            settings=SchedulerSettings(
                make_retry(settings), rules=routes, total_rate=settings.relay.total_rate, reports=ReportSettings()
            ),
        )
        self.sent = []  # its number is the index
        self.errors = []
        self.scheduler.startService()
        network.live(0)

    def stop(self):
        """Stop, also where something is under way; nothing is left."""
        stopped = self.scheduler.stopService()
        self.network.live(200, until=lambda: stopped.called)
        assert stopped.called
        assert self.agent.connections == 0

    # ------------------------------------------------------------------------------------------------ mail

    def send(self, *recipients, sender=SENDER, size=0):
        """Queue a message; return its number."""
        number = len(self.sent)
        self.sent.append(recipients)
        content = (
            b"X-Number: %d;\r\nSubject: %d\r\n\r\nbody\r\n" % (number, number) + b"x" * 70 * (size // 70) + b"\r\n"
        )
        Deferred.fromCoroutine(self._queue(recipients, sender, content)).addErrback(self.errors.append)
        return number

    async def _queue(self, recipients, sender, content):
        targets = []
        for recipient in recipients:
            targets += await self.router.resolve(parse_mailbox(recipient), None, trusted=True)
        draft = self.spool.draft()
        draft.write(content)
        await draft.commit(Envelope(parse_mailbox(sender)), targets)

    def queued(self):
        """What is in the queue, by recipient: attempts and the last words."""
        messages = []
        self.spool.select(EVERYTHING, 100_000).addCallback(messages.extend)
        return {
            str(recipient.address): (recipient.attempts, recipient.last_text or "")
            for message in messages
            for recipient in message.recipients
        }


def copies(*servers):
    """How often each message was taken, by number; reports are not among them."""
    return Counter(
        int(found.group(1))
        for server in servers
        for content in server.accepted
        if b"multipart/report" not in content and (found := re.search(rb"^X-Number: (\d+);\r$", content, re.MULTILINE))
    )


def reports(server):
    """The reports that a server has got, read."""
    return [read_report(content) for content in server.accepted if b"multipart/report" in content]
