"""What the settings make of the reports on TLS, in a whole server."""

import gzip
import json
import re
import sqlite3
from contextlib import closing
from email import message_from_bytes
from email.policy import default

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsuite.config import Settings, SettingsError
from mailsuite.delivery.tls_reports import Book
from mailsuite.delivery.tls_reports.tally import DAY, Event, Policy
from mailsuite.embedding import Intake, smtp_factory
from mailsuite.interfaces import IRouter
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.tls_policy import PolicySource, TLSPolicy, TLSResult
from mailsuite.net.resolver import DnsFailure
from mailsuite.service.parts import Parts
from mailsuite.service.tls_reports import public_only
from mailsuite.wire.smtp.offer import Offer
from tests.delivery.tls_policies.fakes import now
from tests.net.nameserver import NameServer

EVENT = Event(0, "example.com", Policy("tlsa", ("3 1 1 ab",)), "starttls-not-supported", host="mx.example.com")
RESULT = TLSResult("example.com", TLSPolicy(source=PolicySource.DANE, text=("3 1 1 ab",)), "mx.example.com")


@implementer(IRouter)
class Everybody:
    """Takes mail for everybody."""

    async def resolve(self, recipient, submitter, *, trusted, sender=None, is_report=False):
        return (Target(recipient, self.destination(recipient)),)

    def destination(self, address, sender=None):
        return Destination("nowhere")

    def explain(self, address, sender=None):
        return ()


def settings_of(directory, **relay):
    return Settings.parse({"hostname": "mail.example", "data_directory": "data", "relay": relay}, "m.toml", directory)


def parts_of(directory, reactor, **relay):
    directory.joinpath("data").mkdir()
    return Parts(settings_of(directory, **relay), reactor, [].append)


def test_results_of_policies_are_counted_on_the_disk(reactor, run, tmp_path):
    parts = parts_of(tmp_path, reactor)
    run(parts.tls_reports.start())
    parts.tls_policies.note(RESULT)
    run(parts.tls_reports.stop())
    with closing(sqlite3.connect(tmp_path / "data" / "tls-reports.db")) as database:
        assert database.execute("SELECT domain, count FROM counts").fetchall() == [("example.com", 1)]


def test_reports_that_are_off_are_nowhere(reactor, run, tmp_path):
    parts = parts_of(tmp_path, reactor, tls_reports=False)
    assert parts.tls_reports is None
    parts.tls_policies.note(RESULT)
    run(parts.tls_policies.stop())
    assert not (tmp_path / "data" / "tls-reports.db").exists()


def test_report_of_yesterday_reaches_its_reader_as_signed_mail(reactor, run, tmp_path):
    """Through our own queue, by an agent of its own, to a host without TLS whose TLSA records demand it."""
    arrived = Deferred()

    async def take(received):
        arrived.callback(received)

    factory = smtp_factory(Offer("mx.example.com"), Everybody(), Intake(take, reactor), reactor)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    number = port.getHost().port
    names = NameServer(reactor)
    address, dns_port = names.start()
    names.zone = {
        ("_smtp._tls.example.com", "TXT"): [
            '_smtp._tls.example.com 60 TXT "v=TLSRPTv1; rua=mailto:reports@example.com"'
        ],
        ("example.com", "MX"): ["example.com 60 MX 10 mx.example.com."],
        ("mx.example.com", "A"): ["mx.example.com 60 A 127.0.0.1"],
        (f"_{number}._tcp.mx.example.com", "TLSA"): [f"_{number}._tcp.mx.example.com 60 TLSA 3 1 1 {'ab' * 32}"],
    }
    resolver = f"{address}:{dns_port}"
    parts = parts_of(tmp_path, reactor, resolver=resolver, port=number, dane="on", tls_reports_from="tls@mail.example")

    async def report():
        await parts.directory.refresh()
        await parts.customers.refresh()
        await parts.spool.start()
        await parts.tls_reports.start()
        parts.scheduler.startService()
        yesterday = int(reactor.seconds() // DAY) - 1
        await Book(tmp_path / "data" / "tls-reports.db", parts.in_thread).add([(EVENT._replace(day=yesterday), 3)])
        assert await parts.tls_reports.send_due() == 1
        assert await parts.tls_reports.send_due() == 0
        received = await arrived
        await parts.scheduler.stopService()
        await parts.tls_reports.stop()
        await parts.tls_policies.stop()
        await parts.validating.stop()
        await parts.spool.stop()
        return received

    received = run(report(), timeout=30)
    names.stop()
    port.stopListening()
    assert str(received.envelope.reverse_path) == "tls@mail.example"
    mail = message_from_bytes(received.content, policy=default)
    assert mail["TLS-Report-Domain"] == "example.com"
    assert " d=mail.example;" in " ".join(mail["DKIM-Signature"].split())
    _, attached = mail.iter_parts()
    [policy] = json.loads(gzip.decompress(attached.get_content()))["policies"]
    assert policy["failure-details"][0]["failed-session-count"] == 3
    with closing(sqlite3.connect(tmp_path / "data" / "tls-reports.db")) as database:
        assert database.execute("SELECT count(*) FROM counts").fetchone() == (0,)  # its connection is not counted


@pytest.mark.parametrize("address", ["reports", "reports@", "jörg@example.org"])
def test_sender_is_an_address_in_ascii(tmp_path, address):
    with pytest.raises(SettingsError, match=re.escape("relay.tls_reports_from")):
        settings_of(tmp_path, tls_reports_from=address)


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (["192.168.1.1", "10.0.0.1", "127.0.0.1", "::1", "fe80::1", "169.254.169.254"], None),
        (["10.0.0.1", "9.9.9.9", "2620:fe::fe"], ["9.9.9.9", "2620:fe::fe"]),
    ],
)
def test_web_servers_of_strangers_are_not_on_our_networks(found, left):
    async def addresses(_host):
        return found

    if left is None:
        with pytest.raises(DnsFailure):
            now(public_only(addresses)("r.example.com"))
    else:
        assert now(public_only(addresses)("r.example.com")) == left
