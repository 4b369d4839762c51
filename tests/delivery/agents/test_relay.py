"""The relay agent: which hosts it dials, and what a run comes to. The sessions are real, the network is a script."""

from base64 import b64encode

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mailsuite.delivery.agents.relay import RelayAgent, RelayAgentSettings
from mailsuite.delivery.next_hops import Unroutable
from mailsuite.interfaces import IDeliveryAgent
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import RELAY, Destination, NextHop
from mailsuite.mail.session import Peer
from mailsuite.mail.status import EnhancedStatus
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import TLSFailed
from tests.session.scripted import TLS, ListedRun, ScriptedConversation, make_delivery

A, B, C = NextHop("a.example"), NextHop("b.example"), NextHop("c.example")
UP = "S: 220 hello\nC: EHLO relay.example.org\nS: 250 mx.example.net\n"
UP_WITH_TLS = "S: 220 hello\nC: EHLO relay.example.org\nS: 250-mx.example.net\nS: 250 STARTTLS\n"
BYE = "C: QUIT\nS: 221 bye\n"
MAIL = """
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
C: Subject: hello
C:
C: Good morning.
C: .
S: 250 ok
"""
STARTTLS = "C: STARTTLS\nS: 220 go on\n"
SECURED = "C: EHLO relay.example.org\nS: 250 mx.example.net\n"
HANDSHAKE_FAILS = object()
REFUSED = ConnectFailed("connection refused")
ADDRESS = "192.0.2.25"


class Run(ListedRun):
    """A run that may fail as a whole."""

    def __init__(self, *deliveries, destination=Destination(RELAY, "example.net")):  # noqa: B008 - a value
        super().__init__(*deliveries)
        self.destination = destination
        self.failed = None

    def fail(self, outcome):
        assert self.failed is None
        self.failed = outcome


class FakeConnection:
    def __init__(self, ending=None):
        self.ending = Deferred()
        self.aborted = False
        if not isinstance(ending, Deferred):
            self.ending.callback(ending)

    def finished(self):
        waiter = Deferred()
        self.ending.addBoth(lambda ending: waiter.called or waiter.callback(ending) or ending)
        return waiter

    def abort(self):
        self.aborted = True
        self.ending.callback(None)


class FakeDialer:
    """Each address has its scripts, one for each connection (a list: with TLS in between), or an error.

    Of several addresses that are given each is tried after the one before.
    """

    def __init__(self, **hosts):
        self.scripts = {name.replace("_", "."): list(scripts) for name, scripts in hosts.items()}
        self.dialled = []

    async def dial(self, host, port, core, session, *, tls=None, source_address=None, addresses=None, failed=None):
        failures = []
        for address in addresses or [host]:
            self.dialled.append((address, port, tls, source_address))
            script = self.scripts[address].pop(0)
            if not isinstance(script, ConnectFailed):
                return await self._hold(script, core, session, tls, address if addresses else ADDRESS)
            failures.append(script)
            if failed is not None:
                failed(address, str(script))
        raise ConnectFailed("; ".join(map(str, failures)), failures[-1].tls)

    async def _hold(self, script, core, session, tls, address):
        if isinstance(script, Exception):
            raise script
        handover = None
        for number, part in enumerate([script] if isinstance(script, str) else script):
            if part is HANDSHAKE_FAILS:
                return FakeConnection(TLSFailed("the certificate has expired"))
            conversation = ScriptedConversation(core, part, tls=TLS if tls or number else None)
            conversation.peer = Peer(address if address[0].isdigit() else ADDRESS, 25)
            handover = await session(conversation)
            conversation.check()
            if handover is not None:
                core, session = handover.core, handover.session
        assert handover is None
        return FakeConnection()

    @property
    def hosts(self):
        return [host for host, *_ in self.dialled]


