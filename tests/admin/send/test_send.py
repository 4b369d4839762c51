"""`mailsuite send` as a process: to a server of ours, to nobody, by route."""

import json
import os

import pytest

from tests.instance import Instance, mailsuite
from tests.peers.process import LOOPBACK, free_ports, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    [closed] = free_ports(1)
    routes = [
        {"domain": "dead.test", "next_hop": f"{LOOPBACK}:{closed}"},
        {"domain": "kept.test", "hold": True},
    ]
    with Instance(tmp_path_factory.mktemp("send"), routes=routes) as instance:
        yield instance
        instance.check_log()


@pytest.fixture
def send(server):
    def run(*arguments, stdin=b""):
        done = mailsuite("--config", server.configuration, "send", *arguments, stdin=stdin)
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, done.stdout

    return run


def expect_in_order(said, *texts):
    at = 0
    for text in texts:
        at = said.find(text, at)
        assert at >= 0, f"{text!r} is not there, or too early:\n{said}"


def test_each_step_of_a_delivery_is_told(server, send):
    before = len(server.messages("alice"))
    status, said = send("alice@a.test", "--server", f"{LOOPBACK}:{server.smtp_port}", "--from", "me@client.test")
    assert status == 0, said
    expect_in_order(
        said,
        "as you said",
        "TLS where it is offered, any certificate, by the configuration",
        f"connected to {LOOPBACK}:{server.smtp_port}",
        "220 mail.a.test ESMTP",
        "->      smtp        EHLO mail.a.test",
        "->      smtp        STARTTLS",
        "TLSv1.3",
        "by itself",
        "it is not vouched for by an authority that is trusted here",
        "MAIL FROM:<me@client.test>",
        "RCPT TO:<alice@a.test>",
        "octets of content)",
        "Queued as ",
        "221",
        "outcome     relayed: 127.0.0.1: 2.0.0 Queued as ",
    )
    wait_until(lambda: len(server.messages("alice")) == before + 1)
    octets = max(server.messages("alice"), key=lambda path: path.stat().st_mtime_ns).read_bytes()
    assert b"\nSubject: A test message\n" in octets.replace(b"\r\n", b"\n")


def test_a_dry_run_names_the_recipient_and_sends_nothing(server, send):
    before = len(server.messages("alice"))
    place = f"{LOOPBACK}:{server.smtp_port}"
    status, said = send("alice@a.test", "--server", place, "--dry-run")
    assert status == 0, said
    expect_in_order(said, "RCPT TO:<alice@a.test>", "250 2.1.5", "QUIT", "221", "it would be taken: ")
    assert "DATA" not in said
    assert "BDAT" not in said
    status, said = send("nobody@a.test", "--server", place, "--dry-run")
    assert status == os.EX_UNAVAILABLE
    assert "refused for good, a queued message would go back to its sender: 127.0.0.1: 5.1.1" in said
    assert len(server.messages("alice")) == before


def test_a_certificate_that_proves_nothing_ends_it_and_is_shown(server, send):
    status, said = send("alice@a.test", "--server", f"{LOOPBACK}:{server.smtp_port}", "--tls", "verified")
    assert status == os.EX_TEMPFAIL
    expect_in_order(said, "wrong   tls", "signed by itself", "certificate mail.a.test", "would be tried again")
    status, said = send("alice@a.test", "--server", f"{LOOPBACK}:{server.submissions_port}", "--tls", "implicit")
    assert status == os.EX_TEMPFAIL
    expect_in_order(said, "TLS from the first octet", "wrong   tls", "certificate mail.a.test")


def test_by_route_the_rule_is_told_and_a_host_that_does_not_answer(send):
    status, said = send("bob@dead.test")
    assert status == os.EX_TEMPFAIL
    expect_in_order(said, "bob@dead.test goes to relay:", "wrong   connect", "connection refused", "4.4.1")


def test_what_is_not_relayed_is_told_with_what_would_become_of_it(server, send):
    status, said = send("alice@a.test")
    assert (status, "alice@a.test would be delivered here" in said) == (0, True)
    assert f"say --server {LOOPBACK}:{server.smtp_port} to hand the message to this server" in said
    status, said = send("bob@kept.test")
    assert (status, "bob@kept.test would be held here, for kept.test" in said) == (0, True)
    status, said = send("nobody@a.test")
    assert (status, "this server itself would refuse the recipient: 550 5.1.1" in said) == (os.EX_UNAVAILABLE, True)


def test_json_and_a_message_of_ones_own_and_wishes(server, send):
    status, said = send(
        "alice@a.test",
        *("--server", f"{LOOPBACK}:{server.smtp_port}", "--json", "--message", "-"),
        *("--from", "<>", "--notify", "failure,delay"),
        stdin=b"Subject: 77\n\nhello\n",
    )
    found = json.loads(said)
    assert (status, found["result"]) == (0, "relayed")
    lines = [step["text"] for step in found["steps"] if step["mark"] == "said"]
    assert "RCPT TO:<alice@a.test> NOTIFY=FAILURE,DELAY" in lines
    assert any(line.startswith("MAIL FROM:<> ") for line in lines)
    wait_until(lambda: 77 in [int(n) for n in _subjects(server) if n.isdigit()])


def _subjects(server):
    return [
        path.read_bytes().partition(b"Subject: ")[2].split(b"\n")[0].decode().strip()
        for path in server.messages("alice")
    ]


def test_what_is_asked_wrongly_is_a_sentence(send):
    for arguments, text in [
        (("what",), "'what' is not an address; write it as in user@example.org."),
        (("a@b.test", "--tls", "verified"), "--tls and --lmtp are for --server"),
        (("a@b.test", "--server", "a b"), "--server a b: it is not a host"),
        (("a@b.test", "--notify", "maybe"), "--notify maybe: write never, or some of success,failure,delay."),
        (("a@b.test", "--message", "-"), "it is empty; a message has a header at least"),
    ]:
        status, said = send(*arguments)
        assert status in (1, 2)
        assert text in said
