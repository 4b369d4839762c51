"""What the settings make of the reports on TLS, in a whole server."""

import re
import sqlite3
from contextlib import closing

import pytest

from mailsuite.config import Settings, SettingsError
from mailsuite.delivery.tls_reports import TLS_REPORTS
from mailsuite.mail.address import Address
from mailsuite.mail.route import RELAY, Destination
from mailsuite.mail.tls_policy import PolicySource, TLSPolicy, TLSResult
from mailsuite.net.resolver import DnsFailure
from mailsuite.service.parts import Parts
from mailsuite.service.tls_reports import public_only
from tests.delivery.tls_policies.fakes import now

RESULT = TLSResult("example.com", TLSPolicy(source=PolicySource.DANE, text=("3 1 1 ab",)), "mx.example.com")


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


@pytest.mark.parametrize("address", ["reports", "reports@", "jörg@example.org"])
def test_sender_is_an_address_in_ascii(tmp_path, address):
    with pytest.raises(SettingsError, match=re.escape("relay.tls_reports_from")):
        settings_of(tmp_path, tls_reports_from=address)


def test_reports_that_wait_stay_with_their_agent(reactor, tmp_path):
    parts = parts_of(tmp_path, reactor)
    waiting = Destination(TLS_REPORTS, "example.com")
    chosen = []

    async def reroute(choose):
        chosen.append(choose(Address("reports", "example.com"), waiting, None))
        chosen.append(choose(Address("reports", "example.com"), Destination(RELAY, "old"), None))
        return 0

    parts.scheduler._spool.reroute = reroute
    now(parts.scheduler.reroute())
    assert chosen == [waiting, Destination(RELAY, "example.com")]


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
