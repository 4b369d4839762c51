"""How reports travel: by an agent of their own, whatever is wrong with TLS, counted nowhere, for a day."""

from dataclasses import replace

import pytest
from zope.interface.verify import verifyObject

from mailsuite.delivery.pacing import Pacing
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.routes import Route, Routes
from mailsuite.delivery.tls_reports.routing import (
    TLS_REPORTS,
    ReportRules,
    Undemanding,
    aside,
    keep_aside,
    report_agent,
)
from mailsuite.interfaces import Barred, IDeliveryAgent, ITLSPolicies
from mailsuite.mail.address import Address
from mailsuite.mail.queue import Result
from mailsuite.mail.route import MAILDIR, RELAY, Destination, NextHop, Target
from mailsuite.mail.tls_policy import TLSFailureKind
from tests.delivery.agents.test_relay import (
    BYE,
    HANDSHAKE_FAILS,
    MAIL,
    STARTTLS,
    UP_WITH_TLS,
    FakeDialer,
    Run,
    agent_for,
)
from tests.delivery.agents.test_relay_policies import A, Policies
from tests.delivery.tls_policies.fakes import now
from tests.session.scripted import finish, make_delivery

READER = Address("reports", "example.net")
BARRED = Barred("the policy does not name a.example", TLSFailureKind.VALIDATION)
REPORTING = Destination(TLS_REPORTS, "example.net")


def test_what_would_be_relayed_goes_aside_and_nothing_else():
    target = Target(READER, Destination(RELAY, "example.net"))
    assert aside(target) == replace(target, destination=REPORTING)
    target = Target(READER, Destination(MAILDIR))
    assert aside(target) == target


def test_reports_that_wait_stay_aside():
    rerouted = keep_aside(lambda address, _present, _sender: Destination(RELAY, address.domain))
    assert rerouted(READER, REPORTING, None) == REPORTING
    assert rerouted(READER, Destination(RELAY, "old"), None) == Destination(RELAY, "example.net")
    to_us = keep_aside(lambda _address, _present, _sender: Destination(MAILDIR))
    assert to_us(READER, REPORTING, None) == Destination(MAILDIR)


@pytest.mark.parametrize(
    ("domain", "tls", "mode"),
    [
        ("example.net", "verified", "opportunistic"),
        ("example.net", "dane", "opportunistic"),
        ("example.net", "none", "none"),
        ("example.net", "implicit", "implicit"),
        ("", "verified", "verified"),
    ],
)
def test_nothing_is_demanded_but_of_hosts_of_the_configuration(domain, tls, mode):
    policies = Undemanding()
    assert verifyObject(ITLSPolicies, policies)
    assert now(policies.policy(domain, NextHop("a.example", tls=tls, domain=domain))).mode == mode


def test_report_is_delivered_where_mail_is_not_and_nobody_counts():
    policies = Policies(a_example=BARRED)
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, HANDSHAKE_FAILS], UP_WITH_TLS + MAIL + BYE])
    relay = agent_for(dialer, replace(A, tls="verified"), policies=policies)
    agent = report_agent(relay)
    assert verifyObject(IDeliveryAgent, agent)
    assert (agent.name, relay.name) == (TLS_REPORTS, RELAY)
    run = Run(make_delivery("q0"), destination=REPORTING)
    finish(agent.deliver(run))
    assert run.results("q0") == ["relayed"]
    assert (policies.asked, policies.results) == ([], [])
    mail = Run(make_delivery("q0"))
    finish(relay.deliver(mail))
    assert mail.failed.result is Result.DEFERRED


def test_rules_are_those_of_the_destination_for_a_day():
    routes = Routes(
        [Route("example.net", like=NextHop(""), retry=RetrySchedule(first=7.0), pacing=Pacing(most=3))],
        retry=RetrySchedule(first=9.0, lifetime=3600.0),
    )
    rules = ReportRules(routes)
    assert rules.retry(REPORTING) == RetrySchedule(first=7.0, lifetime=86400.0)
    assert rules.pacing(REPORTING) == Pacing(most=3)
    assert rules.retry(Destination(TLS_REPORTS, "example.org")) == RetrySchedule(first=9.0, lifetime=3600.0)
    relayed = Destination(RELAY, "example.net")
    assert (rules.retry(relayed), rules.pacing(relayed)) == (routes.retry(relayed), routes.pacing(relayed))
    local = Destination(MAILDIR)
    assert rules.pacing(local) == routes.pacing(local)
