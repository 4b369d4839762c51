"""Two whole servers: what is submitted to one is relayed to the other, waits for it, or comes back."""

from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.instance import Instance, parse
from tests.peers.process import LOOPBACK, wait_until

Start = Callable[..., Instance]

TEXT = b"Subject: %b\r\nMessage-ID: <1@a.test>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\r\n.\r\nTsch\xc3\xbcss\r\n"


def submit(server: Instance, subject: str, *recipients: str, user: str = "alice") -> None:
    with server.client(user) as client:
        content = TEXT % subject.encode()
        assert client.sendmail(server.address(user), recipients, content, mail_options=["BODY=8BITMIME"]) == {}


def route_to(server: Instance, **more: Any) -> dict[str, Any]:
    return {"domain": server.domain, "next_hop": f"{LOOPBACK}:{server.smtp_port}", "tls": "required", **more}


class Pair(NamedTuple):
    a: Instance
    b: Instance


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers for tests that restart none: a.test relays to b.test by SMTP, and to its second domain by LMTP."""
    directory = tmp_path_factory.mktemp("pair")
    b = Instance(directory / "b.test", "b.test", users=["bob"])
    with b.accounts() as accounts:
        accounts.add_domain("lmtp.test")
        for user in ("bob", "carol"):
            accounts.add_user(f"{user}@lmtp.test", None)
    over_lmtp = {"domain": "lmtp.test", "next_hop": f"{LOOPBACK}:{b.lmtp_port}", "lmtp": True}
    users = ["alice", "dave", "erin", "frank"]
    a = Instance(directory / "a.test", "a.test", users=users, routes=[route_to(b, relay=True), over_lmtp])
    with a.accounts() as accounts:
        accounts.add_alias("sales@a.test", ["bob@b.test", "frank@a.test"])
    with a, b:
        yield Pair(a, b)
        a.wait_until_drained()
        b.wait_until_drained()
    a.check_log()
    b.check_log()


def wait_for_files(directory: Path) -> list[Path]:
    wait_until(lambda: directory.exists() and list(directory.iterdir()), why=lambda: f"nothing in {directory}")
    return list(directory.iterdir())


def recipient_of(report: EmailMessage) -> Any:
    """Return the fields of the one recipient that a report is about."""
    _, status, _ = report.iter_parts()
    _, of_recipient = status.get_payload()
    return of_recipient


@pytest.fixture
def stopped(tmp_path: Path) -> Instance:
    """The second server, with bob's mailbox, not started yet."""
    return Instance(tmp_path / "b.test", "b.test", users=["bob"])


def test_relayed_over_starttls(pair: Pair) -> None:
    a, b = pair
    submit(a, "relayed", "bob@b.test")
    message = b.find("relayed", "bob")
    octets = bytes(message)
    assert octets.startswith(b"Return-Path: <alice@a.test>\nDelivered-To: bob@b.test\nReceived: from mail.a")
    assert octets.endswith(b"\n\n.\nTsch\xc3\xbcss\n")
    assert len(message.get_all("Return-Path")) == 1
    last, first = message.get_all("Received")
    assert last.startswith("from mail.a.test ([127.0.0.1])")
    assert "by mail.b.test with ESMTPS (TLSv1.3 " in last
    assert "for <bob@b.test>" in last
    assert first.startswith("from client.test ([127.0.0.1])")
    assert "by mail.a.test with ESMTPSA (TLSv1.3 " in first
    assert message.keys()[4:] == ["Subject", "Message-ID", "Date"]
    a.wait_until_drained()
    assert a.messages("alice") == []


@pytest.mark.slow
def test_deferred_while_the_next_hop_is_down_and_delivered_when_it_is_back(instances: Start, stopped: Instance) -> None:
    a = instances("a.test", routes=[route_to(stopped)])
    for number in range(10):
        submit(a, f"waits {number}", "bob@b.test")
    wait_until(lambda: all(attempts for _, attempts, _ in a.queue()), why=a.log)
    assert len(a.queue()) == 10
    assert all("onnect" in text for _, _, text in a.queue())
    a.kill()
    a.start()
    assert len(a.queue()) == 10
    with stopped as b:
        assert {message["Subject"] for message in b.wait_for("bob", 10)} == {f"waits {n}" for n in range(10)}
        a.wait_until_drained()
        assert len(b.messages("bob")) == 10
    b.check_log()


