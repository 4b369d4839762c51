"""The line to a provider: which addresses are dialled, with what TLS, and what comes of it. The network is a script."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from mailsuite.delivery.provider_line import LineSettings, ProviderLine
from mailsuite.delivery.pulls import PullPlan
from mailsuite.net.dialer import ConnectFailed
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import TLSFailed
from mailsuite.session.pulling import PullProgress, PullResult, PullStage
from tests.delivery.agents.test_relay import HANDSHAKE_FAILS, FakeConnection, FakeDialer, FakeTLS, in_thread

HOST = "odmr.example.net"
UP = "S: 220 hi\nC: EHLO ship.example.org\nS: 250-odmr\nS: 250-STARTTLS\nS: 250-ETRN\nS: 250 ATRN\n"
STARTTLS = "C: STARTTLS\nS: 220 go on\n"
SECURED = "C: EHLO ship.example.org\nS: 250-odmr\nS: 250 ATRN\n"
NO_MAIL = "C: ATRN\nS: 453 no mail\nC: QUIT\nS: 221 bye\n"
PLAN = PullPlan("isp", HOST)


def line_for(dialer, *addresses, **settings):
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
