"""Relaying with conditions: a provider that wants a login, certificates that must prove a name, TLS that is missing."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mailsuite.mail.session import SecretKind
from tests.instance import PASSWORD, Instance
from tests.peers.certificate import self_signed
from tests.peers.process import LOOPBACK, free_port, wait_until

pytestmark = pytest.mark.slow

HOP = {"tls": "verified", "password": PASSWORD}


class Rig(NamedTuple):
    customer: Instance
    provider: Instance


def customer_routes(provider: Instance, plain_port: int) -> Iterator[dict[str, Any]]:
    """One domain for each way to get there. The provider holds whatever it takes."""
    smtp, submission, submissions = (
        f"{LOOPBACK}:{port}" for port in (provider.smtp_port, provider.submission_port, provider.submissions_port)
    )
    for user in ("scram", "cram", "plain"):
        yield {**HOP, "domain": f"{user}.test", "next_hop": smtp, "username": f"{user}@b.test"}
    yield {**HOP, "domain": "submission.test", "next_hop": submission, "username": "scram@b.test"}
    yield {**HOP, "domain": "implicit.test", "next_hop": submissions, "username": "scram@b.test", "tls": "implicit"}
    yield {
        "domain": "file.test",
        "next_hop": smtp,
        "tls": "required",
        "username": "file@b.test",
        "password_file": "smarthost.password",
    }
    yield {**HOP, "domain": "wrong.test", "next_hop": smtp, "username": "wrong@b.test", "password": "wrong"}
    yield {"domain": "nologin.test", "next_hop": smtp}
    plain = f"{LOOPBACK}:{plain_port}"
    for tls in ("verified", "required"):
        yield {**HOP, "domain": f"{tls}.test", "next_hop": plain, "username": f"{tls}@b.test", "tls": tls}
    yield {"domain": "plaintext.test", "next_hop": plain}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("smarthost")
    certificate = self_signed(directory)
    plain_port = free_port()
    provider = Instance(
        directory / "b.test",
        "b.test",
        users=["wrong"],
        settings={"tls.certificate": str(certificate.chain), "tls.key": str(certificate.key)},
        routes=[
            {"domain": "plaintext.test", "hold": True, "relay": True},
            {"domain": "*", "hold": True},
        ],
    )
    provider.add_users(["scram", "file"], keep=[SecretKind.SCRAM_SHA_256])
    provider.add_users(["cram"], keep=[SecretKind.SHARED])
    provider.add_users(["plain"], keep=[])
    smtp, *others = provider.listeners
    plain = {"endpoint": f"tcp:{plain_port}:interface={LOOPBACK}", "tls": "none"}
    provider.listeners = [{**smtp, "auth": True}, plain, *others]
    provider.configure()
    customer = Instance(
        directory / "a.test",
        settings={"relay.ca_file": str(certificate.chain), "receive.trust_loopback": True, "retry.longest": 2},
        routes=list(customer_routes(provider, plain_port)),
    )
    (customer.data / "smarthost.password").write_text(f"{PASSWORD}\n")
    with provider, customer:
        yield Rig(customer, provider)
    customer.check_log()
    provider.check_log()


def send(customer: Instance, recipient: str, sender: str = "alice@a.test") -> None:
    with customer.client() as client:
        client.sendmail(sender, [recipient], f"Subject: for {recipient}\r\n\r\n")


def wait_until_held(provider: Instance, recipient: str) -> None:
    wait_until(lambda: recipient in [address for address, _, _ in provider.queue()], why=provider.log)


def senders_of(provider: Instance) -> Counter[str]:
    """How many messages the provider has taken from each account; "" for nobody who has logged in."""
    return Counter(re.findall(r": from=\S+ of \S+(?: as (\S+))? for \d+ recipients?, ", provider.log()))


def sender_of_next(rig: Rig, recipient: str, sender: str = "alice@a.test") -> list[str]:
    """Send to a recipient, and return from whom the provider has taken the message."""
    customer, provider = rig
    before = senders_of(provider)
    send(customer, recipient, sender)
    wait_until_held(provider, recipient)
    wait_until(lambda: senders_of(provider) != before, why=provider.log)
    return list((senders_of(provider) - before).elements())


def wait_until_deferred(customer: Instance, recipient: str) -> str:
    """Return what was said last about a recipient that has been tried and waits."""

    def attempted() -> list[str]:
        return [text for address, attempts, text in customer.queue() if address == recipient and attempts]

    wait_until(attempted, why=customer.log)
    return attempted()[0]


@pytest.mark.parametrize("keeps", ["scram", "cram", "plain"])
def test_authentication_by_what_the_provider_keeps(rig: Rig, keeps: str) -> None:
    customer, provider = rig
    failures = provider.log().count("authentication failed")
    send(customer, f"{keeps}@{keeps}.test")
    wait_until_held(provider, f"{keeps}@{keeps}.test")
    # SCRAM comes first; where its secret is not kept, the password itself is shown, under TLS.
    assert provider.log().count("authentication failed") - failures == (0 if keeps == "scram" else 1)


@pytest.mark.parametrize("domain", ["submission.test", "implicit.test"])
def test_submission_ports_take_what_the_account_may_send(rig: Rig, domain: str) -> None:
    assert sender_of_next(rig, f"x@{domain}", "scram@b.test") == ["scram@b.test"]


def test_the_password_may_stand_in_a_file(rig: Rig) -> None:
    assert sender_of_next(rig, "x@file.test") == ["file@b.test"]


def test_a_wrong_password_defers_and_is_told(rig: Rig) -> None:
    customer, _ = rig
    send(customer, "x@wrong.test")
    text = wait_until_deferred(customer, "x@wrong.test")
    assert "authentication with 127.0.0.1 has failed" in text
    assert "credentials" in text


def test_without_a_login_the_provider_refuses_and_the_sender_is_told(rig: Rig) -> None:
    customer, _ = rig
    send(customer, "x@nologin.test")
    (report,) = customer.wait_for("alice")
    of_recipient = report.get_payload()[1].get_payload()[1]
    assert of_recipient["Diagnostic-Code"] == "smtp; 550 5.7.1 Relaying denied"
    assert of_recipient["Status"] == "5.7.1"


@pytest.mark.parametrize("domain", ["verified.test", "required.test"])
def test_tls_that_is_demanded_and_not_offered_defers(rig: Rig, domain: str) -> None:
    customer, _ = rig
    send(customer, f"x@{domain}")
    assert "does not offer STARTTLS" in wait_until_deferred(customer, f"x@{domain}")


def test_opportunistic_tls_does_without(rig: Rig) -> None:
    assert sender_of_next(rig, "x@plaintext.test") == [""]


def test_no_password_is_in_any_log(rig: Rig) -> None:
    for server in rig:
        assert PASSWORD not in server.log()


@pytest.fixture(scope="module")
def suspicious(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A customer who trusts nobody but the authority of somebody else."""
    directory: Path = tmp_path_factory.mktemp("suspicious")
    other = self_signed(directory)
    hop = f"{LOOPBACK}:{rig.provider.smtp_port}"
    routes = [
        {**HOP, "domain": "verified.test", "next_hop": hop, "username": "scram@b.test"},
        {"domain": "b.test", "next_hop": hop, "tls": "required"},
    ]
    with Instance(directory / "a", settings={"relay.ca_file": str(other.chain)}, routes=routes) as instance:
        yield instance
    instance.check_log()


def test_a_certificate_that_proves_nothing_defers_before_any_password_is_said(rig: Rig, suspicious: Instance) -> None:
    with suspicious.client("alice") as client:
        client.sendmail("alice@a.test", ["x@verified.test"], "Subject: x\r\n\r\n")
    text = wait_until_deferred(suspicious, "x@verified.test")
    assert "TLS with 127.0.0.1 has failed" in text
    assert "certificate" in text


def test_where_tls_is_required_and_no_more_the_certificate_is_not_looked_at(rig: Rig, suspicious: Instance) -> None:
    with suspicious.client("alice") as client:
        client.sendmail("alice@a.test", ["wrong@b.test"], "Subject: required\r\n\r\n")
    assert "with ESMTPS" in rig.provider.find("required", "wrong").get_all("Received")[0]
