"""The line to a provider: which addresses are dialled, with what TLS, and what comes of it. The network is a script."""

from base64 import b64encode
from dataclasses import replace

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from mailsuite.delivery.provider_line import LineSettings, ProviderLine
from mailsuite.delivery.pulls import PullPlan
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import TLSFailed
from mailsuite.session.inbound import Door
from mailsuite.session.pulling import PullProgress, PullResult, PullStage
from mailsuite.wire.smtp.offer import Offer
from tests.delivery.agents.test_relay import HANDSHAKE_FAILS, FakeConnection, FakeDialer, FakeTLS, in_thread
from tests.dialogues.house import FakeRouter, FakeSpool, Pace
from tests.net.support import Side

HOST = "odmr.example.net"
UP = "S: 220 hi\nC: EHLO ship.example.org\nS: 250-odmr\nS: 250-STARTTLS\nS: 250-ETRN\nS: 250 ATRN\n"
STARTTLS = "C: STARTTLS\nS: 220 go on\n"
SECURED = "C: EHLO ship.example.org\nS: 250-odmr\nS: 250 ATRN\n"
NO_MAIL = "C: ATRN\nS: 453 no mail\nC: QUIT\nS: 221 bye\n"
PLAN = PullPlan("isp", HOST)


def line_for(dialer, *addresses, clock=None, **settings):
    async def find(host):
        assert host == HOST
        if addresses and isinstance(addresses[0], Exception):
            raise addresses[0]
        return list(addresses)

    return ProviderLine(
        dialer,
        FakeTLS(),
        in_thread,
        LineSettings("ship.example.org", **settings),
        turn=lambda _plan: (None, None),
        addresses=find if addresses else None,
        clock=clock or Clock(),
    )


def result_of(awaitable):
    results = []
    Deferred.fromCoroutine(awaitable).addBoth(results.append)
    assert results, "it waits"
    return results[0]


def pull(dialer, *addresses, plan=PLAN, dry_run=False, progress=None, **settings):
    return result_of(line_for(dialer, *addresses, **settings).pull(plan, dry_run=dry_run, progress=progress))


def test_starttls_demands_the_certificate_of_the_host_whatever_address_is_dialled():
    told: list[PullProgress] = []
    dialer = FakeDialer(**{"192_0_2_1": [[UP + STARTTLS, SECURED + NO_MAIL]]})
    end = pull(dialer, "192.0.2.1", progress=told.append, source_address="192.0.2.9")
    assert (end.stage, end.result) == (PullStage.ASKING, PullResult.NO_MAIL)
    assert dialer.dialled == [("192.0.2.1", 366, None, "192.0.2.9")]
    assert told[0].stage is PullStage.CONNECTING


def test_a_password_file_is_read_for_each_pull(tmp_path):
    file = tmp_path / "password"
    plan = replace(PLAN, username="home", password="from the start", password_file=file)
    ends = []
    for password in ("first", "second"):
        file.write_text(f"{password}\nand a remark\n")
        plain = b64encode(b"\0home\0" + password.encode()).decode()
        secured = "C: EHLO ship.example.org\nS: 250-odmr\nS: 250-ATRN\nS: 250 AUTH PLAIN\n"
        login = f"C: AUTH PLAIN {plain}\nS: 235 ok\n"
        dialer = FakeDialer(**{"192_0_2_1": [[UP + STARTTLS, secured + login + NO_MAIL]]})
        ends.append(pull(dialer, "192.0.2.1", plan=plan).result)
    assert ends == [PullResult.NO_MAIL] * 2


def test_a_password_file_that_cannot_be_read_is_tried_again_and_nobody_is_dialled(tmp_path):
    dialer = FakeDialer()
    end = pull(dialer, "192.0.2.1", plan=replace(PLAN, username="home", password_file=tmp_path / "gone"))
    assert (end.result, end.stage, dialer.dialled) == (PullResult.TEMPORARY, PullStage.CONNECTING, [])
    assert f"password_file {tmp_path / 'gone'} cannot be read: no such file" in end.text


