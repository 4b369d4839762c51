"""A customer that was written from RFC 2645 alone, against our provider."""

import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.instance import PASSWORD, Instance
from tests.interop.on_demand import CREDENTIALS, HOME, SECOND, check_held, content, hand_in, held, provider
from tests.peers.lines import Message
from tests.peers.odmr_customer import CustomerTurn, OdmrCustomer
from tests.peers.process import LOOPBACK, wait_until

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with provider(tmp_path_factory.mktemp("odmr")) as instance:
        yield instance
    instance.check_log()


@pytest.fixture(autouse=True)
def begin_empty(request: pytest.FixtureRequest) -> None:
    """Have nothing held when a test begins, whatever the last one has left."""
    if "holder" in request.fixturenames:
        server = request.getfixturevalue("holder")
        if held(server):
            ask(server)
        wait_until(lambda: not held(server), why=lambda: str(server.queue()))


@pytest.fixture
def providers(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    """Start a provider by the arguments of `provider`."""
    started: list[Instance] = []

    def start(**arguments: Any) -> Instance:
        instance = provider(tmp_path, **arguments)
        started.append(instance)
        instance.start()
        return instance

    yield start
    for instance in started:
        instance.stop()
        instance.check_log()


def ask(server: Instance, *domains: str, **how: Any) -> CustomerTurn:
    port = server.odmrs_port if how.get("tls") == "implicit" else server.odmr_port
    return OdmrCustomer(port, **{**CREDENTIALS, **how}).pull(*domains)


def numbers(turn: CustomerTurn) -> list[int]:
    return [int(message.content.partition(b"\nSubject: ")[2].partition(b"\r")[0]) for message in turn.messages]


def check_whole(message: Message, number: int, octets: int = 0) -> None:
    """Verify that a message came as it was sent, below the provider's trace."""
    header, _, rest = message.content.partition(b"From: ")
    assert header.startswith(b"Received: ")
    assert b"From: " + rest == content(number, octets)


@pytest.mark.parametrize("extensions", [(), ("PIPELINING",), ("PIPELINING", "8BITMIME", "SIZE", "CHUNKING", "DSN")])
@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_a_turn(holder: Instance, tls: str, extensions: tuple[str, ...]) -> None:
    hand_in(holder, range(3), octets=2000)
    hand_in(holder, [3], recipient=f"alice@{SECOND}")
    turn = ask(holder, HOME, tls=tls, extensions=extensions)
    assert (turn.code, turn.end, turn.early) == (250, "quit", b""), turn
    assert {"AUTH", "ATRN"} <= turn.offered.keys()
    assert "CRAM-MD5" in turn.offered["AUTH"].split()
    assert sorted(numbers(turn)) == [0, 1, 2]
    for message in turn.messages:
        assert (message.sender, message.recipients) == ("x@away.test", [f"alice@{HOME}"])
        check_whole(message, numbers(turn)[turn.messages.index(message)], 2000)
    check_held(holder, 1)
    assert numbers(ask(holder, SECOND, tls=tls)) == [3]
    check_held(holder, 0)


def test_a_bare_atrn_means_all_domains(holder: Instance) -> None:
    hand_in(holder, [1])
    hand_in(holder, [2], recipient=f"bob@{SECOND}")
    assert sorted(numbers(ask(holder))) == [1, 2]


def test_several_domains_and_any_case(holder: Instance) -> None:
    hand_in(holder, [1])
    hand_in(holder, [2], recipient=f"bob@{SECOND.upper()}")
    assert sorted(numbers(ask(holder, HOME.upper(), SECOND))) == [1, 2]


def test_a_customer_that_knows_helo_only(holder: Instance) -> None:
    hand_in(holder, [1])
    turn = ask(holder, old=True)
    assert (turn.end, numbers(turn)) == ("quit", [1])
    assert any(line.startswith("HELO ") for line in turn.said("P"))


def test_refusals(holder: Instance) -> None:
    assert ask(holder).code == 453
    hand_in(holder, [1])
    assert ask(holder, mechanism=None).code == 530
    assert ask(holder, password="wrong").code == 535
    assert ask(holder, user="nobody").code == 535
    assert ask(holder, HOME, "foreign.test").code == 450
    assert ask(holder, SECOND).code == 453
    check_held(holder, 1)


def test_other_commands_are_not_here(holder: Instance) -> None:
    """RFC 2645 section 5.4."""
    with smtplib.SMTP(LOOPBACK, holder.odmr_port, "client.test", timeout=10) as client:
        client.ehlo()
        assert client.docmd("MAIL", "FROM:<x@away.test>")[0] in (502, 530)
        assert client.docmd("ETRN", HOME)[0] == 502
        assert client.docmd("ATRN", HOME)[0] == 530


@pytest.mark.parametrize("stage", ["greeting", "auth", "atrn", "turned", "EHLO"])
@pytest.mark.parametrize("abruptly", [False, True])
def test_a_line_that_breaks_before_the_mail_counts_as_no_attempt(holder: Instance, stage: str, abruptly: bool) -> None:
    hand_in(holder, [1, 2])
    assert ask(holder, close_at=stage, abruptly=abruptly).end == "hung up"
    check_held(holder, 2)
    assert numbers(again(holder)) == [1, 2]


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("abruptly", [False, True])
def test_a_line_that_breaks_repeats_the_message_under_way(holder: Instance, stage: str, abruptly: bool) -> None:
    hand_in(holder, range(4))
    turn = ask(holder, close_at=stage, from_message=2, abruptly=abruptly)
    assert (turn.end, numbers(turn)) == ("hung up", [0, 1])
    # What broke the line comes last, so that it keeps nothing else waiting.
    assert numbers(again(holder)) == [3, 2]


def again(server: Instance) -> CustomerTurn:
    """Ask once more; the provider may still have to hear that the last connection is gone."""
    deadline = time.monotonic() + 5.0
    while (turn := ask(server)).code == 450:
        assert time.monotonic() < deadline, turn
    return turn


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)])
def test_a_customer_whose_disk_is_full(holder: Instance, command: str, extensions: tuple[str, ...]) -> None:
    hand_in(holder, range(5))
    turn = ask(holder, replies={command: "452 4.3.1 No room"}, from_message=2, extensions=extensions)
    assert (turn.end, numbers(turn)) == ("quit", [0, 1]), turn.transcript
    wait_until(lambda: held(holder) == 3)
    assert sorted(numbers(again(holder))) == [2, 3, 4]