class FakeTLS:
    def for_host(self, hostname, mode):
        return (hostname, mode)

    def for_policy(self, hostname, policy, *, certificate=None, key=None):
        return (hostname, policy.mode) if certificate is None else (hostname, policy.mode, certificate, key)


class FakeNextHops:
    def __init__(self, *hops):
        self.hops = hops

    async def find(self, destination):
        if isinstance(self.hops[0], Exception):
            raise self.hops[0]
        return self.hops


async def in_thread(function, *args):
    return function(*args)


async def itself(host):
    """A host whose only address goes by its name."""
    return [host]


def agent_for(dialer, *hops, addresses=itself, policies=None, clock=None, **settings):
    return RelayAgent(
        FakeNextHops(*hops),
        dialer,
        FakeTLS(),
        in_thread,
        RelayAgentSettings("relay.example.org", **settings),
        addresses=addresses,
        clock=clock or Clock(),
        policies=policies,
    )


def relay(dialer, *hops, deliveries=1, destination=Destination(RELAY, "example.net"), **settings):  # noqa: B008 - a value
    run = Run(*(make_delivery(f"q{number}") for number in range(deliveries)), destination=destination)
    done = Deferred.fromCoroutine(agent_for(dialer, *hops, **settings).deliver(run))
    errors = []
    done.addErrback(errors.append)
    assert done.called
    assert errors == []
    run.check_accounts()
    return run


def test_it_is_an_agent() -> None:
    agent = agent_for(FakeDialer(), A, concurrency=7)
    assert verifyObject(IDeliveryAgent, agent)
    assert (agent.name, agent.concurrency) == (RELAY, 7)


def test_one_connection_drains_the_run() -> None:
    dialer = FakeDialer(a_example=[UP + MAIL + MAIL + BYE])
    run = relay(dialer, A, B, deliveries=2, source_address="192.0.2.9")
    assert list(run.settled) == ["q0", "q1"]
    assert dialer.dialled == [("a.example", 25, None, "192.0.2.9")]
    assert run.failed is None


def test_a_password_file_is_read_for_each_run(tmp_path) -> None:
    file = tmp_path / "password"
    hop = NextHop("a.example", tls="required", username="us", password="from the start", password_file=file)
    hello = "C: EHLO relay.example.org\nS: 250-mx.example.net\nS: 250 AUTH PLAIN\n"
    for password in ("first", "second"):
        file.write_text(f"{password}\n")
        plain = b64encode(b"\0us\0" + password.encode()).decode()
        login = f"C: AUTH PLAIN {plain}\nS: 235 ok\n"
        mail = MAIL.replace("<ann@example.org>", "<ann@example.org> AUTH=<>")
        dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, hello + login + mail + BYE]])
        assert relay(dialer, hop).results("q0") == ["relayed"]


def test_a_password_file_that_cannot_be_read_defers(tmp_path) -> None:
    dialer = FakeDialer()
    run = relay(dialer, NextHop("a.example", tls="required", username="us", password_file=tmp_path / "gone"))
    assert (run.failed.result, str(run.failed.status), dialer.dialled) == (Result.DEFERRED, "4.3.5", [])
    assert "gone cannot be read" in run.failed.text


def test_hosts_are_tried_in_order_until_one_takes_mail() -> None:
    dialer = FakeDialer(
        a_example=[REFUSED],
        b_example=["S: 421 4.3.2 busy\n"],
        c_example=[UP + MAIL + BYE],
    )
    run = relay(dialer, A, B, C)
    assert dialer.hosts == ["a.example", "b.example", "c.example"]
    assert run.results("q0") == ["relayed"]
    assert run.failed is None


def test_each_address_of_a_host_is_tried_with_a_session_of_its_own() -> None:
    async def addresses(host):
        return {"a.example": ["192.0.2.1", "192.0.2.2"], "b.example": ["192.0.2.3"]}[host]

    dialer = FakeDialer(
        **{"192_0_2_1": [REFUSED], "192_0_2_2": ["S: 554 go away\n" + BYE], "192_0_2_3": [UP + MAIL + BYE]}
    )
    run = relay(dialer, A, B, addresses=addresses)
    assert dialer.hosts == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert run.settled["q0"][0].remote == "b.example"


