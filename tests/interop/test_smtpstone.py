"""Postfix's load generator sends to us, and we relay to its black hole, which refuses in every way it can."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from tests.instance import Instance
from tests.interop.conftest import require
from tests.peers import smtpstone
from tests.peers.process import LOOPBACK, wait_until
from tests.peers.smtpstone import SmtpSink, recipient_names, smtp_source

pytestmark = pytest.mark.interop

EIGHT_BIT = "Subject: %s\r\n\r\n.\r\nžlutý\r\n"

# By the name of the domain that is relayed to it: the options of an smtp-sink.
TAKERS = {
    "esmtp": (),
    "helo": ("-e",),
    "pix": ("-P",),
    "nopipelining": ("-p",),
    "no8bit": ("-8",),
    "noenhanced": ("-E",),
    "ehlo-refused": ("-f", "EHLO"),
    "slow": ("-w", "1"),
    "lmtp": ("-L",),
}
REFUSERS = {
    **{f"never-{command.lower()}": ("-f", command) for command in ("MAIL", "RCPT", "DATA")},
    "never-content": ("-f", "."),
    "never-words": ("-f", "RCPT", "-B", "553 5.1.3 Not in this house"),
    "never-lmtp": ("-L", "-f", "."),
}
DEFERRERS = {
    **{f"later-{command.lower()}": ("-r", command) for command in ("CONNECT", "MAIL", "RCPT", "DATA")},
    "later-content": ("-r", "."),
    "later-helo": ("-r", "EHLO,HELO"),
    # What a next hop of our own configuration says before it takes mail never bounces any.
    "never-connect": ("-f", "CONNECT"),
    "never-helo": ("-f", "EHLO,HELO"),
    **{f"gone-{command.lower()}": ("-q", command) for command in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA")},
    "gone-content": ("-q", "."),
    **{f"closing-{command.lower()}": ("-Q", command) for command in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA")},
    "closing-content": ("-Q", "."),
}
SINKS = TAKERS | REFUSERS | DEFERRERS


class Rig(NamedTuple):
    relay: Instance
    sinks: dict[str, SmtpSink]


@pytest.fixture(autouse=True, scope="module")
def needs_smtpstone() -> None:
    require(smtpstone.why_missing())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A sink of each kind, and a relay with a route to each. Each has a sender of its own to bounce to."""
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(SmtpSink(*options, capture=True)) for name, options in SINKS.items()}
        routes = [
            {"domain": f"{name}.test", "next_hop": f"{LOOPBACK}:{sink.port}", "lmtp": "lmtp" in name}
            for name, sink in sinks.items()
        ]
        relay = Instance(
            tmp_path_factory.mktemp("relay"),
            users=list(SINKS),
            routes=routes,
            settings={"receive.trust_loopback": True, "retry.first": 2, "retry.longest": 30},
        )
        stack.enter_context(relay)
        yield Rig(relay, sinks)
    relay.check_log()


def send(relay: Instance, name: str, *recipients: str, content: str = EIGHT_BIT) -> None:
    names = recipients or (f"x@{name}.test",)
    with relay.client() as client:
        text = (content % name).encode()
        client.sendmail(relay.address(name), names, text, mail_options=["BODY=8BITMIME"])


def waiting(relay: Instance, name: str) -> list[tuple[int, str]]:
    """Return attempts and last words of what waits for a sink, once it was tried."""
    return [(tries, said) for address, tries, said in relay.queue() if address.endswith(f"@{name}.test") and tries]


@pytest.mark.parametrize("name", TAKERS)
def test_what_the_sink_takes_is_whole(rig: Rig, name: str) -> None:
    send(rig.relay, name, f"x@{name}.test", f"y@{name}.test")
    wait_until(lambda: len(rig.sinks[name].messages()) == 1 and not waiting(rig.relay, name), why=rig.relay.log)
    wait_until(lambda: "žlutý\n".encode() in rig.sinks[name].messages()[0], why=rig.relay.log)
    (message,) = rig.sinks[name].messages()
    envelope, _, content = message.partition(b"Received: ")
    assert envelope.count(b"X-Rcpt-Args: <") == 2
    assert f"X-Mail-Args: <{name}@a.test>".encode() in envelope
    assert content.rstrip(b"\n").endswith("\n\n.\nžlutý".encode())
    wait_until(lambda: f"@{name}.test" not in str(rig.relay.queue()), why=rig.relay.log)
    assert rig.relay.messages(name) == []


