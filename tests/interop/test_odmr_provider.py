"""Our customer (`[[pull]]`) against a provider that was written from RFC 2645 alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.instance import Instance, mailsuite
from tests.interop.on_demand import CREDENTIALS, HOME, content, home, pull
from tests.peers.certificate import Certificate, self_signed
from tests.peers.lines import Message
from tests.peers.odmr_provider import OdmrProvider
from tests.peers.process import wait_until

pytestmark = pytest.mark.interop

NEVER = {"at_start": False}


def message(number: int, recipient: str = f"alice@{HOME}", octets: int = 0, options: str = "") -> Message:
    return Message("x@away.test", [recipient], content(number, octets), options)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path)


@pytest.fixture
def providers(certificate: Certificate) -> Iterator[Callable[..., OdmrProvider]]:
    """Start a provider by the arguments of `OdmrProvider`; with STARTTLS, if nothing else is said."""
    started: list[OdmrProvider] = []

    def start(**arguments: Any) -> OdmrProvider:
        provider = OdmrProvider(
            **{"domains": (HOME,), "certificate": certificate, "tls": "starttls", **CREDENTIALS, **arguments}
        )
        started.append(provider)
        provider.start()
        return provider

    yield start
    for provider in started:
        provider.stop()


@pytest.fixture
def homes(tmp_path: Path, certificate: Certificate) -> Iterator[Callable[..., Instance]]:
    """Start our customer, which pulls from a provider by the settings of a `[[pull]]`."""
    started: list[Instance] = []

    def start(provider: OdmrProvider, **settings: Any) -> Instance:
        mode = "implicit" if provider.tls == "implicit" else "verified"
        table = pull(provider.port, **{"tls": mode, **settings})
        instance = home(tmp_path, table, settings={"relay.ca_file": str(certificate.chain)})
        started.append(instance)
        instance.start()
        return instance

    yield start
    for instance in started:
        instance.stop()
        instance.check_log()


def check_pulled(server: Instance, provider: OdmrProvider, count: int) -> None:
    """Verify that alice has each message once, as it was sent, and that the provider is rid of them."""
    wait_until(lambda: len(server.messages()) >= count, why=lambda: f"{provider.turns} {server.log()[-3000:]}")
    server.wait_until_drained()
    assert sorted(server.numbers()) == list(range(count))
    assert provider.held == []


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_pull_at_the_start(
    providers: Callable[..., OdmrProvider], homes: Callable[..., Instance], tls: str, pipelining: bool
) -> None:
    provider = providers(tls=tls, pipelining=pipelining)
    provider.hold(*(message(number, octets=5000) for number in range(20)))
    server = homes(provider)
    check_pulled(server, provider, 20)
    turn = provider.wait_for_turn()
    assert (turn.secure, turn.authenticated, turn.end) == (True, True, "quit")
    assert turn.asked == ()  # all that is ours
    kept = server.messages()[0].read_bytes()
    assert b"with ESMTPS" in kept
    assert kept.endswith(content(server.numbers()[0], 5000).replace(b"\r\n", b"\n"))


def test_it_greets_and_offers_no_more_than_it_should(
    providers: Callable[..., OdmrProvider], homes: Callable[..., Instance]
) -> None:
    provider = providers(messages=[message(0)])
    server = homes(provider, domains=[HOME])
    check_pulled(server, provider, 1)
    turn = provider.wait_for_turn()
    assert turn.asked == (HOME,)
    greetings = [line for line in turn.said("C") if line.startswith("220")]
    assert [greeting.split()[1] for greeting in greetings] == [server.hostname]
    assert {"PIPELINING", "8BITMIME", "SIZE"} <= turn.offered.keys()
    assert not {"AUTH", "STARTTLS", "ETRN", "ATRN", "TURN"} & turn.offered.keys()


def test_it_takes_helo(providers: Callable[..., OdmrProvider], homes: Callable[..., Instance]) -> None:
    provider = providers(messages=[message(0)], helo=True)
    check_pulled(homes(provider), provider, 1)


def test_a_turn_without_mail(providers: Callable[..., OdmrProvider], homes: Callable[..., Instance]) -> None:
    provider = providers(empty_turn=True)
    server = homes(provider)
    turn = provider.wait_for_turn()
    assert (turn.turned, turn.end) == (True, "quit")
    assert server.messages() == []


def test_it_takes_mail_for_its_own_domains_only(
    providers: Callable[..., OdmrProvider], homes: Callable[..., Instance]
) -> None:
    provider = providers(domains=(HOME, "foreign.test"))
    provider.hold(message(1, "x@foreign.test"), message(2, f"nobody@{HOME}"), message(0))
    server = homes(provider)
    server.wait_for(count=1)
    turn = provider.wait_for_turn()
    assert turn.end == "quit"
    # What is final is said of users that it does not have alone: 450 leaves the rest with the provider.
    assert [refusal[:3] for _, refusal in turn.refused] == ["450", "550"], turn.refused


def test_no_credentials_without_tls(providers: Callable[..., OdmrProvider], homes: Callable[..., Instance]) -> None:
    provider = providers(messages=[message(0)], tls="none")
    homes(provider, tls="required")
    turn = provider.wait_for_turn()
    assert not any(line.upper().startswith("AUTH") for line in turn.said("C")), turn.transcript


def test_no_credentials_for_a_certificate_of_another_name(
    providers: Callable[..., OdmrProvider], homes: Callable[..., Instance], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = self_signed(tmp_path / "other", "other.test")
    provider = providers(messages=[message(0)], certificate=other)
    homes(provider)
    turn = provider.wait_for_turn()
    assert not any(line.upper().startswith("AUTH") for line in turn.said("C")), turn.transcript


@pytest.mark.parametrize("answer", ["450 4.7.0 Not yet", "451 4.3.0 Not now", "421 4.3.0 Going down"])
def test_it_comes_again_after_a_refusal(
    providers: Callable[..., OdmrProvider], homes: Callable[..., Instance], answer: str
) -> None:
    provider = providers(messages=[message(0)], answers={"ATRN": answer})
    server = homes(provider)
    provider.wait_for_turn(2)
    provider.answers.clear()
    check_pulled(server, provider, 1)


@pytest.mark.parametrize(
    ("stage", "abruptly"),
    [
        ("greeting", True),
        ("ehlo", False),
        ("starttls", True),
        ("auth", False),
        ("atrn", True),
        ("turned", False),
        ("turned", True),
        ("hello", True),
        ("mail", False),
        ("rcpt", True),
        ("data", False),
        ("content", False),
        ("content", True),
    ],
)
def test_it_comes_again_when_the_line_breaks(
    providers: Callable[..., OdmrProvider], homes: Callable[..., Instance], stage: str, abruptly: bool
) -> None:
    provider = providers(close_at=stage, abruptly=abruptly)
    provider.hold(message(0, octets=20_000), message(1))
    server = homes(provider)
    provider.wait_for_turn(2)
    assert server.messages() == []
    provider.close_at = None
    check_pulled(server, provider, 2)


def test_what_was_answered_by_250_is_kept(
    providers: Callable[..., OdmrProvider], homes: Callable[..., Instance]
) -> None:
    """The provider has the line lost before it hears of it: the message is taken twice, which is the least evil."""
    provider = providers(messages=[message(0)], close_at="end")
    server = homes(provider)
    provider.wait_for_turn()
    provider.close_at = None
    wait_until(lambda: not provider.held, why=server.log)
    server.wait_until_drained()
    assert set(server.numbers()) == {0}


def test_by_hand(providers: Callable[..., OdmrProvider], homes: Callable[..., Instance]) -> None:
    provider = providers()
    server = homes(provider, **NEVER)
    config = ("--config", server.configuration)
    nothing = mailsuite(*config, "pull", "test", "--now")
    assert nothing.returncode == 0, nothing.stdout
    provider.hold(message(0), message(1))
    dry = mailsuite(*config, "pull", "test", "--dry-run")
    assert dry.returncode == 0, dry.stdout
    assert len(provider.held) == 2
    done = mailsuite(*config, "pull", "test", "--now")
    assert done.returncode == 0, done.stdout
    assert "2 messages" in done.stdout
    check_pulled(server, provider, 2)
    provider.answers["ATRN"] = "451 4.3.0 Not now"
    refused = mailsuite(*config, "pull", "test", "--now")
    assert refused.returncode != 0
    assert "451" in refused.stdout
