"""A whole Postfix, as the next hop of ours and as the server that sends to us."""

import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.instance import Instance
from tests.interop.conftest import require
from tests.peers import postfix
from tests.peers.certificate import self_signed
from tests.peers.postfix import Postfix
from tests.peers.process import LOOPBACK, wait_until
from tests.peers.smtpstone import smtp_source

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True, scope="module")
def needs_postfix() -> None:
    require(postfix.why_missing())


# ------------------------------------------------------------------------------ Postfix as the next hop


class NextHop(NamedTuple):
    relay: Instance
    postfix: Postfix


@pytest.fixture(scope="module")
def next_hop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NextHop]:
    """A relay of ours that sends to Postfix by STARTTLS, or by TLS from the first octet, and looks at its name."""
    directory: Path = tmp_path_factory.mktemp("postfix")
    certificate = self_signed(directory)
    with Postfix(users=["bob", "carol"], certificate=certificate) as peer:
        routes = [
            {"domain": "peer.test", "next_hop": f"{LOOPBACK}:{peer.port}", "tls": "verified"},
            {"domain": "away.test", "next_hop": f"{LOOPBACK}:{peer.tls_port}", "tls": "implicit"},
        ]
        settings = {"relay.ca_file": str(certificate.chain), "receive.trust_loopback": True}
        with Instance(directory / "a", users=["alice", "dave", "erin"], routes=routes, settings=settings) as relay:
            yield NextHop(relay, peer)
        relay.check_log()


def test_it_takes_what_we_relay_over_starttls(next_hop: NextHop) -> None:
    relay, peer = next_hop
    content = "Subject: to postfix\r\n\r\n.\r\n" + "žlutý kůň\r\n" * 20_000
    with relay.client("alice") as client:
        client.sendmail(
            "alice@a.test", ["bob@peer.test", "carol@peer.test"], content.encode(), mail_options=["BODY=8BITMIME"]
        )
    for user in ("bob", "carol"):
        wait_until(lambda user=user: peer.messages(user), why=relay.log)
        octets = peer.messages(user)[0].read_bytes()
        assert octets.startswith(b"Return-Path: <alice@a.test>\n")
        assert b"from mail.a.test (unknown [127.0.0.1])\n\tby mail.peer.test (Postfix) with ESMTPS id" in octets
        assert octets.partition(b"\n\n")[2] == content.encode().partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
    relay.wait_until_drained()


def test_its_refusals_come_back_in_its_words(next_hop: NextHop) -> None:
    relay, _ = next_hop
    with relay.client("dave") as client:
        client.sendmail("dave@a.test", ["bob@peer.test", "nobody@peer.test"], "Subject: half\r\n\r\n")
    (report,) = relay.wait_for("dave")
    of_recipient = report.get_payload()[1].get_payload()[1]
    assert of_recipient["Final-Recipient"] == "rfc822; nobody@peer.test"
    assert of_recipient["Status"] == "5.1.1"
    assert of_recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1 <nobody@peer.test>: Recipient address rejected")


def test_it_refuses_over_implicit_tls_as_well(next_hop: NextHop) -> None:
    relay, _ = next_hop
    with relay.client("erin") as client:
        client.sendmail("erin@a.test", ["x@away.test"], "Subject: away\r\n\r\n")
    (report,) = relay.wait_for("erin")
    assert "5.7.1" in report.get_payload()[1].get_payload()[1]["Diagnostic-Code"]


def test_a_load_goes_through_us_to_it(next_hop: NextHop) -> None:
    relay, peer = next_hop
    before = len(peer.messages("carol"))
    sent = smtp_source(relay.smtp_port, messages=200, sessions=5, keep=True, length=20_000, recipient="carol@peer.test")
    assert sent.returncode == 0, sent.stdout
    wait_until(lambda: len(peer.messages("carol")) == before + 200, timeout=30, why=relay.log)
    relay.wait_until_drained()


# ------------------------------------------------------------------------------ Postfix as the client


def send(peer: Postfix, content: bytes, *recipients: str, sender: str = "x@client.test") -> None:
    """Hand a message to Postfix."""
    with smtplib.SMTP(LOOPBACK, peer.port, "client.test", timeout=10) as client:
        client.sendmail(sender, recipients, content, mail_options=["BODY=8BITMIME"])


