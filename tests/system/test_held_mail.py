"""A provider as a process: mail that is held, who may send it there, ETRN, and what a restart leaves."""

import smtplib
import sys

import pytest

from mailsuite.accounts.customers import CustomersFile
from mailsuite.mail.customer import Customer
from tests.instance import PASSWORD
from tests.peers.process import LOOPBACK, wait_until

HERE = [f"{LOOPBACK}/32"]


@pytest.fixture
def site(tmp_path, instances):
    """The customer's own server, not started at first."""
    server = instances("ship.test")
    server.stop()
    return server


@pytest.fixture
def provide(instances, site):
    """Start a provider for the site."""

    def provide(settings=None, **customer):
        ship = {"name": "ship", "domains": ["ship.test"], "password": PASSWORD, "networks": HERE, **customer}
        ship.setdefault("next_hop", f"{LOOPBACK}:{site.smtp_port}")
        return instances("provider.test", customers=[ship], settings=settings)

    return provide


def send(server, *recipients, messages=1):
    with smtplib.SMTP(LOOPBACK, server.smtp_port, "client.test", timeout=10) as client:
        for number in range(messages):
            client.sendmail("alice@provider.test", recipients, f"Subject: {number}\r\n\r\nhello\r\n")


def etrn(server, node="ship.test"):
    with smtplib.SMTP(LOOPBACK, server.smtp_port, "client.test", timeout=10) as client:
        client.ehlo()
        assert client.has_extn("etrn")
        return client.docmd("ETRN", node)


def test_mail_is_held_over_a_restart_until_it_is_asked_for(provide, site) -> None:
    provider = provide({"on_demand.etrn_interval": 0})
    send(provider, "alice@ship.test", messages=3)
    assert etrn(provider)[0] == 253  # nobody is there: nothing is counted, everything stays
    wait_until(lambda: "connection refused" in provider.log())
    provider.stop()
    provider.start()
    site.start()
    assert b"3 pending" in etrn(provider)[1]
    site.wait_for("alice", 3)
    wait_until(lambda: etrn(provider)[0] == 251)


def test_mail_of_a_customer_that_is_taken_away_waits_for_it_over_restarts(provide, site) -> None:
    provider = provide({"on_demand.etrn_interval": 0, "retry.expire": 0})
    send(provider, "alice@ship.test", messages=3)
    customers, provider.customers = provider.customers, ()
    provider.routes = [{"domain": "*", "next_hop": f"{LOOPBACK}:{site.smtp_port}"}]  # where nobody is
    for restarts in (1, 2):  # without the customer, and with it again
        provider.stop()
        provider.configure()
        provider.start()
        send(provider, "alice@provider.test")
        provider.wait_for("alice", restarts)  # and nothing came back
        provider.customers = customers
    site.start()
    assert b"3 pending" in etrn(provider)[1]
    site.wait_for("alice", 3)
    assert len(provider.messages("alice")) == 2


def test_strangers_learn_at_once_who_is_not_there(provide) -> None:
    program = "import sys; sys.exit(sys.argv[1] != 'alice@ship.test')"
    provider = provide(recipients="command", recipients_command=[sys.executable, "-c", program])
    send(provider, "alice@ship.test")
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(provider, "nobody@ship.test")
    assert refused.value.recipients["nobody@ship.test"][0] == 550


def test_the_customers_own_server_is_asked(provide, site) -> None:
    provider = provide(recipients="ask")
    site.start()
    send(provider, "alice@ship.test")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(provider, "nobody@ship.test")
    site.stop()
    send(provider, "stranger@ship.test")  # nobody can tell


def test_a_quota_refuses_for_now(provide) -> None:
    provider = provide(max_messages=5)
    send(provider, "alice@ship.test", messages=5)
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(provider, "alice@ship.test")
    assert refused.value.recipients["alice@ship.test"][0] == 452


def test_mail_that_nobody_collects_goes_back(provide) -> None:
    provider = provide()
    provider.stop()
    with CustomersFile(provider.data / "accounts.db") as customers:  # which takes less than an operator may say
        customers.add_customer(Customer("boat", ("boat.test",), hold_time=1.0), None)
    provider.start()
    send(provider, "alice@boat.test")
    provider.stop()
    provider.start()
    [report] = provider.wait_for("alice", 1)
    assert "not collected" in report.as_string()