def recipient_of(report: Any) -> Any:
    return report.get_payload()[1].get_payload()[1]


@pytest.mark.parametrize("name", REFUSERS)
def test_what_the_sink_refuses_comes_back(rig: Rig, name: str) -> None:
    send(rig.relay, name)
    (report,) = rig.relay.wait_for(name)
    of_recipient = recipient_of(report)
    assert of_recipient["Final-Recipient"] == f"rfc822; x@{name}.test"
    words = "553 5.1.3 Not in this house" if name == "never-words" else "500 5.3.0 Error: command failed"
    assert of_recipient["Diagnostic-Code"] == f"smtp; {words}"
    assert of_recipient["Status"] == words.split()[1]
    assert f"@{name}.test" not in str(rig.relay.queue())


@pytest.mark.parametrize("name", DEFERRERS)
def test_what_the_sink_does_not_take_now_waits(rig: Rig, name: str) -> None:
    send(rig.relay, name)
    wait_until(lambda: waiting(rig.relay, name), why=rig.relay.log)
    ((_, said),) = waiting(rig.relay, name)
    assert said
    assert rig.relay.messages(name) == []


def test_a_peer_that_refuses_in_the_midst_of_the_content_is_heard(instances: Callable[..., Instance]) -> None:
    # It reads no further behind its 354, and says 550 while we send.
    with SmtpSink("-A", "1") as sink:
        hop = {"domain": "b.test", "next_hop": f"{LOOPBACK}:{sink.port}"}
        relay = instances("a.test", routes=[hop], settings={"receive.trust_loopback": True})
        send_large = "Subject: %s\r\n\r\n" + 200_000 * "no further than here\r\n"
        with relay.client() as client:
            client.sendmail("alice@a.test", ["x@b.test"], send_large % "large")
        wait_until(lambda: relay.messages() or waiting(relay, "b"), timeout=20, why=relay.log)
        if relay.messages():
            assert "550" in recipient_of(relay.wait_for()[0])["Diagnostic-Code"]
        else:
            # Its closing may destroy its words on their way, as it has left ours unread.
            assert "lost" in waiting(relay, "b")[0][1]


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_smtp_source_sends_to_several_recipients_over_several_sessions(
    instances: Callable[..., Instance], keep: bool, lmtp: bool
) -> None:
    names = [name.partition("@")[0] for name in recipient_names("user@a.test", 3)]
    server = instances("a.test", users=names)
    port = server.lmtp_port if lmtp else server.smtp_port
    arguments = {"messages": 100, "sessions": 10, "recipients": 3, "keep": keep, "lmtp": lmtp}
    sent = smtp_source(port, recipient="user@a.test", **arguments)
    assert sent.returncode == 0, sent.stdout
    wait_until(lambda: all(len(server.messages(name)) == 100 for name in names), timeout=20, why=server.log)
    server.wait_until_drained()
    server.check_leftovers()


def test_everything_goes_on_over_few_connections(instances: Callable[..., Instance]) -> None:
    """A hundred messages wait for a server that is down; when it comes up they reach it over kept connections."""
    sink = SmtpSink("-n", "20", capture=True)  # it ends itself after twenty sessions
    hop = {"domain": "b.test", "next_hop": f"{LOOPBACK}:{sink.port}", "relay": True}
    relay = instances("a.test", routes=[hop])
    sent = smtp_source(relay.smtp_port, messages=100, sessions=5, keep=True, recipient="x@b.test")
    assert sent.returncode == 0, sent.stdout
    wait_until(lambda: len(relay.queue()) == 100, why=relay.log)
    with sink:
        relay.wait_until_drained(20)
        messages = sink.messages()
    assert len(messages) == 100
