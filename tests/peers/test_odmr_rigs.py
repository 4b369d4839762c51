"""The rigs of on-demand mail relay against one another and against fetchmail: what the interop tests rely on."""

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from tests.peers import fetchmail, process, smtpstone
from tests.peers.certificate import Certificate, self_signed
from tests.peers.fetchmail import Fetchmail
from tests.peers.lines import Message, stuffed
from tests.peers.odmr_customer import OdmrCustomer
from tests.peers.odmr_provider import STAGES, OdmrProvider
from tests.peers.proxies import Cut, CuttingProxy, SlowLink
from tests.peers.smtpstone import SmtpSink


def message(number: int = 0, domain: str = "home.test", size: int = 20) -> Message:
    content = b"Subject: %d\r\n\r\n.dot\r\n" % number + b"x" * size + b"\r\n"
    return Message("sender@away.test", [f"user@{domain}", f"other@{domain}"], content)


MESSAGES = [message(number) for number in range(3)]


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path)


@pytest.fixture
def provider() -> Iterator[OdmrProvider]:
    with OdmrProvider(MESSAGES, domains=("home.test", "second.test")) as provider:
        yield provider


def test_dots_are_stuffed() -> None:
    assert stuffed(b".a\r\n\r\n..\r\n") == b"..a\r\n\r\n...\r\n.\r\n"


def test_a_turn(provider: OdmrProvider) -> None:
    turn = OdmrCustomer(provider.port).pull()
    assert (turn.code, turn.end, turn.early) == (250, "quit", b"")
    assert [(it.sender, it.recipients, it.content) for it in turn.messages] == [
        (it.sender, it.recipients, it.content) for it in MESSAGES
    ]
    seen = provider.wait_for_turn()
    assert (seen.taken, seen.end, provider.held) == (MESSAGES, "quit", [])
    assert seen.said("C")[:2] == ["EHLO customer.test", "AUTH CRAM-MD5"]
    assert seen.said("C")[3:5] == ["ATRN", "220 customer.test ready to receive email"]
    again = OdmrCustomer(provider.port).pull()
    assert (again.code, again.end) == (453, "quit")


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_a_turn_under_tls(certificate: Certificate, tls: str, pipelining: bool) -> None:
    with OdmrProvider(MESSAGES, certificate=certificate, tls=tls, pipelining=pipelining) as provider:
        turn = OdmrCustomer(provider.port, tls=tls).pull("home.test")
        assert (turn.code, turn.end, len(turn.messages)) == (250, "quit", 3)
        seen = provider.wait_for_turn()
        assert (seen.secure, seen.asked) == (tls != "none", ("home.test",))


def test_old_sides_say_helo(provider: OdmrProvider) -> None:
    provider.helo = True
    turn = OdmrCustomer(provider.port, old=True).pull()
    assert len(turn.messages) == 3
    assert "HELO provider.test" in turn.said("P")


def test_refusals_of_the_provider(provider: OdmrProvider) -> None:
    assert OdmrCustomer(provider.port, mechanism=None).pull().code == 530
    assert OdmrCustomer(provider.port, password="wrong").pull().code == 535
    assert OdmrCustomer(provider.port).pull("home.test", "foreign.test").code == 450
    assert OdmrCustomer(provider.port).pull("second.test").code == 453
    provider.answers["ATRN"] = "451 Not now"
    assert OdmrCustomer(provider.port).pull().code == 451
    assert provider.held == MESSAGES
    provider.answers.clear()
    provider.held.clear()
    provider.empty_turn = True
    turn = OdmrCustomer(provider.port).pull()
    assert (turn.code, turn.messages, turn.end) == (250, [], "quit")


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize(("command", "kept"), [("MAIL", 2), ("RCPT", 2), ("DATA", 2), (".", 2)])
def test_refusals_of_the_customer(provider: OdmrProvider, command: str, kept: int, pipelining: bool) -> None:
    provider.pipelining = pipelining
    full = {command: "452 4.3.1 No room"}
    turn = OdmrCustomer(provider.port, replies=full, from_message=1).pull()
    assert (turn.end, len(turn.messages)) == ("quit", 1), turn.transcript
    assert len(provider.wait_for_turn().refused) == kept
    assert provider.held == MESSAGES[1:]


