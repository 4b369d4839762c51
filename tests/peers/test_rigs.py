"""The rigs against the peers alone: what the interop tests and the measurements rely on."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.peers import curl, postfix, process, signed_zone, smtpstone, swaks
from tests.peers.certificate import Certificate, self_signed
from tests.peers.install import nothing_starts
from tests.peers.postfix import Postfix
from tests.peers.signed_zone import SignedZone
from tests.peers.smtpstone import SmtpSink, recipient_names, smtp_source

MESSAGE = b"Subject: rig\r\n\r\nhello\r\n"


def require(why_missing: str | None) -> None:
    if why_missing:
        pytest.skip(why_missing)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path)


def test_recipient_names_are_those_that_smtp_source_sends() -> None:
    assert recipient_names("user@peer.test", 3) == ["user@peer.test", "2user@peer.test", "3user@peer.test"]


def test_a_peer_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    output = tmp_path / "output"
    ending = process.spawn([sys.executable, "-c", "raise SystemExit('no such luck')"], output=output)
    with pytest.raises(process.PeerError, match="no such luck"):
        process.wait_for_greeting(process.free_port(), ending, output=output)
    process.stop(ending)


def test_a_peer_that_never_greets_is_given_up(tmp_path: Path) -> None:
    output = tmp_path / "output"
    sleeping = process.spawn([sys.executable, "-c", "import time; time.sleep(60)"], output=output)
    with pytest.raises(process.PeerError, match="does not greet"):
        process.wait_for_greeting(process.free_port(), sleeping, output=output, timeout=0.1)
    process.stop(sleeping)
    assert sleeping.returncode is not None


@pytest.mark.parametrize("before", [None, b"#!/bin/sh\nexit 0\n"])
def test_the_policy_against_starting_services_is_put_back(tmp_path: Path, before: bytes | None) -> None:
    policy = tmp_path / "policy-rc.d"
    if before is not None:
        policy.write_bytes(before)
        policy.chmod(0o700)
    with nothing_starts(policy):
        assert process.run([policy], timeout=5.0).returncode == 101
    assert policy.exists() == (before is not None)
    if before is not None:
        assert (policy.read_bytes(), policy.stat().st_mode & 0o777) == (before, 0o700)


@pytest.mark.interop
def test_postfix_delivers_what_smtp_source_sends_to_each_recipient() -> None:
    require(postfix.why_missing())
    names = [name.partition("@")[0] for name in recipient_names("user@peer.test", 3)]
    with Postfix(users=names) as server:
        sent = smtp_source(server.port, messages=5, sessions=2, recipients=3, keep=True)
        assert sent.returncode == 0, sent.stdout
        assert eventually(lambda: all(len(server.messages(name)) == 5 for name in names)), server.log()
        assert eventually(lambda: server.queued() == 0)


@pytest.mark.interop
def test_postfix_speaks_tls_both_ways_and_refuses_unknown_users(certificate: Certificate) -> None:
    require(postfix.why_missing() or swaks.why_missing())
    with Postfix(users=["alice"], certificate=certificate) as server:
        assert server.tls_port is not None
        upgraded = swaks.swaks(server.port, "--tls", recipient="alice@peer.test")
        assert upgraded.returncode == 0, upgraded.stdout
        assert "TLS started" in upgraded.stdout
        implicit = swaks.swaks(server.tls_port, "--tls-on-connect", recipient="alice@peer.test")
        assert implicit.returncode == 0, implicit.stdout
        stranger = swaks.swaks(server.port, recipient="bob@peer.test")
        assert stranger.returncode == 24
        assert "550 5.1.1" in stranger.stdout
        assert eventually(lambda: len(server.messages("alice")) == 2), server.log()


@pytest.mark.interop
def test_postfix_relays_what_curl_sends_to_its_next_hop() -> None:
    require(postfix.why_missing() or curl.why_missing())
    with (
        SmtpSink(capture=True) as sink,
        Postfix(domain=None, next_hop=(process.LOOPBACK, sink.port)) as relay,
    ):
        sent = curl.send(relay.port, MESSAGE, recipient="far@away.test")
        assert sent.returncode == 0, sent.stdout
        assert eventually(lambda: len(sink.messages()) == 1 and relay.queued() == 0), relay.log()
        (message,) = sink.messages()
        assert b"X-Rcpt-Args: <far@away.test>" in message
        assert b"Subject: rig" in message


@pytest.mark.interop
def test_postfix_keeps_what_the_sink_refuses_for_now() -> None:
    require(postfix.why_missing())
    with (
        SmtpSink("-r", "RCPT") as sink,
        Postfix(domain=None, next_hop=(process.LOOPBACK, sink.port)) as relay,
    ):
        assert smtp_source(relay.port, recipient="far@away.test").returncode == 0
        assert eventually(lambda: "status=deferred" in relay.log()), relay.log()
        assert relay.queued() == 1
        assert "far@away.test" in relay.command("postqueue", "-p").stdout


@pytest.mark.interop
def test_smtp_source_gives_up_on_a_refusal() -> None:
    require(smtpstone.why_missing())
    with SmtpSink("-f", "RCPT") as sink:
        refused = smtp_source(sink.port, messages=3)
        assert refused.returncode == 1
        assert "500" in refused.stdout


@pytest.mark.interop
def test_smtp_source_speaks_lmtp() -> None:
    require(smtpstone.why_missing())
    with SmtpSink("-L", capture=True) as sink:
        sent = smtp_source(sink.port, messages=2, recipients=2, lmtp=True)
        assert sent.returncode == 0, sent.stdout
        assert eventually(lambda: len(sink.messages()) == 2)


@pytest.mark.interop
def test_a_signed_zone_is_vouched_for_and_what_is_broken_is_not() -> None:
    require(signed_zone.why_missing())
    records = ["mail A 127.0.0.1", "bad A 127.0.0.1"]
    with SignedZone("signed.test", records, insecure=["mail A 127.0.0.1"], broken=["bad A"]) as zone:
        answers = {
            name: dns.query.udp(
                dns.message.make_query(f"{name}.signed.test", "A", want_dnssec=True),
                zone.resolver[0],
                port=zone.resolver[1],
                timeout=5.0,
            )
            for name in ("mail", "bad", "mail.insecure")
        }
    assert {name: bool(answer.flags & dns.flags.AD) for name, answer in answers.items()} == {
        "mail": True,
        "bad": False,
        "mail.insecure": False,
    }
    assert {name: answer.rcode() for name, answer in answers.items()} == {
        "mail": dns.rcode.NOERROR,
        "bad": dns.rcode.SERVFAIL,
        "mail.insecure": dns.rcode.NOERROR,
    }
