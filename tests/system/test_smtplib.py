"""A whole server, and Python's smtplib as its client: every door, every mechanism, what is refused."""

import os
import smtplib
import socket
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from scramp import ScramClient

from tests.instance import PASSWORD, Instance, any_certificate
from tests.peers.process import LOOPBACK


def content(subject: str, body: str = "hello") -> bytes:
    return f"Subject: {subject}\r\nFrom: <x@client.test>\r\n\r\n{body}\r\n".encode()


def secured(server: Instance) -> smtplib.SMTP:
    """Connect to the submission port and begin TLS."""
    client = smtplib.SMTP(LOOPBACK, server.submission_port, "client.test", timeout=10)
    client.starttls(context=any_certificate())
    client.ehlo()
    return client


def test_a_stranger_sends_to_a_local_user(server: Instance) -> None:
    with server.client() as client:
        client.sendmail("x@client.test", [server.address("alice")], content("plain"))
    message = server.find("plain")
    assert message["Return-Path"] == "<x@client.test>"
    assert message["Delivered-To"] == server.address("alice")
    (received,) = message.get_all("Received")
    assert received.startswith("from client.test ([127.0.0.1])")
    assert f"by {server.hostname} with ESMTP" in received
    assert f"for <{server.address('alice')}>" in received


def test_the_postmaster_is_reached_at_the_address_that_a_listener_is_bound_to(
    instances: Callable[..., Instance],
) -> None:
    server = instances(settings={"accounts.postmaster": "alice@a.test"})
    with server.client() as client:
        # RFC 5321 sections 4.1.3 and 4.5.1
        client.sendmail("x@client.test", ["postmaster@[127.0.0.1]"], content("literal"))
        with pytest.raises(smtplib.SMTPRecipientsRefused, match=r"5\.1\.1"):
            client.sendmail("x@client.test", ["alice@[127.0.0.1]"], content("nobody's"))
        with pytest.raises(smtplib.SMTPRecipientsRefused, match=r"5\.7\.1"):
            client.sendmail("x@client.test", ["postmaster@[192.0.2.1]"], content("somebody else's"))
    assert server.find("literal")["Delivered-To"] == "alice@a.test"


def test_a_client_without_ehlo_is_served(server: Instance) -> None:
    with server.client() as client:
        client.helo()
        client.sendmail("x@client.test", [server.address("alice")], content("helo"))
    assert "with SMTP" in server.find("helo")["Received"]


def test_what_comes_under_tls_is_told_so(server: Instance) -> None:
    with server.client() as client:
        client.starttls(context=any_certificate())
        client.sendmail("x@client.test", [server.address("alice")], content("starttls"))
    assert "with ESMTPS (TLSv1.3 TLS_" in server.find("starttls")["Received"]


def test_every_recipient_gets_a_copy_and_none_learns_of_the_other(server: Instance) -> None:
    with server.client() as client:
        client.sendmail("x@client.test", [server.address("alice"), server.address("bob")], content("both"))
    for user in ("alice", "bob"):
        message = server.find("both", user)
        assert message["Delivered-To"] == server.address(user)
        assert " for <" not in message["Received"]


def test_one_connection_carries_many_messages(server: Instance) -> None:
    with server.client() as client:
        for number in range(20):
            client.sendmail("x@client.test", [server.address("bob")], content(f"many {number}"))
    assert [server.find(f"many {number}", "bob")["Subject"] for number in range(20)]


def test_submission_with_starttls_completes_the_message(server: Instance) -> None:
    with server.client("alice") as client:
        client.sendmail(server.address("alice"), [server.address("bob")], content("submission"))
    message = server.find("submission", "bob")
    assert "with ESMTPSA" in message["Received"]
    assert message["Date"]
    assert message["Message-ID"].endswith(f"@{server.hostname}>")