def test_a_message_that_the_customer_refuses_for_good_is_returned(holder: Instance) -> None:
    with holder.client() as client:
        client.sendmail("alice@provider.test", [f"nobody@{HOME}"], content(7))
    turn = ask(holder, replies={"RCPT": "550 5.1.1 Nobody here"})
    assert (turn.end, turn.messages) == ("quit", [])
    report = holder.find("Your message could not be delivered")
    assert "550 5.1.1 Nobody here" in report.as_string()
    check_held(holder, 0)


def test_mail_that_comes_meanwhile_is_in_the_turn(holder: Instance) -> None:
    hand_in(holder, [0])
    late = threading.Thread(target=lambda: hand_in(holder, range(1, 20)))
    late.start()
    turn = ask(holder, quiet=0.5)  # it greets when the others are there
    late.join()
    assert (turn.end, sorted(numbers(turn))) == ("quit", list(range(20)))


def test_two_turns_at_once(holder: Instance) -> None:
    hand_in(holder, [0])
    turns: list[CustomerTurn] = []
    first = threading.Thread(target=lambda: turns.append(ask(holder, quiet=1.0)))
    first.start()
    time.sleep(0.5)
    assert ask(holder).code == 450
    first.join()
    assert numbers(turns[0]) == [0]


def test_two_turns_at_once_may_share_the_mail(providers: Callable[..., Instance]) -> None:
    server = providers(shared_turns=True)
    hand_in(server, range(60))
    turns: list[CustomerTurn] = []
    both = [threading.Thread(target=lambda: turns.append(ask(server, extensions=()))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(number for turn in turns for number in numbers(turn)) == list(range(60))


def test_turns_too_soon_after_each_other(providers: Callable[..., Instance]) -> None:
    server = providers(turn_interval=3)
    hand_in(server, [0])
    assert ask(server).code == 250
    hand_in(server, [1])
    assert ask(server).code == 450
    check_held(server, 1)


def test_a_customer_without_pipelining(providers: Callable[..., Instance]) -> None:
    server = providers(pipelining=False)
    hand_in(server, range(3))
    turn = ask(server, extensions=("PIPELINING", "8BITMIME"))
    assert numbers(turn) == [0, 1, 2]
    # After the turn each side speaks once, in turn; the content is not written down.
    speakers = [
        line[0] for line in turn.transcript[turn.transcript.index("C: 220 customer.test ready to receive email") :]
    ]
    assert "PP" not in "".join(speakers)


def test_atrn_on_the_submission_port(tmp_path: Path) -> None:
    server = provider(tmp_path)
    for listener in server.listeners:
        if listener.get("service") == "submission":
            listener["atrn"] = True  # type: ignore[index]
    server.configure()
    with server:
        hand_in(server, [1])
        how = {"user": "ship", "password": PASSWORD}
        turn = OdmrCustomer(server.submission_port, tls="starttls", **how).pull(HOME)
        assert (turn.code, numbers(turn)) == (250, [1])
        hand_in(server, [2])
        assert numbers(OdmrCustomer(server.submissions_port, tls="implicit", **how).pull()) == [2]
    server.check_log()


def test_what_is_held_outlives_a_crash_in_the_middle_of_a_turn(providers: Callable[..., Instance]) -> None:
    server = providers()
    hand_in(server, range(10))
    turns: list[CustomerTurn] = []
    asking = threading.Thread(target=lambda: turns.append(ask(server, quiet=2.0)))
    asking.start()
    time.sleep(0.5)
    server.kill()
    asking.join()
    assert (turns[0].code, turns[0].messages) == (250, [])
    server.start()
    check_held(server, 10)
    assert sorted(numbers(again(server))) == list(range(10))