@pytest.mark.parametrize(("level", "protocol"), [("none", "ESMTP"), ("may", "ESMTPS"), ("encrypt", "ESMTPS")])
def test_it_sends_to_us(server: Instance, level: str, protocol: str) -> None:
    subject = f"postfix {level}".encode()
    content = b"Subject: " + subject + b"\r\n\r\n.\r\n" + "žlutý kůň\r\n".encode() * 50_000
    with Postfix(
        domain=None, next_hop=(LOOPBACK, server.smtp_port), settings={"smtp_tls_security_level": level}
    ) as peer:
        send(peer, content, "alice@a.test", "bob@a.test")
        wait_until(lambda: peer.queued() == 0, timeout=20, why=peer.log)
        assert peer.log().count("status=sent (250 2.0.0 Queued as ") == 2
    for user in ("alice", "bob"):
        last, first = server.find(subject.decode(), user).get_all("Received")
        assert last.startswith("from mail.relay.test ([127.0.0.1])")
        assert f"with {protocol} " in " ".join(last.split())
        assert "by mail.relay.test (Postfix)" in first
    (path,) = [path for path in server.messages() if subject in path.read_bytes()]
    assert path.read_bytes().partition(b"\n\n")[2] == content.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")


def test_it_looks_at_our_certificate(server: Instance) -> None:
    settings = {
        "smtp_tls_security_level": "secure",
        "smtp_tls_secure_cert_match": server.hostname,
        "smtp_tls_CAfile": str(server.data / "self-signed.pem"),
        "smtp_tls_loglevel": "1",
    }
    with Postfix(domain=None, next_hop=(LOOPBACK, server.smtp_port), settings=settings) as peer:
        send(peer, b"Subject: secure\r\n\r\n", "alice@a.test")
        wait_until(lambda: "status=" in peer.log(), timeout=20, why=peer.log)
        assert "Verified TLS connection established" in peer.log(), peer.log()
    assert server.find("secure")


def test_it_bounces_what_we_refuse(server: Instance) -> None:
    with Postfix(domain=None, next_hop=(LOOPBACK, server.smtp_port)) as peer:
        send(peer, b"Subject: nobody there\r\n\r\n", "nobody@a.test", sender="bob@a.test")
        report = server.find("Undelivered Mail Returned to Sender", "bob", timeout=20)
        assert "550 5.1.1 No such user here" in report.get_payload()[1].get_payload()[1]["Diagnostic-Code"]
        assert report["Return-Path"] == "<>"


def test_it_keeps_what_we_defer(instances: Callable[..., Instance]) -> None:
    server = instances("a.test")
    with Postfix(domain=None, next_hop=(LOOPBACK, server.smtp_port)) as peer:
        server.stop()
        send(peer, b"Subject: later\r\n\r\n", "alice@a.test")
        wait_until(lambda: "status=deferred" in peer.log(), timeout=20, why=peer.log)
        server.start()
        assert peer.command("postqueue", "-f").returncode == 0
        assert server.find("later", timeout=20)
        wait_until(lambda: peer.queued() == 0, why=peer.log)


def test_it_speaks_lmtp_to_us(server: Instance) -> None:
    settings = {"relayhost": "", "default_transport": f"lmtp:inet:{LOOPBACK}:{server.lmtp_port}"}
    with Postfix(domain=None, next_hop=(LOOPBACK, server.smtp_port), settings=settings) as peer:
        send(peer, b"Subject: postfix lmtp\r\n\r\n", "alice@a.test", "bob@a.test", "nobody@a.test")
        wait_until(lambda: peer.log().count("status=") >= 3, timeout=20, why=peer.log)
        assert peer.log().count("status=sent (250") >= 2
        assert "status=bounced" in peer.log()
    for user in ("alice", "bob"):
        assert "with LMTP" in server.find("postfix lmtp", user)["Received"]


def test_it_relays_a_load_to_us(instances: Callable[..., Instance]) -> None:
    server = instances("a.test")
    settings = {"smtp_tls_security_level": "may"}
    with Postfix(domain=None, next_hop=(LOOPBACK, server.smtp_port), settings=settings) as peer:
        sent = smtp_source(peer.port, messages=200, sessions=5, keep=True, length=20_000, recipient="alice@a.test")
        assert sent.returncode == 0, sent.stdout
        wait_until(lambda: len(server.messages()) == 200, timeout=60, why=peer.log)
        wait_until(lambda: peer.queued() == 0, why=peer.log)
    server.wait_until_drained()
    assert len(server.messages()) == 200
    server.check_leftovers()