def test_only_so_many_addresses_are_tried_in_one_run() -> None:
    async def addresses(host):
        return [f"{host}{number}" for number in range(4)]

    dialer = FakeDialer(**{f"{host}_example{number}": [REFUSED] for host in "ab" for number in range(4)})
    run = relay(dialer, A, B, addresses=addresses, attempts=5)
    assert len(dialer.hosts) == 5
    assert (run.failed.result, str(run.failed.status)) == (Result.DEFERRED, "4.4.1")
    assert run.failed.text == "cannot connect to b.example: connection refused"
    assert run.failed.remote == "b.example"
    assert run.taken == []


@pytest.mark.parametrize("result", [Result.DEFERRED, Result.FAILED])
def test_an_unroutable_destination_fails_as_it_is_said(result) -> None:
    outcome = Outcome(result, EnhancedStatus(5, 1, 2), "no such domain")
    dialer = FakeDialer()
    run = relay(dialer, Unroutable(outcome))
    assert run.failed is outcome
    assert dialer.dialled == []


def test_it_fails_for_good_only_where_every_host_says_so() -> None:
    no = "S: 554 5.3.2 no mail here\n" + BYE
    assert relay(FakeDialer(a_example=[no], b_example=[no]), A, B).failed.result is Result.FAILED
    assert relay(FakeDialer(a_example=[REFUSED], b_example=[no]), A, B).failed.result is Result.DEFERRED
    assert relay(FakeDialer(a_example=[no], b_example=[REFUSED]), A, B).failed.result is Result.DEFERRED


def test_a_configured_next_hop_never_bounces_mail_by_its_greeting() -> None:
    dialer = FakeDialer(a_example=["S: 554 5.3.2 no mail here\n" + BYE])
    run = relay(dialer, A, destination=Destination(RELAY, "us@[a.example]:587"))
    assert (run.failed.result, str(run.failed.status)) == (Result.DEFERRED, "4.3.2")


@pytest.mark.parametrize(
    ("temporary", "result", "status"), [(True, Result.DEFERRED, "4.4.3"), (False, Result.FAILED, "5.4.4")]
)
def test_hosts_without_an_address(temporary, result, status) -> None:
    async def addresses(host):
        raise DnsFailure(host, "nothing", temporary=temporary)

    run = relay(FakeDialer(), A, B, addresses=addresses)
    assert (run.failed.result, str(run.failed.status)) == (result, status)


def test_a_host_without_an_address_is_passed_over() -> None:
    async def addresses(host):
        if host == "a.example":
            raise DnsFailure(host, "no such domain", temporary=False)
        return [host]

    run = relay(FakeDialer(b_example=[UP + MAIL + BYE]), A, B, addresses=addresses)
    assert run.results("q0") == ["relayed"]


def test_tls_is_taken_up_where_it_is_offered() -> None:
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, SECURED + MAIL + BYE]])
    assert relay(dialer, A).results("q0") == ["relayed"]


def test_opportunistic_tls_that_fails_is_tried_again_in_plaintext() -> None:
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, HANDSHAKE_FAILS], UP_WITH_TLS + MAIL + BYE])
    run = relay(dialer, A, B)
    assert dialer.hosts == ["a.example", "a.example"]
    assert run.results("q0") == ["relayed"]


@pytest.mark.parametrize("mode", ["required", "verified"])
def test_demanded_tls_that_fails_is_never_tried_in_plaintext(mode) -> None:
    dialer = FakeDialer(a_example=[[UP_WITH_TLS + STARTTLS, HANDSHAKE_FAILS]])
    run = relay(dialer, NextHop("a.example", tls=mode))
    assert dialer.hosts == ["a.example"]
    assert (run.failed.result, str(run.failed.status)) == (Result.DEFERRED, "4.7.5")
    assert run.failed.text == "TLS with a.example has failed: the certificate has expired"


