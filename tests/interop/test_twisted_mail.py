"""Relaying through servers on `twisted.mail.smtp`: each mechanism that they have, as the only one that they offer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.instance import Instance
from tests.peers.certificate import self_signed
from tests.peers.process import LOOPBACK, wait_until
from tests.peers.twisted_mail import PASSWORD, USER, TwistedMail

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "LOGIN", "PLAIN"])
def test_authentication(instances: Callable[..., Instance], tmp_path: Path, mechanism: str) -> None:
    certificate = self_signed(tmp_path)
    with TwistedMail(tmp_path / "peer", certificate, mechanism) as peer:
        hop = f"{LOOPBACK}:{peer.port}"
        login = {"tls": "verified", "username": USER, "password": PASSWORD}
        relay = instances(
            "a.test",
            routes=[{"domain": "*", "next_hop": hop, **login}],
            settings={"relay.ca_file": str(certificate.chain)},
        )
        with relay.client("alice") as client:
            for number in range(3):
                client.sendmail("alice@a.test", ["x@away.test"], f"Subject: number {number}\r\n\r\n.\r\n")
        wait_until(lambda: len(peer.messages()) == 3, why=relay.log)
        relay.wait_until_drained()
        assert {b"Subject: number %d\n" % number in b"".join(peer.messages()) for number in range(3)} == {True}
        assert all(message.startswith(b"X-Envelope: alice@a.test x@away.test\n") for message in peer.messages())
        assert all(message.endswith(b"\n\n.\n") for message in peer.messages())


def test_a_wrong_password_defers(instances: Callable[..., Instance], tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with TwistedMail(tmp_path / "peer", certificate, "CRAM-MD5", "PLAIN") as peer:
        hop = {"domain": "*", "next_hop": f"{LOOPBACK}:{peer.port}", "tls": "required"}
        relay = instances("a.test", routes=[{**hop, "username": USER, "password": "wrong"}])
        with relay.client("alice") as client:
            client.sendmail("alice@a.test", ["x@away.test"], "Subject: x\r\n\r\n")
        wait_until(lambda: relay.queue() and relay.queue()[0][1], why=relay.log)
        assert "our credentials were refused" in relay.queue()[0][2]
        assert peer.messages() == []