def test_implicit_tls_begins_with_the_first_octet():
    dialer = FakeDialer(odmr_example_net=[UP + NO_MAIL])
    end = pull(dialer, plan=PullPlan("isp", HOST, 2366, tls="implicit"))
    assert end.result is PullResult.NO_MAIL
    assert dialer.dialled == [(HOST, 2366, (HOST, "implicit"), None)]


def test_etrn_and_dry_runs():
    etrn = PullPlan("isp", HOST, 25, etrn=True, domains=("a.example",), tls="none")
    script = UP + "C: ETRN a.example\nS: 253 OK, 14 pending\nC: QUIT\nS: 221 bye\n"
    assert pull(FakeDialer(odmr_example_net=[script]), plan=etrn).result is PullResult.STARTED
    script = UP + "C: QUIT\nS: 221 bye\n"
    assert pull(FakeDialer(odmr_example_net=[script]), plan=etrn, dry_run=True).result is PullResult.CHECKED


def test_addresses_are_tried_until_one_greets_us():
    dialer = FakeDialer(
        **{
            "192_0_2_1": [ConnectFailed("connection refused")],
            "192_0_2_2": ["S: 421 4.3.2 busy\n"],
            "192_0_2_3": [[UP + STARTTLS, HANDSHAKE_FAILS]],
            "192_0_2_4": [[UP + STARTTLS, SECURED + NO_MAIL]],
        }
    )
    addresses = [f"192.0.2.{number}" for number in range(1, 5)]
    assert pull(dialer, *addresses).result is PullResult.NO_MAIL
    assert dialer.hosts == addresses


def test_the_providers_own_word_is_not_asked_for_twice():
    refused = SECURED + "C: ATRN\nS: 450 too soon\nC: QUIT\nS: 221 bye\n"
    dialer = FakeDialer(**{"192_0_2_1": [[UP + STARTTLS, refused]], "192_0_2_2": []})
    end = pull(dialer, "192.0.2.1", "192.0.2.2")
    assert (end.stage, end.result) == (PullStage.ASKING, PullResult.TEMPORARY)
    assert dialer.hosts == ["192.0.2.1"]


def test_only_so_many_addresses_are_tried():
    refusals = {f"192_0_2_{number}": [ConnectFailed("connection refused")] for number in range(1, 9)}
    dialer = FakeDialer(**refusals)
    end = pull(dialer, *(f"192.0.2.{number}" for number in range(1, 9)))
    assert (end.stage, end.result) == (PullStage.CONNECTING, PullResult.TEMPORARY)
    assert end.text == "cannot connect to odmr.example.net: connection refused"
    assert len(dialer.dialled) == 5


@pytest.mark.parametrize(("temporary", "result"), [(True, PullResult.TEMPORARY), (False, PullResult.UNAVAILABLE)])
def test_a_host_without_an_address(temporary, result):
    failure = DnsFailure(HOST, "nothing", temporary=temporary)
    for end in (pull(FakeDialer(), failure), pull(FakeDialer(odmr_example_net=[failure]))):
        assert (end.stage, end.result) == (PullStage.CONNECTING, result)
        assert end.text == "odmr.example.net: nothing"


def test_a_certificate_that_does_not_convince_is_not_tried_again_soon():
    dialer = FakeDialer(odmr_example_net=[[UP + STARTTLS, HANDSHAKE_FAILS]])
    end = pull(dialer)
    assert (end.stage, end.result) == (PullStage.STARTTLS, PullResult.UNAVAILABLE)
    assert end.text == "TLS with odmr.example.net has failed: the certificate has expired"
    implicit = FakeDialer(odmr_example_net=[ConnectFailed("192.0.2.1 port 366: the certificate has expired")])
    assert pull(implicit, plan=PullPlan("isp", HOST, tls="implicit")).result is PullResult.UNAVAILABLE