@pytest.mark.parametrize("mode", ["required", "verified"])
def test_demanded_tls_that_is_not_offered_keeps_the_mail(mode) -> None:
    dialer = FakeDialer(a_example=[UP + BYE])
    run = relay(dialer, NextHop("a.example", tls=mode))
    assert dialer.hosts == ["a.example"]
    assert run.failed.result is Result.DEFERRED
    assert run.taken == []


def test_implicit_tls_begins_with_the_first_octet() -> None:
    dialer = FakeDialer(a_example=[UP + MAIL + BYE])
    run = relay(dialer, NextHop("a.example", 465, tls="implicit"))
    assert dialer.dialled == [("a.example", 465, ("a.example", "implicit"), None)]
    assert run.results("q0") == ["relayed"]


def test_lmtp_is_spoken_where_the_next_hop_does() -> None:
    script = (UP + MAIL + BYE).replace("EHLO", "LHLO")
    run = relay(FakeDialer(a_example=[script]), NextHop("a.example", 24, lmtp=True))
    assert run.results("q0") == ["delivered"]


def test_a_connection_lost_after_some_mail_is_no_failure_of_the_destination() -> None:
    dialer = FakeDialer(a_example=[UP + MAIL + "C: MAIL FROM:<ann@example.org>\nX: close\n"])
    run = relay(dialer, A, B, deliveries=3)
    assert dialer.hosts == ["a.example"]
    assert run.results("q0") == ["relayed"]
    assert run.failed is None


@pytest.mark.parametrize(
    "script",
    [
        UP + "C: MAIL FROM:<ann@example.org>\nX: close\n",
        UP + "C: MAIL FROM:<ann@example.org>\nS: 421 4.3.2 going down\n",
        UP + "C: MAIL FROM:<ann@example.org>\nS: 250 ok\nC: RCPT TO:<bob@example.net>\nX: slow\n",
    ],
)
def test_a_host_that_hangs_up_on_the_first_message_does_not_get_them_one_by_one(script) -> None:
    dialer = FakeDialer(a_example=[script], b_example=[REFUSED])
    run = relay(dialer, A, B, deliveries=50)
    assert dialer.hosts == ["a.example", "b.example"]
    assert len(run.settled) <= 1
    assert run.failed.result is Result.DEFERRED


def test_connections_are_bounded_over_all_destinations() -> None:
    waiting = []

    class SlowDialer(FakeDialer):
        async def dial(self, *args, **kwargs):
            waiting.append(Deferred())
            await waiting[-1]
            return await super().dial(*args, **kwargs)

    dialer = SlowDialer(a_example=[UP + MAIL + BYE] * 5)
    agent = agent_for(dialer, A, connections=4)
    runs = [Run(make_delivery()) for _ in range(5)]
    done = [Deferred.fromCoroutine(agent.deliver(run)) for run in runs]
    assert len(waiting) == 2  # of four: the other two are for those that have proved alive
    for _ in range(5):
        waiting[len(dialer.dialled)].callback(None)
    assert all(one.called for one in done)
    assert len(dialer.dialled) == 5


def test_a_run_that_is_cancelled_breaks_its_connection_off_and_waits_for_its_end() -> None:
    ended = []

    class Hanging(FakeDialer):
        async def dial(self, host, *args, **options):
            self.connection = FakeConnection(Deferred())
            return self.connection

    dialer = Hanging()
    done = Deferred.fromCoroutine(agent_for(dialer, A).deliver(Run(make_delivery())))
    done.addErrback(lambda failure: ended.append(failure.type))
    assert not done.called
    done.cancel()
    assert dialer.connection.aborted
    assert ended == [CancelledError]
