"""A turn from end to end: the provider's session and the customer's, on connections in memory."""

from dataclasses import replace

import pytest
from zope.interface.verify import verifyObject

from mailsuite.interfaces import IAuthenticator, IOnDemand, ITurn
from mailsuite.net.tls import ClientTLS, ServerTLS
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.commands import Atrn
from tests.net.authority import Authority
from tests.net.support import Side
from tests.session.scripted import make_delivery
from tests.session.turning import (
    LOGIN,
    PROVIDER,
    SHIP,
    Accounts,
    CustomerSite,
    FakeOnDemand,
    FakeTurn,
    Line,
    deliveries,
    provider_door,
)


def test_fakes_keep_the_interfaces():
    assert verifyObject(IOnDemand, FakeOnDemand())
    assert verifyObject(ITurn, FakeTurn(SHIP, ()))
    assert verifyObject(IAuthenticator, Accounts())


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5, 120])
def test_turn_of_some_messages(count, chunking, piece):
    if count > 100 and piece == 1:
        piece = 3
    site = CustomerSite(chunking=chunking)
    line = Line(FakeOnDemand(deliveries(count)), site)
    line.carry(piece=piece)
    assert site.received == [f"q{number}" for number in range(count)]
    assert line.turn.ends == [None]
    assert set(line.turn.run.settled) == set(site.received)
    line.check_accounts()
    # Both sides have come to their ends: nobody has failed, and nobody was cut off.
    assert line.provider.over == line.customer.over == [None]
    assert line.said("P").count(b"QUIT\r\n") == 1
    assert line.said("C").endswith(b"221 2.0.0 Closing the channel\r\n")


def test_customer_serves_without_what_belongs_to_the_other_direction():
    line = Line(FakeOnDemand(deliveries(1)), CustomerSite())
    line.carry()
    offered = line.said("C").partition(b"220 ship")[2]
    assert b"PIPELINING" in offered
    for keyword in (b"AUTH", b"STARTTLS", b"ETRN", b"ATRN", b"TURN"):
        assert keyword not in offered


def test_customer_without_pipelining_is_sent_one_command_after_the_other():
    on_demand = FakeOnDemand(deliveries(3), replace(SHIP, pipelining=False))
    line = Line(on_demand, CustomerSite(chunking=False))
    line.carry()
    commands = [data for who, data in line.transcript if who == "P" and b"MAIL FROM" in data]
    assert [data.count(b"\r\n") for data in commands] == [1, 1, 1]
    assert line.provider.conversation.line_by_line
    assert not line.customer.conversation.line_by_line
    assert line.turn.ends == [None]


def test_trace_names_the_provider_as_it_was_dialled():
    site = CustomerSite()
    Line(FakeOnDemand(deliveries(1)), site).carry()
    [message] = site.spool.messages
    assert message.content.startswith(
        f"Received: from {PROVIDER} ({PROVIDER} [192.0.2.1])\r\n\tby ship.example.org with ESMTP\r\n".encode()
    )


@pytest.mark.parametrize("implicit", [False, True])
def test_tls_outlasts_the_turn(implicit, tmp_path):
    """There is one handshake, and the customer that was TLS's client serves below it (RFC 2645 section 5.3)."""
    authority = Authority(tmp_path)
    server_tls = ServerTLS(*authority.issue(PROVIDER))
    client_tls = ClientTLS(authority.file).for_host(PROVIDER, "verified")
    on_demand, site = FakeOnDemand(deliveries(3)), CustomerSite()
    if implicit:
        line = Line(on_demand, site, implicit=(server_tls, client_tls))
    else:
        site.tls = client_tls
        door = provider_door(on_demand, tls=lambda: server_tls)
        line = Line(on_demand, site, replace(door, offer=replace(door.offer, starttls=True, mechanisms=())))
    line.carry()
    assert line.turn.ends == [None]
    assert site.received == ["q0", "q1", "q2"]
    assert b" with ESMTPS (TLSv1.3 " in site.spool.messages[0].content
    for secret in (b"MAIL FROM", b"QUIT"):
        assert secret not in line.said("P")
    for secret in (b"ATRN", b"220 ship"):
        assert secret not in line.said("C")


def test_refused_and_deferred_messages_do_not_stop_the_turn():
    site = CustomerSite()
    held = [
        make_delivery("q0", "nobody@ship.example.org"),
        make_delivery("q1", "later@ship.example.org"),  # 452 4.2.2
        make_delivery("q2", "anna@elsewhere.example"),  # not what was asked for
        *deliveries(1)[:1],
    ]
    held[3] = replace(held[3], message=replace(held[3].message, queue_id="q3"))
    line = Line(FakeOnDemand(held), site)
    line.carry()
    assert [line.turn.run.results(queue_id) for queue_id in ("q0", "q1", "q2", "q3")] == [
        ["failed"],
        ["delayed"],
        ["delayed"],  # it stays with the provider
        ["relayed"],
    ]
    assert [str(line.turn.run.settled[queue_id][0].status) for queue_id in ("q0", "q1", "q2")] == [
        "5.1.1",
        "4.2.2",
        "4.7.1",
    ]
    assert line.turn.ends == [None]