@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_the_provider_closes(provider: OdmrProvider, certificate: Certificate, stage: str, abruptly: bool) -> None:
    if stage == "starttls":
        provider.stop()
        provider = OdmrProvider(MESSAGES, certificate=certificate, tls="starttls")
        provider.start()
    provider.close_at, provider.abruptly = stage, abruptly
    turn = OdmrCustomer(provider.port, tls=provider.tls).pull()
    assert turn.end.startswith("lost"), turn
    assert provider.wait_for_turn().end == "hung up"
    assert provider.held == MESSAGES
    # It is a reset only where it comes before the customer has had to answer.
    assert len(turn.messages) == (stage == "end" and turn.messages != [])
    provider.stop()


@pytest.mark.parametrize("stage", ["greeting", "auth", "atrn", "turned", "EHLO", "MAIL", "RCPT", "DATA", "."])
def test_the_customer_closes(provider: OdmrProvider, stage: str) -> None:
    turn = OdmrCustomer(provider.port, close_at=stage, from_message=stage == "DATA").pull()
    assert turn.end == "hung up", turn
    seen = provider.wait_for_turn()
    assert seen.end is not None
    assert seen.end.startswith("lost")
    assert len(provider.held) == (2 if stage == "DATA" else 3)


# ---------------------------------------------------------------------------------------------- fetchmail


@pytest.fixture
def needs_fetchmail() -> None:
    if missing := fetchmail.why_missing() or smtpstone.why_missing():
        pytest.skip(missing)


@pytest.mark.interop
@pytest.mark.usefixtures("needs_fetchmail")
@pytest.mark.parametrize(("secure", "plugin"), [(False, False), (True, False), (True, True)])
def test_fetchmail_pulls(tmp_path: Path, certificate: Certificate, secure: bool, plugin: bool) -> None:
    held = [message(1), message(2, "second.test")]
    tls = "implicit" if secure else "none"
    domains = ("home.test", "second.test")
    with (
        OdmrProvider(held, domains=domains, certificate=certificate, tls=tls, by_line=not plugin) as provider,
        SmtpSink(capture=True) as sink,
    ):
        ca = certificate.chain if secure else None
        customer = Fetchmail(
            tmp_path / "fetchmail", provider.port, domains, sink.port, tls=secure, ca=ca, plugin=plugin
        )
        done = customer.odmr()
        assert done.returncode == fetchmail.OK, done.stdout
        turn = provider.wait_for_turn()
        assert (turn.asked, turn.end, turn.secure) == (domains, "quit", secure)
        assert len(sink.messages()) == 2
        nothing = customer.odmr()
        assert nothing.returncode == fetchmail.OK, nothing.stdout
        assert "You have no mail" in nothing.stdout


@pytest.mark.interop
@pytest.mark.usefixtures("needs_fetchmail")
def test_fetchmail_closes_where_its_server_is_down(tmp_path: Path, provider: OdmrProvider) -> None:
    customer = Fetchmail(tmp_path / "fetchmail", provider.port, ["home.test"], process.free_port())
    done = customer.odmr()
    assert done.returncode == fetchmail.NO_CONNECTION, done.stdout
    turn = provider.wait_for_turn()
    assert turn.turned
    assert turn.end is not None
    assert turn.end.startswith("lost")
    assert provider.held == MESSAGES


@pytest.mark.interop
@pytest.mark.usefixtures("needs_fetchmail")
def test_fetchmail_tells_a_wrong_password_from_a_refusal(tmp_path: Path, provider: OdmrProvider) -> None:
    stranger = Fetchmail(tmp_path / "stranger", provider.port, ["home.test"], password="wrong").odmr()
    assert stranger.returncode not in (fetchmail.OK, fetchmail.NO_MAIL), stranger.stdout
    assert "535 Wrong user or password" in stranger.stdout
    greedy = Fetchmail(tmp_path / "greedy", provider.port, ["foreign.test"]).odmr()
    assert greedy.returncode == fetchmail.REFUSED, greedy.stdout
    assert provider.held == MESSAGES


