"""smtp-sink in all its failure modes as the first of two next hops: each message arrives once, or comes back once.

What it takes and refuses when it is alone is in `test_smtpstone`. Here it fails at each command in each way, and then
goes away; the second next hop takes everything. Further below: DSN (RFC 3461), which it knows of or not.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from tests.instance import Instance
from tests.interop.conftest import require
from tests.peers import smtpstone
from tests.peers.process import LOOPBACK, wait_until
from tests.peers.smtpstone import SmtpSink
from tests.reports import ReadReport, read_report

pytestmark = pytest.mark.interop

EARLY = ("CONNECT", "EHLO", "EHLO,HELO")
MIDDLE = ("MAIL", "RCPT", "DATA", ".")
LATE = ("RSET", "NOOP", "QUIT")
WAYS = {"later": "-r", "never": "-f", "gone": "-q", "closing": "-Q"}

TAKEN, PASSED_ON, WAITS, BACK = "taken", "passed on", "waits", "back"


def expected(way: str, command: str) -> str:
    """Where a message ends: with the sink, with the second next hop, there after a while, or with its sender."""
    if command in LATE or (command == "EHLO" and way == "never"):
        return TAKEN  # what comes behind a message changes nothing; without EHLO there is HELO
    if command in EARLY:
        return PASSED_ON
    return BACK if way == "never" else WAITS


MODES = {
    f"{way}-{command.lower().replace('.', 'end').replace(',', '-')}": (way, command)
    for way in WAYS
    for command in (*EARLY, *MIDDLE, *LATE)
}


class Rig(NamedTuple):
    relay: Instance
    sinks: dict[str, SmtpSink]
    second: SmtpSink


@pytest.fixture(autouse=True, scope="module")
def needs_smtpstone() -> None:
    require(smtpstone.why_missing())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A message has gone to each sink, and had its attempts; then the sinks have gone away, and nothing waits."""
    with ExitStack() as stack:
        second = stack.enter_context(SmtpSink(capture=True))
        sinks = {
            name: stack.enter_context(SmtpSink(WAYS[way], command, capture=True))
            for name, (way, command) in MODES.items()
        }
        routes = [
            {"domain": f"{name}.test", "next_hop": [f"{LOOPBACK}:{sink.port}", f"{LOOPBACK}:{second.port}"]}
            for name, sink in sinks.items()
        ]
        relay = stack.enter_context(
            Instance(
                tmp_path_factory.mktemp("relay"),
                users=list(sinks),
                routes=routes,
                settings={"receive.trust_loopback": True, "retry.first": 2, "retry.longest": 2},
            )
        )
        for name in sinks:
            with relay.client() as client:
                client.sendmail(relay.address(name), [f"x@{name}.test"], f"Subject: {name}\r\n\r\n")
        wait_until(lambda: all(attempts for _, attempts, _ in relay.queue()), timeout=20, why=relay.log)
        waiting = {address.removeprefix("x@").removesuffix(".test") for address, _, _ in relay.queue()}
        assert waiting == {name for name, mode in MODES.items() if expected(*mode) == WAITS}
        taken = {name: captured(sink, name) for name, sink in sinks.items()}
        for sink in sinks.values():
            sink.stop()
        relay.wait_until_drained(30)
        yield Rig(relay, taken, second)
    relay.check_log()


def captured(sink: SmtpSink, name: str) -> int:
    """How many transactions about this subject a sink has seen the end of the content of."""
    return sum(f"\nSubject: {name}\n\n".encode() in message for message in sink.messages())


@pytest.mark.parametrize("name", MODES)
def test_a_message_arrives_once_or_comes_back_once(rig: Rig, name: str) -> None:
    kind = expected(*MODES[name])
    assert captured(rig.second, name) == (kind in (PASSED_ON, WAITS))
    assert (rig.sinks[name] > 0) == (kind == TAKEN) or MODES[name][1] == "."
    assert rig.sinks[name] == 1 or kind != TAKEN
    told = [report.actions for report in reports(rig.relay, name)]
    assert told == ([{f"x@{name}.test": "failed"}] if kind == BACK else [])


def reports(relay: Instance, user: str) -> list[ReadReport]:
    """What a user has got: reports, and nothing else."""
    return [read_report(path.read_bytes().replace(b"\n", b"\r\n")) for path in relay.messages(user)]


# ------------------------------------------------------------------------------------------------- slow and odd


# Without -p it answers what was pipelined behind the slow one before that, as if it had not been said.
SLOW = [("-p", "-W", "RCPT:1"), ("-p", "-W", "DATA:1"), ("-w", "1"), ("-H", "1"), ("-T", "1024")]