def test_a_refusal_comes_back_as_a_report(pair: Pair) -> None:
    a, b = pair
    submit(a, "half of it", "bob@b.test", "nobody@b.test", user="dave")
    assert b.find("half of it", "bob")
    (report,) = a.wait_for("dave")
    assert report["Return-Path"] == "<>"
    assert report["To"] == "dave@a.test"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    text, status, header = report.iter_parts()
    assert "nobody@b.test" in text.get_content()
    assert "bob@b.test" not in text.get_content()
    of_message, of_recipient = status.get_payload()
    assert of_message["Reporting-MTA"] == "dns; mail.a.test"
    assert of_recipient["Final-Recipient"] == "rfc822; nobody@b.test"
    assert of_recipient["Action"] == "failed"
    assert of_recipient["Status"] == "5.1.1"
    assert of_recipient["Remote-MTA"] == f"dns; [{LOOPBACK}]"
    assert of_recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user here"
    assert "Subject: half of it" in header.get_content()
    a.wait_until_drained()
    assert len(a.messages("dave")) == 1


def test_the_null_sender_gets_no_report(pair: Pair) -> None:
    a, _ = pair
    mailboxes = {path.name for path in a.maildir("alice").parent.iterdir()}
    with a.client() as client:
        client.sendmail("", ["nobody@b.test"], TEXT % b"a bounce")
    a.wait_until_drained()
    assert {path.name for path in a.maildir("alice").parent.iterdir()} == mailboxes
    assert "a bounce" not in "".join(path.read_text() for path in a.data.glob("maildirs/*/*/new/*"))


@pytest.mark.slow
def test_what_is_tried_for_too_long_comes_back(instances: Start, stopped: Instance) -> None:
    a = instances("a.test", routes=[route_to(stopped)], settings={"retry.expire": 3})
    submit(a, "too long", "bob@b.test")
    (report,) = a.wait_for("alice", timeout=20)
    of_recipient = recipient_of(report)
    assert of_recipient["Action"] == "failed"
    assert of_recipient["Status"] == "4.4.7"  # "Delivery time expired", RFC 3463 section 3.5
    assert of_recipient["Final-Recipient"] == "rfc822; bob@b.test"
    a.wait_until_drained()


def test_an_alias_leads_to_another_server(pair: Pair) -> None:
    a, b = pair
    with a.client() as client:
        client.sendmail("x@client.test", ["sales@a.test"], TEXT % b"to an alias")
    assert b.find("to an alias", "bob")["Return-Path"] == "<x@client.test>"
    assert a.find("to an alias", "frank")["Delivered-To"] == "frank@a.test"


def test_a_next_hop_may_speak_lmtp(pair: Pair) -> None:
    a, b = pair
    submit(a, "over lmtp", "bob@lmtp.test", "nobody@lmtp.test", "carol@lmtp.test", user="erin")
    for user in ("bob", "carol"):
        (path,) = wait_for_files(b.data / "maildirs" / "lmtp.test" / user / "new")
        assert "by mail.b.test with LMTPS" in parse(path).get_all("Received")[0]
    (report,) = a.wait_for("erin")
    assert recipient_of(report)["Final-Recipient"] == "rfc822; nobody@lmtp.test"


@pytest.mark.slow
def test_held_mail_stays_until_the_route_is_another(instances: Start) -> None:
    b = instances("b.test", users=["bob"])
    a = instances("a.test", routes=[{"domain": "b.test", "hold": True, "relay": True}])
    with a.client() as client:
        client.sendmail("x@client.test", ["bob@b.test"], TEXT % b"held")
    a.restart()
    submit(a, "passes", "alice@a.test")
    assert a.find("passes")
    wait_until(lambda: len(a.queue()) == 1)  # a delivery is settled a moment after it can be seen
    assert a.queue() == [("bob@b.test", 0, "")]
    a.routes = [route_to(b)]
    a.configure()
    a.restart()
    assert b.find("held", "bob")["Return-Path"] == "<x@client.test>"
    a.wait_until_drained()


@pytest.mark.slow
def test_a_loop_ends(instances: Start, tmp_path: Path) -> None:
    """Two servers, each of which takes the other for the next hop of a third domain."""
    b = Instance(tmp_path / "b.test", "b.test", users=["bob"])
    a = instances("a.test", routes=[{**route_to(b), "domain": "c.test", "relay": True}])
    b.routes = [{**route_to(a), "domain": "c.test", "relay": True}]
    b.configure()
    with b:
        submit(a, "round and round", "carol@c.test")
        (report,) = a.wait_for("alice", timeout=30)
        assert recipient_of(report)["Status"] == "5.4.6"
        for server in (a, b):
            server.wait_until_drained()
    b.check_log()
