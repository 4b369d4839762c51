"""A whole server whose aliases pass mail on, and whose routes lead to programs."""

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.instance import Instance, parse
from tests.peers.process import LOOPBACK, wait_until

PROGRAM = """#!/bin/sh
cat > "{directory}/$RECIPIENT"
test "$1" != broken || { echo "5.7.1 not from $SENDER"; exit 77; }
"""
AGENTS = """
[[agent]]
name = "tickets"
type = "pipe"
options.command = ["{directory}/program", "{{local}}"]

[[agent]]
name = "nowhere"
type = "discard"
"""


class WithAgents(Instance):
    """An instance with a program to deliver to."""

    def configure(self) -> None:
        super().configure()
        program = self.directory / "program"
        program.write_text(PROGRAM.replace("{directory}", str(self.directory)))
        program.chmod(0o755)
        with self.configuration.open("a") as file:
            file.write(AGENTS.format(directory=self.directory))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, Instance]]:
    """here.test forwards to there.test, and each relays to the other."""
    directory = tmp_path_factory.mktemp("pair")
    there = Instance(directory / "there.test", "there.test", users=["bob", "carol"])
    routes = [
        {"recipient": "*@tickets.test", "agent": "tickets"},
        {"recipient": "no-reply@here.test", "agent": "nowhere"},
        {"domain": "there.test", "next_hop": f"{LOOPBACK}:{there.smtp_port}"},
    ]
    here = WithAgents(
        directory / "here.test",
        "here.test",
        users=["alice"],
        routes=routes,
        settings={"forwarding.srs_domain": "here.test"},
    )
    there.routes = [{"domain": "here.test", "next_hop": f"{LOOPBACK}:{here.smtp_port}"}]
    there.configure()
    with here.accounts() as accounts:
        accounts.add_domain("tickets.test")
        accounts.add_alias("out@here.test", ["bob@there.test"])
        accounts.add_alias("gone@here.test", ["nobody@there.test"])
        accounts.add_alias("list@here.test", ["bob@there.test", "alice@here.test"])
        accounts.add_alias("owner-list@here.test", ["alice@here.test"])
        accounts.add_alias("loop@here.test", ["loop@there.test"])
    with there.accounts() as accounts:
        accounts.add_alias("loop@there.test", ["loop@here.test"])
    with here, there:
        yield here, there
        here.wait_until_drained()
        there.wait_until_drained()
    here.check_log()
    there.check_log()


def send(server: Instance, subject: str, recipient: str, sender: str = "carol@there.test") -> None:
    with smtplib.SMTP(LOOPBACK, server.smtp_port) as client:
        client.sendmail(sender, [recipient], f"Subject: {subject}\r\n\r\nbody\r\n")


def test_what_is_passed_on_has_a_sender_of_ours(pair: tuple[Instance, Instance]) -> None:
    here, there = pair
    send(here, "forwarded", "out@here.test")
    message = there.find("forwarded", "bob")
    assert message["Return-Path"].startswith("<SRS0=")
    assert message["Return-Path"].endswith("=there.test=carol@here.test>")
    assert message.get_all("Delivered-To") == ["bob@there.test", "out@here.test"]


def test_a_report_on_it_goes_to_its_sender(pair: tuple[Instance, Instance]) -> None:
    here, there = pair
    send(here, "comes back", "gone@here.test")
    (report,) = there.wait_for("carol", timeout=20.0)
    assert report["Return-Path"] == "<>"
    assert "gone@here.test" in report.as_string()


def test_a_list_sends_under_its_owner(pair: tuple[Instance, Instance]) -> None:
    here, there = pair
    send(here, "to the list", "list@here.test")
    for message in (there.find("to the list", "bob"), here.find("to the list", "alice")):
        assert message["Return-Path"] == "<owner-list@here.test>"


def test_two_aliases_that_lead_to_each_other_end_it_soon(pair: tuple[Instance, Instance]) -> None:
    here, there = pair
    send(here, "round and round", "loop@here.test", sender="alice@here.test")
    wait_until(lambda: any("5.4.6" in path.read_text() for path in here.messages("alice")), why=here.log, timeout=20.0)
    [report] = [message for message in map(parse, here.messages("alice")) if "5.4.6" in message.as_string()]
    assert "it went to this alias before" in report.as_string()
    assert there.log().count("loop@") < 10


def test_a_program_gets_its_mail(pair: tuple[Instance, Instance]) -> None:
    here, _there = pair
    send(here, "ticket", "new@tickets.test")
    written = here.directory / "new@tickets.test"
    wait_until(lambda: written.exists() and b"body\n" in written.read_bytes(), why=here.log)
    assert written.read_bytes().startswith(
        b"Return-Path: <carol@there.test>\nDelivered-To: new@tickets.test\nReceived:"
    )
    here.wait_until_drained()


def test_what_a_program_refuses_comes_back_in_its_words(pair: tuple[Instance, Instance]) -> None:
    here, there = pair
    send(here, "refused", "broken@tickets.test", sender="bob@there.test")
    wait_until(lambda: any("broken@" in path.read_text() for path in there.messages("bob")), why=here.log, timeout=20.0)
    [report] = [message for message in map(parse, there.messages("bob")) if "broken@" in message.as_string()]
    assert "not from bob@there.test" in report.as_string()


def test_what_is_discarded_is_gone(pair: tuple[Instance, Instance]) -> None:
    here, there = pair
    send(here, "nowhere", "no-reply@here.test")
    here.wait_until_drained()
    assert not any(b"Subject: nowhere" in path.read_bytes() for path in [*here.messages(), *there.messages("carol")])


def test_a_forged_way_back_is_nobody(pair: tuple[Instance, Instance]) -> None:
    here, _there = pair
    with smtplib.SMTP(LOOPBACK, here.smtp_port) as client:
        client.ehlo()
        client.mail("")
        assert client.rcpt("SRS0=AAAAAAAA=ZZ=there.test=bob@here.test")[0] == 550


def test_the_secret_stays(pair: tuple[Instance, Instance]) -> None:
    here, _there = pair
    secret: Path = here.data / "srs.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 32