def test_submission_with_tls_from_the_first_octet(server: Instance) -> None:
    with smtplib.SMTP_SSL(
        LOOPBACK, server.submissions_port, "client.test", context=any_certificate(), timeout=10
    ) as client:
        client.login(server.address("alice"), PASSWORD)
        client.sendmail(server.address("alice"), [server.address("bob")], content("implicit"))
    assert "with ESMTPSA" in server.find("implicit", "bob")["Received"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("initial_response", [True, False])
def test_each_mechanism_of_smtplib(server: Instance, mechanism: str, initial_response: bool) -> None:
    with secured(server) as client:
        client.user, client.password = server.address("alice"), PASSWORD
        answer = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
        code, _ = client.auth(mechanism, answer, initial_response_ok=initial_response)
        assert code == 235
        assert client.mail(server.address("alice"))[0] == 250


class Scram:
    """scramp's client, as smtplib wants to ask it."""

    def __init__(self, user: str, password: str) -> None:
        self._client = ScramClient(["SCRAM-SHA-256"], user, password)
        self._steps = 0
        self.is_proved = False

    def __call__(self, challenge: bytes | None = None) -> str:
        self._steps += 1
        if self._steps == 1:
            first: str = self._client.get_client_first()
            return first
        assert challenge is not None
        if self._steps == 2:
            self._client.set_server_first(challenge.decode())
            final: str = self._client.get_client_final()
            return final
        self._client.set_server_final(challenge.decode())
        self.is_proved = True
        return ""


@pytest.mark.parametrize("initial_response", [True, False])
def test_scram_with_another_implementation(server: Instance, initial_response: bool) -> None:
    scram = Scram(server.address("alice"), PASSWORD)
    with secured(server) as client:
        assert client.auth("SCRAM-SHA-256", scram, initial_response_ok=initial_response)[0] == 235
    assert scram.is_proved


def scram_with_a_wrong_password(client: smtplib.SMTP, user: str) -> tuple[int, bytes]:
    return client.auth("SCRAM-SHA-256", Scram(user, "wrong"))


def login_with_a_wrong_password(client: smtplib.SMTP, user: str) -> tuple[int, bytes]:
    return client.login(user, "wrong")


@pytest.mark.parametrize("log_in", [scram_with_a_wrong_password, login_with_a_wrong_password])
@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_wrong_credentials_are_refused_alike(
    server: Instance, log_in: Callable[[smtplib.SMTP, str], tuple[int, bytes]], user: str
) -> None:
    with secured(server) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as refusal:
            log_in(client, server.address(user))
        assert refusal.value.smtp_code == 535
        assert refusal.value.smtp_error.startswith(b"5.7.8")
        assert client.noop()[0] == 250


def test_a_line_that_begins_with_a_dot_and_one_that_is_none(server: Instance) -> None:
    body = ".\r\n..two\r\n.one\r\n\r\nend\r\n."
    with server.client() as client:
        client.sendmail("x@client.test", [server.address("alice")], content("dots", body))
    assert server.find("dots").get_content() == body.replace("\r\n", "\n") + "\n"


def test_eight_bits_stay_as_they_are(server: Instance) -> None:
    text = content("8bit", "Grüße aus Žilina")
    with server.client() as client:
        client.sendmail("x@client.test", [server.address("alice")], text, mail_options=["BODY=8BITMIME"])
    server.find("8bit")
    (stored,) = [path for path in server.messages() if b"Subject: 8bit" in path.read_bytes()]
    assert "Grüße aus Žilina\n".encode() in stored.read_bytes()


def test_internationalized_addresses(server: Instance) -> None:
    message = EmailMessage()
    message["Subject"], message["From"] = "Grüße", "žofia@client.test"
    message["To"] = "jörg@a.test"
    message.set_content("hallo")
    with server.client() as client:
        client.send_message(message)
    (delivered,) = [parsed for parsed in server.wait_for("j%C3%B6rg") if parsed["Subject"] == "Grüße"]
    assert "with UTF8SMTP" in delivered["Received"]
    assert "for <jörg@a.test>" in delivered["Received"]


def refused(server: Instance, sender: str, recipient: str, *options: str) -> tuple[int, bytes]:
    """Return what the first refusal of MAIL or RCPT says."""
    with server.client() as client:
        client.ehlo()
        code, text = client.mail(sender, options)
        return (code, text) if code != 250 else client.rcpt(recipient)


def test_unknown_users_and_relaying_are_refused(server: Instance) -> None:
    assert refused(server, "x@client.test", "nobody@a.test") == (550, b"5.1.1 No such user here")
    assert refused(server, "x@client.test", "x@away.test") == (550, b"5.7.1 Relaying denied")
    assert refused(server, "alice@a.test", "x@away.test") == (550, b"5.7.1 Relaying denied")


def test_what_is_too_big_is_refused_before_it_is_sent(server: Instance) -> None:
    code, text = refused(server, "x@client.test", "alice@a.test", f"SIZE={50 * 2**20 + 1}")
    assert (code, text[:6]) == (552, b"5.3.4 ")


def test_submission_wants_tls_then_a_login_then_ones_own_address(server: Instance) -> None:
    with smtplib.SMTP(LOOPBACK, server.submission_port, "client.test", timeout=10) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.docmd("AUTH PLAIN AGEAYg==")[0] == 530
        assert client.mail("alice@a.test")[0] == 530
        client.starttls(context=any_certificate())
        client.ehlo()
        assert client.mail("alice@a.test")[0] == 530
        client.login("alice@a.test", PASSWORD)
        assert client.mail("bob@a.test") == (550, b"5.7.1 This sender address does not belong to your account")
        assert client.mail("alice@a.test")[0] == 250


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_lmtp(server: Instance, over: str) -> None:
    if over == "tcp":
        client = smtplib.LMTP(LOOPBACK, server.lmtp_port, "client.test", timeout=10)
    else:
        client = smtplib.LMTP(str(server.lmtp_socket), local_hostname="client.test", timeout=10)
    # smtplib reads one reply behind the content, so one recipient is all it can have.
    recipients = [server.address(user) for user in ("nobody", "alice")]
    with client:
        turned_away = client.sendmail("x@client.test", recipients, content(f"lmtp {over}"))
    assert list(turned_away) == ["nobody@a.test"]
    assert "with LMTP" in server.find(f"lmtp {over}")["Received"]


def test_lmtp_answers_once_for_each_recipient(server: Instance) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(os.fspath(server.lmtp_socket))
        lines = connection.makefile("rwb")
        assert lines.readline().startswith(b"220 ")
        lines.write(b"LHLO client.test\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.test>\r\nRCPT TO:<bob@a.test>\r\nDATA\r\n")
        lines.flush()
        while not (line := lines.readline()).startswith(b"354"):
            assert line.startswith(b"250"), line
        lines.write(b"Subject: lmtp twice\r\n\r\n.\r\nQUIT\r\n")
        lines.flush()
        assert [lines.readline()[:4] for _ in range(3)] == [b"250 ", b"250 ", b"221 "]
        assert lines.read() == b""
    assert server.find("lmtp twice")["Return-Path"] == "<>"