# ---------------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize("octets", [1, 40, 300])
def test_a_cut_comes_behind_so_many_octets(provider: OdmrProvider, direction: str, octets: int, reset: bool) -> None:
    with CuttingProxy(provider.port, [Cut(octets, direction, reset)]) as proxy:
        turn = OdmrCustomer(proxy.port).pull()
        assert turn.end.startswith("lost")
        (passed,) = proxy.connections
        assert passed.done.wait(5.0)
        sums = {"up": passed.up, "down": passed.down, "both": passed.up + passed.down}
        assert (passed.cut, sums[direction]) == (True, octets)
        assert provider.wait_for_turn().end.startswith("lost")
        assert not proxy.used_up.is_set()
        whole = OdmrCustomer(proxy.port).pull()
        assert whole.end == "quit"
        assert proxy.used_up.is_set()


def test_each_octet_of_a_turn_can_be_the_last(certificate: Certificate) -> None:
    with OdmrProvider(MESSAGES[:1]) as provider:
        with CuttingProxy(provider.port) as proxy:
            assert OdmrCustomer(proxy.port).pull().end == "quit"
            length = proxy.octets
        cuts = [Cut(after, "both", after % 2 == 0) for after in range(1, length)]
        seen = 0
        with CuttingProxy(provider.port, cuts, certificate=certificate) as proxy:
            for ended in range(1, length):
                provider.wait_for_turn(ended)  # its thread may be about to take what it holds off its list
                provider.held[:] = MESSAGES[:1]
                turn = OdmrCustomer(proxy.port, tls="implicit", quiet=0.0).pull()
                seen += len(turn.messages)
            provider.wait_for_turn(length)
            assert [passed for passed in proxy.connections if not passed.cut] == []
        # It is doubtful only while the reply to its content, or the end, is under way.
        assert 0 < seen < 60


def test_the_slow_link_takes_its_time() -> None:
    size = 20_000
    with (
        OdmrProvider([message(1, size=size)]) as provider,
        SlowLink(provider.port, delay=0.05, rate=400_000) as link,
    ):
        begun = time.monotonic()
        turn = OdmrCustomer(link.port).pull()
        seconds = time.monotonic() - begun
    assert (turn.end, len(turn.messages)) == ("quit", 1)
    assert turn.early == b""
    assert link.down > size
    # Setting up and the greeting take 4 ways, each word and its answer a round trip, the content its octets' time.
    speakers = [line[0] for line in turn.transcript]
    trips = sum(pair == ("C", "P") for pair in pairwise(speakers)) + 1  # the content is not written down
    least = link.delay * (4 + 2 * trips) + size * 8 / link.rate + 0.2
    assert least <= seconds < 1.5 * least + 0.5


def test_the_slow_link_keeps_its_rate_and_no_more_than_its_queue() -> None:
    listener = socket.create_server((process.LOOPBACK, 0))
    with listener, SlowLink(listener.getsockname()[1], delay=0.1, rate=1e6) as link:
        dialled = socket.create_connection((process.LOOPBACK, link.port))
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        accepted, _ = listener.accept()
        with dialled, accepted:
            begun = time.monotonic()
            dialled.settimeout(0.2)
            sent = 0
            while time.monotonic() < begun + 1.0:
                with suppress(TimeoutError):
                    sent += dialled.send(bytes(4096))
            # The queue (25,000 octets), what is on its way or has arrived, and what sockets and tasks hold.
            assert sent < 25_000 + 1.2 * 125_000 + 60_000
            taken, last = 0, begun
            while select.select([accepted], [], [], 1.0)[0]:
                taken += len(accepted.recv(65536))
                last = time.monotonic()
            assert 0.8e6 < taken * 8 / (last - begun - link.delay) < 1.1e6


def test_the_slow_link_as_a_process() -> None:
    with OdmrProvider(MESSAGES) as provider:
        command = [sys.executable, "-m", "tests.peers.proxies", str(provider.port), "--delay", "0.01"]
        link = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert link.stdout is not None
        try:
            turn = OdmrCustomer(int(link.stdout.readline())).pull()
        finally:
            link.terminate()
            said, _ = link.communicate(timeout=10.0)
    assert len(turn.messages) == 3
    assert said.startswith("up ")
