"""curl as a client: smtp:// and smtps://, each mechanism that it has, SIZE and SMTPUTF8 by its own judgement."""

import pytest

from tests.instance import PASSWORD, Instance
from tests.interop.conftest import require
from tests.peers import curl

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True, scope="module")
def needs_curl() -> None:
    require(curl.why_missing())


def content(subject: str, body: str = "hello") -> bytes:
    return f"Subject: {subject}\r\nFrom: <x@client.test>\r\n\r\n{body}\r\n".encode()


def login(mechanism: str, password: str = PASSWORD) -> tuple[str, ...]:
    return ("--insecure", "--user", f"alice@a.test:{password}", "--login-options", f"AUTH={mechanism}")


def test_plain(server: Instance) -> None:
    done = curl.send(server.smtp_port, content("plain", ".\r\n..\r\nend"), recipient="alice@a.test")
    assert done.returncode == 0, done.stdout
    message = server.find("plain")
    assert message["Received"].startswith("from client.test ([127.0.0.1])")
    assert message.get_content() == ".\n..\nend\n"


def test_starttls_that_curl_demands(server: Instance) -> None:
    done = curl.send(server.smtp_port, content("starttls"), "--ssl-reqd", "--insecure", recipient="alice@a.test")
    assert done.returncode == 0, done.stdout
    assert "with ESMTPS" in server.find("starttls")["Received"]


def test_our_own_certificate_is_not_taken_by_who_looks(server: Instance) -> None:
    done = curl.send(server.smtp_port, content("x"), "--ssl-reqd", recipient="alice@a.test")
    assert done.returncode == 60, done.stdout  # "the peer's certificate cannot be authenticated"
    certificate = server.data / "self-signed.pem"
    pinned = (
        "--ssl-reqd",
        "--cacert",
        str(certificate),
        "--resolve",
        f"{server.hostname}:{server.smtp_port}:127.0.0.1",
    )
    done = curl.curl(
        f"smtp://{server.hostname}:{server.smtp_port}/client.test",
        *(*pinned, "--mail-from", "x@client.test", "--mail-rcpt", "alice@a.test", "--upload-file", "-"),
        stdin=content("pinned"),
    )
    assert done.returncode == 0, done.stdout
    assert server.find("pinned")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_submission_by_each_mechanism(server: Instance, mechanism: str, scheme: str) -> None:
    subject = f"{scheme} {mechanism}"
    port = server.submissions_port if scheme == "smtps" else server.submission_port
    done = curl.send(
        port,
        content(subject),
        *("--ssl-reqd", *login(mechanism)),
        scheme=scheme,
        sender="alice@a.test",
        recipient="alice@a.test",
    )
    assert done.returncode == 0, done.stdout
    assert f"AUTH {mechanism}" in done.stdout
    assert "with ESMTPSA" in server.find(subject)["Received"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_wrong_password(server: Instance, mechanism: str) -> None:
    arguments = ("--ssl-reqd", *login(mechanism, "wrong"))
    done = curl.send(server.submission_port, content("x"), *arguments, recipient="alice@a.test")
    assert done.returncode == 67, done.stdout  # "the user name, password, or similar was not accepted"


def test_refusals(server: Instance) -> None:
    for recipient, words in (("nobody@a.test", "550 5.1.1"), ("x@away.test", "550 5.7.1")):
        done = curl.send(server.smtp_port, content("x"), recipient=recipient)
        assert done.returncode == 55, done.stdout  # "failed sending": the recipient was refused
        assert words in done.stdout


def test_smtputf8(server: Instance) -> None:
    done = curl.send(server.smtp_port, content("Gruß"), sender="žofia@client.test", recipient="jörg@a.test")
    assert done.returncode == 0, done.stdout
    assert "SMTPUTF8" in done.stdout
    assert "with UTF8SMTP" in server.find("Gruß", "j%C3%B6rg")["Received"]


def test_a_few_megabytes(server: Instance) -> None:
    body = "0123456789abcdef" * 4 + "\r\n"
    done = curl.send(
        server.smtp_port, content("megabytes", body * 50_000), "--ssl-reqd", "--insecure", recipient="alice@a.test"
    )
    assert done.returncode == 0, done.stdout
    assert server.find("megabytes").get_content() == body.replace("\r\n", "\n") * 50_000 + "\n"


def test_verification_of_addresses_gives_nothing_away(server: Instance) -> None:
    for user in ("alice", "nobody"):
        done = curl.curl(f"smtp://127.0.0.1:{server.smtp_port}/client.test", "--mail-rcpt", f"{user}@a.test")
        assert "252 2.1.5" in done.stdout