@pytest.mark.parametrize("options", SLOW)
def test_a_slow_sink_keeps_no_other_waiting(instances: Callable[..., Instance], options: tuple[str, ...]) -> None:
    with SmtpSink(*options, capture=True) as slow, SmtpSink(capture=True) as quick:
        routes = [
            {"domain": f"{name}.test", "next_hop": f"{LOOPBACK}:{sink.port}"}
            for name, sink in (("slow", slow), ("quick", quick))
        ]
        relay = instances("a.test", routes=routes, settings={"receive.trust_loopback": True})
        with relay.client() as client:
            for domain in ("slow.test", "quick.test"):
                content = f"Subject: {domain}\r\n\r\n" + 20_000 * "x\r\n"
                client.sendmail("alice@a.test", [f"x@{domain}"], content)
        wait_until(lambda: captured(quick, "quick.test") == 1, timeout=5, why=relay.log)
        relay.wait_until_drained(40)
        assert captured(slow, "slow.test") == 1
        assert relay.messages() == []


# ---------------------------------------------------------------------------------------------------------- DSN

KNOWS_DSN: dict[str, tuple[str, ...]] = {"dsn": (), "dsn-8": ("-8",), "dsn-p": ("-p",), "lmtp": ("-L",)}
NO_DSN: dict[str, tuple[str, ...]] = {
    "no-dsn": ("-N",),
    "no-esmtp": ("-e",),
    "pix": ("-P",),
    "no-statuses": ("-E", "-N"),
    "lmtp-no-dsn": ("-L", "-N"),
}
WISHES = ["RET=HDRS", "ENVID=one+2Btwo"]


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ExitStack() as stack:
        kinds = KNOWS_DSN | NO_DSN
        sinks = {name: stack.enter_context(SmtpSink(*options, capture=True)) for name, options in kinds.items()}
        routes: list[dict[str, Any]] = [
            {"domain": f"{name}.test", "next_hop": f"{LOOPBACK}:{sink.port}", "lmtp": "lmtp" in name}
            for name, sink in sinks.items()
        ]
        relay = Instance(
            tmp_path_factory.mktemp("asking"),
            users=[*sinks, *(f"{name}-never" for name in sinks)],
            routes=routes,
            settings={"receive.trust_loopback": True},
        )
        stack.enter_context(relay)
        yield Rig(relay, sinks, sinks["dsn"])
    relay.check_log()


def ask(relay: Instance, name: str, user: str, notify: str) -> None:
    with relay.client() as client:
        client.ehlo()
        assert client.mail(relay.address(user), WISHES)[0] == 250
        assert client.rcpt(f"x@{name}.test", [f"NOTIFY={notify}", f"ORCPT=rfc822;list+2B{name}@old.test"])[0] == 250
        assert client.data(f"Subject: {user}\r\n\r\nbody\r\n".encode())[0] == 250


def read(relay: Instance, user: str) -> ReadReport:
    wait_until(lambda: relay.messages(user), why=relay.log)
    (report,) = reports(relay, user)
    return report


@pytest.mark.parametrize("name", KNOWS_DSN)
def test_what_was_asked_goes_on_to_a_sink_that_knows_of_it(asking: Rig, name: str) -> None:
    ask(asking.relay, name, name, "SUCCESS,DELAY")
    wait_until(lambda: captured(asking.sinks[name], name) == 1, why=asking.relay.log)
    (message,) = [one for one in asking.sinks[name].messages() if f"Subject: {name}\n".encode() in one]
    envelope = message.partition(b"Received: ")[0].decode()
    assert f"X-Mail-Args: <{name}@a.test> " in envelope
    assert set(WISHES) <= set(envelope.partition("X-Mail-Args: ")[2].partition("\n")[0].split())
    asked = envelope.partition("X-Rcpt-Args: ")[2].partition("\n")[0].split()
    assert asked[0] == f"<x@{name}.test>"
    assert set(asked[1:]) == {"NOTIFY=SUCCESS,DELAY", f"ORCPT=rfc822;list+2B{name}@old.test"}
    asking.relay.wait_until_drained()
    assert asking.relay.messages(name) == []


@pytest.mark.parametrize("name", NO_DSN)
def test_a_sink_that_does_not_know_of_it_has_us_report_the_success(asking: Rig, name: str) -> None:
    ask(asking.relay, name, name, "SUCCESS")
    report = read(asking.relay, name)
    (message,) = [one for one in asking.sinks[name].messages() if f"Subject: {name}\n".encode() in one]
    envelope = message.partition(b"Received: ")[0]
    assert not any(word in envelope for word in (b"NOTIFY", b"ORCPT", b"ENVID", b"RET="))
    # RFC 3461 section 6.2.7.2 and 5.2.5: who relays to a host that knows nothing of this says "relayed"; LMTP delivers.
    assert report.actions == {f"x@{name}.test": "delivered" if "lmtp" in name else "relayed"}
    assert report.of_message["Original-Envelope-Id"] == "one+two"
    assert report.recipients[0]["Original-Recipient"] == f"rfc822; list+{name}@old.test"
    assert report.returned_type == "text/rfc822-headers"


@pytest.mark.parametrize("name", NO_DSN)
def test_who_wants_to_hear_nothing_hears_nothing(asking: Rig, name: str) -> None:
    ask(asking.relay, name, f"{name}-never", "NEVER")
    wait_until(lambda: captured(asking.sinks[name], f"{name}-never") == 1, why=asking.relay.log)
    asking.relay.wait_until_drained()
    assert asking.relay.messages(f"{name}-never") == []