def test_a_handshake_that_breaks_is_tried_again():
    class Breaking(FakeDialer):
        async def dial(self, *args, **options):
            await super().dial(*args, **options)
            return FakeConnection(TLSFailed("the peer has closed the connection"))

    dialer = Breaking(odmr_example_net=[[UP + STARTTLS, HANDSHAKE_FAILS]])
    assert pull(dialer).result is PullResult.TEMPORARY


class Hanging(FakeDialer):
    """Its connections stay until they are asked to end."""

    async def dial(self, *args, **options):
        self.connection = Polite(Deferred())
        return self.connection


class Polite(FakeConnection):
    """Ends when it is asked to, if it is `polite`."""

    polite = True
    reply = None

    def shutdown(self, reply):
        self.reply = reply
        if self.polite:
            self.ending.callback(None)


class Trickling(FakeDialer):
    """Its connection stays, and lets its session be told what the script of a test says."""

    async def dial(self, _host, _port, core, session, **_options):
        self.connection = Polite(Deferred())
        self.side = Side(session, core)
        return self.connection


def test_a_provider_that_only_keeps_the_line_alive_is_left():
    clock, dialer = Clock(), Trickling()
    router = FakeRouter(frozenset({"anna@example.net"}), Pace())
    offer = Offer("ship.example.org")
    door = Door("ship.example.org", offer, offer, router, FakeSpool(Pace()), clock.seconds)
    line = ProviderLine(
        dialer,
        FakeTLS(),
        in_thread,
        LineSettings("ship.example.org"),
        turn=lambda _plan: door.for_turn(frozenset({"example.net"}), HOST).open(),
        clock=clock,
    )
    ends, told = [], []
    plan = PullPlan("isp", HOST, tls="none")
    Deferred.fromCoroutine(line.pull(plan, progress=told.append)).addBoth(ends.append)
    say = dialer.side.receive
    say(b"220 hi\r\n")
    clock.advance(800)
    say(b"250-odmr\r\n250 ATRN\r\n")
    clock.advance(800)
    say(b"250 now reversing\r\n")
    say(b"EHLO odmr\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\n")
    for octets in (b"Subject: slow\r\n", b"\r\n", b".\r\n"):
        clock.advance(800)
        say(octets)
    assert told[-1].messages == 1
    for _ in range(3):
        clock.advance(240)
        say(b"NOOP\r\n")
    clock.advance(179)
    assert not dialer.connection.aborted
    clock.advance(1)
    assert dialer.connection.aborted
    dialer.side.lose(ConnectionLost())
    [end] = ends
    assert (end.stage, end.result, end.messages) == (PullStage.RECEIVING, PullResult.TEMPORARY, 1)
    assert end.text == "nothing has come for 900 seconds, and the line was closed (receiving)"
    assert clock.getDelayedCalls() == []


def test_a_pull_that_has_ended_leaves_no_alarm():
    clock = Clock()
    dialer = FakeDialer(odmr_example_net=[UP + NO_MAIL])
    result_of(line_for(dialer, clock=clock).pull(PullPlan("isp", HOST, tls="none")))
    assert clock.getDelayedCalls() == []


def test_a_pull_that_is_cancelled_breaks_its_connection_off():
    dialer = Hanging()
    ended = []
    pulling = Deferred.fromCoroutine(line_for(dialer).pull(PLAN))
    pulling.addErrback(lambda failure: ended.append(failure.type))
    pulling.cancel()
    assert dialer.connection.aborted
    assert ended == [CancelledError]


@pytest.mark.parametrize("polite", [True, False])
def test_lines_are_ended_politely_then_for_good(polite):
    dialer, clock = Hanging(), Clock()
    line = line_for(dialer)
    pulling = Deferred.fromCoroutine(line.pull(PLAN))
    dialer.connection.polite = polite
    closing = Deferred.fromCoroutine(line.close(10, clock))
    assert dialer.connection.reply.code == 421
    assert closing.called is polite
    clock.advance(10)
    assert dialer.connection.aborted is not polite
    assert closing.called
    assert pulling.called
    assert clock.getDelayedCalls() == []