def test_turn_is_atrn_for_all_domains():
    """TURN has no keyword and no client of ours says it: here it is said by hand."""
    on_demand = FakeOnDemand(deliveries(1))
    core, session = provider_door(on_demand).open()
    side = Side(session, core)
    side.receive(LOGIN + b"TURN\r\n220 ship.example.org\r\n")
    assert side.wire.sent.endswith(b"250 2.0.0 OK, now reversing the connection\r\nEHLO odmr.example.net\r\n")
    assert on_demand.asked == [("ship", (), "192.0.2.1")]
    side.lose()
    assert len(on_demand.turns[0].ends) == 1


def test_octets_behind_atrn_go_to_the_client():
    """A customer may be in a hurry with its greeting."""
    on_demand = FakeOnDemand(deliveries(1))
    core, session = provider_door(on_demand).open()
    side = Side(session, core)
    side.receive(LOGIN + b"ATRN ship.example.org\r\n220 ship.example.org ESMTP\r\n")
    assert side.wire.sent.endswith(b"250 2.0.0 OK, now reversing the connection\r\nEHLO odmr.example.net\r\n")
    side.receive(b"250 ship.example.org\r\n")
    assert side.wire.sent.endswith(b"MAIL FROM:<ann@example.org>\r\n")


def test_octets_behind_the_positive_answer_go_to_the_server():
    """A provider may be in a hurry with its EHLO, though it should have waited for the greeting."""
    site = CustomerSite()
    side = Side(site.pull, SmtpClientCore())
    side.receive(b"220 odmr.example.net\r\n")
    side.receive(b"250-odmr.example.net\r\n250-AUTH PLAIN\r\n250 ATRN\r\n")
    side.receive(b"235 2.7.0 ok\r\n")
    side.receive(b"250 2.0.0 OK\r\nEHLO odmr.example.net\r\nMAIL FROM:<ann@example.org>\r\n")
    after = side.wire.sent.partition(b"ATRN\r\n")[2]
    assert after.startswith(b"220 ship.example.org ESMTP mailsuite\r\n250-ship.example.org greets odmr.example.net\r\n")
    assert after.endswith(b"250 2.1.0 Sender OK\r\n")


def test_helo_will_do_at_the_customers():
    site = CustomerSite()
    core, session = site.door.open()
    side = Side(session, core)
    side.receive(
        b"HELO old.example.net\r\nMAIL FROM:<>\r\nRCPT TO:<bob@Ship.Example.ORG>\r\nDATA\r\nSubject: q0\r\n\r\n.\r\n"
    )
    assert side.wire.sent.startswith(b"220 ship.example.org ESMTP mailsuite\r\n250 ship.example.org\r\n")
    assert b" with SMTP\r\n" in site.spool.messages[0].content
    assert site.received == ["q0"]


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"AUTH PLAIN AHNoaXAAc2VjcmV0", b"502"),
        (b"STARTTLS", b"502"),
        (b"ATRN", b"502"),
        (b"TURN", b"502"),
        (b"ETRN ship.example.org", b"500"),
    ],
)
def test_customer_cannot_be_turned_again(command, reply):
    core, session = CustomerSite().door.open(secure=True)
    side = Side(session, core)
    side.receive(b"EHLO odmr.example.net\r\n" + command + b"\r\n")
    assert side.wire.sent.splitlines()[-1].startswith(reply)


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("bob@ship.example.org", b"250 "),
        ("bob@SHIP.example.org", b"250 "),
        ("nobody@ship.example.org", b"550 5.1.1 "),
        ("anyone@crew.example.org", b"250 "),  # it is not local there: relayed onward
        ("anyone@bücher.example", b"250 "),
        ("anyone@xn--bcher-kva.EXAMPLE", b"250 "),
        ("postmaster", b"450 4.7.1 "),
        ("postmaster@example.net", b"450 4.7.1 "),
        ("bob@sub.ship.example.org", b"450 4.7.1 "),
        ("bob@elsewhere.example", b"450 4.7.1 "),
    ],
)
def test_only_the_domains_that_were_asked_for_are_taken(recipient, reply):
    site = CustomerSite()
    domains = frozenset({*SHIP.domains, "xn--bcher-kva.example"})
    core, session = replace(site.door, domains=domains).open()
    side = Side(session, core)
    side.receive(f"EHLO odmr.example.net\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<{recipient}>\r\n".encode())
    assert side.wire.sent.splitlines()[-1].startswith(reply)


def test_customer_of_several_domains_asks_for_one():
    on_demand = FakeOnDemand(deliveries(1))
    line = Line(on_demand, CustomerSite(Atrn(("ship.example.org",))))
    line.carry()
    assert on_demand.asked == [("ship", ("ship.example.org",), "192.0.2.1")]
    assert line.turn.ends == [None]
