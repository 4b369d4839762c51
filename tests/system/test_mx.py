"""Relaying by MX: a small DNS server of Twisted's own on the loopback says where mail goes."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.instance import TWISTD, Instance, parse
from tests.peers import process
from tests.peers.process import LOOPBACK, free_port, wait_until

pytestmark = pytest.mark.slow

# In the form that `twistd dns --pyzone` reads. Nothing listens on 127.0.0.2.
ZONE = """
zone = [
    SOA("test", mname="ns.test", rname="root.test", serial=1, refresh=60, retry=60, expire=60, minimum=60),
    NS("test", "ns.test"),
    A("ns.test", "127.0.0.1"),
    MX("b.test", 20, "mail.b.test"), MX("b.test", 10, "down.b.test"),
    A("mail.b.test", "127.0.0.1"), A("down.b.test", "127.0.0.2"),
    A("implicit.test", "127.0.0.1"),
    MX("null.test", 0, ""),
    MX("ours.test", 10, "mail.a.test"), MX("ours.test", 20, "mail.b.test"),
    MX("down.test", 10, "down.b.test"),
    MX("nowhere.test", 10, "nobody.test"),
]
"""


class Rig(NamedTuple):
    a: Instance
    b: Instance


def answers(port: int) -> bool:
    """Whether there is a DNS server: it closes what is not a question, a port that nobody has refuses."""
    with socket.socket() as connection:
        return connection.connect_ex((LOOPBACK, port)) == 0


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory: Path = tmp_path_factory.mktemp("mx")
    zone, port = directory / "test.py", free_port()
    zone.write_text(ZONE)
    dns = process.spawn(
        [*TWISTD, "--nodaemon", "--pidfile=", "dns", "--interface", LOOPBACK, "--port", str(port), "--pyzone", zone],
        output=directory / "dns",
        cwd=directory,
    )
    users = ["null", "nxdomain", "ours", "nowhere"]
    b = Instance(directory / "b", "b.test", users=["bob"])
    with b.accounts() as accounts:
        accounts.add_domain("implicit.test")
        accounts.add_user("bob@implicit.test", None)
    settings = {"relay.resolver": f"{LOOPBACK}:{port}", "relay.port": b.smtp_port}
    try:
        wait_until(lambda: answers(port), why=(directory / "dns").read_text)
        with b, Instance(directory / "a", "a.test", users=users, settings=settings) as a:
            yield Rig(a, b)
    finally:
        process.stop(dns)
    for server in (a, b):
        server.check_log()


def submit(rig: Rig, recipient: str, user: str = "null") -> None:
    with rig.a.client(user) as client:
        client.sendmail(rig.a.address(user), [recipient], f"Subject: for {recipient}\r\n\r\n")


def test_the_next_exchange_is_tried_where_the_best_is_down(rig: Rig) -> None:
    submit(rig, "bob@b.test")
    received = rig.b.find("for bob@b.test", "bob").get_all("Received")
    assert len(received) == 2
    assert "by mail.b.test with ESMTPS" in received[0]


def test_a_domain_without_mx_is_its_own_exchange(rig: Rig) -> None:
    submit(rig, "bob@implicit.test")
    mailbox = rig.b.data / "maildirs" / "implicit.test" / "bob" / "new"
    wait_until(lambda: mailbox.exists() and list(mailbox.iterdir()), why=rig.a.log)
    assert [parse(file)["Subject"] for file in mailbox.iterdir()] == ["for bob@implicit.test"]


@pytest.mark.parametrize(
    ("user", "domain", "status"),
    [
        ("null", "null.test", "5.1.10"),
        ("nxdomain", "nxdomain.test", "5.1.2"),
        ("ours", "ours.test", "5.4.6"),
        ("nowhere", "nowhere.test", "5.4.4"),
    ],
)
def test_domains_that_take_no_mail_are_told(rig: Rig, user: str, domain: str, status: str) -> None:
    submit(rig, f"x@{domain}", user)
    (report,) = rig.a.wait_for(user)
    of_recipient = report.get_payload()[1].get_payload()[1]
    assert (of_recipient["Final-Recipient"], of_recipient["Status"]) == (f"rfc822; x@{domain}", status)


def test_exchanges_that_are_all_down_defer(rig: Rig) -> None:
    submit(rig, "x@down.test")

    def attempted() -> list[str]:
        return [text for address, attempts, text in rig.a.queue() if address == "x@down.test" and attempts]

    wait_until(attempted, why=rig.a.log)
    assert "down.b.test" in attempted()[0]
