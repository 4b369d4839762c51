"""swaks as a client: every door, every mechanism that it knows, PIPELINING, LMTP."""

import pytest

from tests.instance import PASSWORD, Instance
from tests.interop.conftest import require
from tests.peers import swaks

pytestmark = pytest.mark.interop

# What swaks calls them; it takes the first of a list that the server offers.
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")


@pytest.fixture(autouse=True, scope="module")
def needs_swaks() -> None:
    require(swaks.why_missing())


def send(server: Instance, port: int, subject: str, *arguments: str, sender: str = "x@client.test") -> str:
    """Send a message to alice, expect it to be taken, and return the dialogue."""
    done = swaks.swaks(
        port, *arguments, "--header", f"Subject: {subject}", sender=sender, recipient=server.address("alice")
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def login(mechanism: str, password: str = PASSWORD) -> tuple[str, ...]:
    return ("--auth", mechanism, "--auth-user", "alice@a.test", "--auth-password", password)


def test_plain(server: Instance) -> None:
    send(server, server.smtp_port, "plain")
    assert "with ESMTP id " in " ".join(server.find("plain")["Received"].split())


def test_starttls(server: Instance) -> None:
    assert "TLS started with cipher TLSv1.3" in send(server, server.smtp_port, "starttls", "--tls")
    assert "with ESMTPS" in server.find("starttls")["Received"]


@pytest.mark.parametrize("version", ["tlsv1_2", "tlsv1_3"])
def test_versions_of_tls(server: Instance, version: str) -> None:
    dialogue = send(server, server.smtp_port, version, "--tls", "--tls-protocol", version)
    assert f"TLS started with cipher {version.replace('tls', 'TLS').replace('_', '.')}" in dialogue


@pytest.mark.parametrize("version", ["tlsv1", "tlsv1_1"])
def test_old_versions_of_tls_are_refused(server: Instance, version: str) -> None:
    done = swaks.swaks(
        server.smtp_port,
        "--tls",
        "--tls-protocol",
        version,
        "--tls-cipher",
        "ALL:@SECLEVEL=0",
        recipient="alice@a.test",
    )
    assert done.returncode == 29, done.stdout  # "error occurred while trying to negotiate TLS"


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("implicit", [False, True])
def test_submission_by_each_mechanism(server: Instance, mechanism: str, implicit: bool) -> None:
    subject = f"{mechanism} {implicit}"
    port = server.submissions_port if implicit else server.submission_port
    tls = "--tls-on-connect" if implicit else "--tls"
    dialogue = send(server, port, subject, tls, *login(mechanism), sender="alice@a.test")
    assert f"AUTH {mechanism}" in dialogue
    assert "235 2.7.0" in dialogue
    assert "with ESMTPSA" in server.find(subject)["Received"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password(server: Instance, mechanism: str) -> None:
    done = swaks.swaks(server.submission_port, "--tls", *login(mechanism, "wrong"), recipient="alice@a.test")
    assert done.returncode == 28, done.stdout  # "error authenticating"
    assert "535 5.7.8" in done.stdout


def test_no_login_without_tls(server: Instance) -> None:
    done = swaks.swaks(server.submission_port, *login("PLAIN"), recipient="alice@a.test")
    assert done.returncode == 28, done.stdout
    assert PASSWORD not in done.stdout
    assert "AUTH" not in done.stdout.partition("250 HELP")[0]


@pytest.mark.parametrize("tls", [(), ("--tls",)])
def test_pipelining(server: Instance, tls: tuple[str, ...]) -> None:
    subject = f"pipelined {bool(tls)}"
    dialogue = send(server, server.smtp_port, subject, "--pipeline", *tls)
    sign = ">" if tls else "->"
    commands = [line for line in dialogue.splitlines() if "MAIL FROM" in line or "RCPT TO" in line or " DATA" in line]
    assert len(commands) == 3
    assert all(sign in line for line in commands)
    assert server.find(subject)


def test_a_refused_recipient_in_a_pipelined_group(server: Instance) -> None:
    done = swaks.swaks(server.smtp_port, "--pipeline", recipient="nobody@a.test")
    assert done.returncode == 24, done.stdout  # "error in RCPT"
    assert "550 5.1.1" in done.stdout
    assert "554 5.5.1" in done.stdout  # to DATA: RFC 2920 section 3.1


@pytest.mark.parametrize("pipelined", [False, True])
def test_lmtp(server: Instance, pipelined: bool) -> None:
    subject = f"lmtp {pipelined}"
    more = ("--pipeline",) if pipelined else ()
    dialogue = send(server, server.lmtp_port, subject, "--protocol", "LMTP", *more)
    assert "LHLO client.test" in dialogue
    assert "with LMTP" in server.find(subject)["Received"]


def test_lmtp_over_a_unix_socket(server: Instance) -> None:
    send(server, 0, "lmtp unix", "--protocol", "LMTP", "--socket", str(server.lmtp_socket), "--server", "")
    received = server.find("lmtp unix")["Received"]
    assert received.startswith("from client.test")
    assert "with LMTP" in received
    assert "[" not in received.partition("by ")[0]


def test_two_recipients_one_of_whom_is_unknown(server: Instance) -> None:
    done = swaks.swaks(server.smtp_port, "--header", "Subject: half", recipient="nobody@a.test,alice@a.test")
    assert done.returncode == 0, done.stdout
    assert "550 5.1.1" in done.stdout
    assert server.find("half")["Delivered-To"] == "alice@a.test"
