"""What an operator does with the queue, from the command to where the mail arrives; and what he is told of it.

What each command says and asks is in `tests/admin`. Here two whole servers stand behind it: mail really goes, comes
back, stays, on a server that runs and on one that does not.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.instance import Instance, mailsuite, parse
from tests.peers.process import LOOPBACK, free_port, wait_until

pytestmark = pytest.mark.slow

HOURS = {"retry.first": 7200, "retry.longest": 7200}


class House:
    """A server `a`, and `b` behind it, which does not run from the first. Nothing is tried again by itself."""

    def __init__(self, directory: Path) -> None:
        self.b = Instance(directory / "b", "b.test", users=["bob", "carol"])
        self.b_runs = self.stopped = False
        self.ids: list[str] = []
        self.a = Instance(directory / "a", "a.test", routes=[self.route(self.b.smtp_port)], settings=HOURS)

    def start_b(self) -> None:
        self.b.start()
        self.b_runs = True

    @staticmethod
    def route(port: int) -> dict[str, Any]:
        return {"domain": "b.test", "next_hop": f"{LOOPBACK}:{port}"}

    def command(self, *arguments: str, status: int = 0) -> str:
        done = mailsuite("--config", self.a.configuration, *arguments)
        assert done.returncode == status, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def queue(self, *arguments: str) -> str:
        return self.command("queue", *arguments)

    def listed(self, *arguments: str) -> dict[str, list[str]]:
        """Queue ids of what `queue list` shows, with the states of the recipients."""
        told = json.loads(self.queue("list", "--json", *arguments))
        return {one["queue_id"]: [recipient["state"] for recipient in one["recipients"]] for one in told}

    def send(self, subject: str, *recipients: str) -> str:
        """Hand a message in, and return its queue id when the next hop has been tried."""
        with self.a.client("alice") as client:
            client.ehlo()
            client.mail("alice@a.test")
            for recipient in recipients:
                assert client.rcpt(recipient)[0] == 250
            code, said = client.data(f"Subject: {subject}\r\nMessage-ID: <{subject}@a.test>\r\n\r\n".encode())
        assert code == 250
        # Behind the first one the next hop is left alone.
        wait_until(lambda: any(attempts for _, attempts, _ in self.a.queue()), why=self.a.log)
        return said.decode().split()[-1]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    with house.a:
        yield house
    house.b.stop()
    house.a.check_log()
    house.b.check_log()


@pytest.fixture(params=["running", "stopped"])
def run_or_not(request: pytest.FixtureRequest, house: House) -> House:
    """Three messages wait for b, and for nobody else. The server runs, or was stopped for the commands."""
    house.ids = [house.send(f"number-{number}", "bob@b.test", "carol@b.test") for number in range(3)]
    if request.param == "stopped":
        house.a.stop()
    house.stopped = request.param == "stopped"
    return house


def goes_on(house: House) -> None:
    """The next hop is there, and so is the server that was stopped."""
    if not house.b_runs:
        house.start_b()
    if house.stopped:
        house.a.start()


def subjects(house: House, user: str = "bob") -> set[str]:
    return {parse(path)["Subject"] for path in house.b.messages(user)}


def test_what_is_on_hold_stays_until_it_is_released(run_or_not: House) -> None:
    house = run_or_not
    held, *others = house.ids
    house.queue("hold", held)
    assert house.listed()[held] == ["on hold"] * 2
    assert set(house.listed("--state", "on-hold")) == {held}
    assert set(house.listed()) == {held, *others}
    house.queue("retry", "--domain", "b.test")
    goes_on(house)
    house.queue("flush")
    wait_until(lambda: len(house.a.queue()) == 2, why=house.a.log)
    wait_until(lambda: subjects(house) == {"number-1", "number-2"}, why=house.b.log)
    assert house.listed() == {held: ["on hold"] * 2}
    house.queue("release", held)
    house.a.wait_until_drained()
    for user in ("bob", "carol"):
        house.b.wait_for(user, 3)


def test_what_is_tried_now_leaves_at_once(run_or_not: House) -> None:
    house = run_or_not
    house.start_b()
    house.queue("retry", house.ids[1])
    goes_on(house)
    wait_until(lambda: subjects(house) >= {"number-1"}, why=house.a.log)
    house.queue("flush", "b.test")
    house.a.wait_until_drained()
    for user in ("bob", "carol"):
        house.b.wait_for(user, 3)
        assert len(subjects(house, user)) == 3


def test_what_is_deleted_is_gone_and_what_is_expired_comes_back(run_or_not: House) -> None:
    house = run_or_not
    deleted, expired, stays = house.ids
    house.queue("delete", "--yes", deleted)
    house.queue("expire", "--yes", expired)
    if house.stopped:
        assert set(house.listed()) == {expired, stays}
    goes_on(house)
    (report,) = house.a.wait_for("alice")
    status = report.get_payload()[1].get_payload()
    assert [part["Final-Recipient"] for part in status[1:]] == ["rfc822; bob@b.test", "rfc822; carol@b.test"]
    assert {part["Action"] for part in status[1:]} == {"failed"}
    house.queue("flush")
    house.a.wait_until_drained()
    house.b.wait_until_drained()
    assert subjects(house) == {"number-2"}
    assert len(house.a.messages("alice")) == 1
    house.a.check_leftovers()


def test_what_is_queued_anew_goes_where_the_routes_of_now_lead(house: House) -> None:
    away = free_port()
    house.a.stop()
    house.a.routes = [house.route(away)]
    house.a.configure()
    house.a.start()
    queue_id = house.send("moved", "bob@b.test")
    house.a.stop()
    house.a.routes = [house.route(house.b.smtp_port)]
    house.a.configure()
    house.start_b()
    house.queue("requeue", queue_id)
    house.a.start()
    assert house.b.find("moved", "bob")
    house.a.wait_until_drained()


def test_the_whole_story_is_told_by_id_address_and_message_id(house: House) -> None:
    queue_id = house.send("story", "bob@b.test", "nobody@b.test")
    house.queue("hold", queue_id)
    house.queue("release", queue_id)
    wait_until(lambda: house.listed() == {queue_id: ["waiting"] * 2}, why=house.a.log)
    house.start_b()
    house.queue("flush")
    house.a.wait_until_drained()
    house.a.wait_for("alice")
    by_id = house.command("trace", queue_id)
    told = ("received", "alice@a.test", "hold", "release", "delayed", "bob@b.test", "relayed", "550 5.1.1", "TLS")
    for word in told:
        assert word in by_id
    for name in ("bob@b.test", "<story@a.test>"):
        assert queue_id in house.command("trace", name)
    house.a.stop()
    assert house.command("trace", queue_id) == by_id


def test_routes_are_explained_and_a_test_message_tells_its_way(house: House) -> None:
    assert f"[{LOOPBACK}]:{house.b.smtp_port}" in house.command("route", "bob@b.test")
    house.command("send", "bob@b.test", status=75)
    house.start_b()
    told = house.command("send", "--subject", "from here", "bob@b.test")
    assert "STARTTLS" in told
    assert house.b.find("from here", "bob")
    assert "550" in house.command("send", "nobody@b.test", status=69)
    assert house.a.queue() == []


def test_a_load_goes_on_under_an_operators_hands(house: House) -> None:
    """While mail comes in and goes out, all of it is held, released and tried again, over and over: it arrives once."""
    house.start_b()
    count = 80
    with house.a.client("alice") as client:
        for number in range(count):
            client.sendmail("alice@a.test", ["bob@b.test"], f"Subject: {number}\r\n\r\n")
            if number == 20:
                mailsuite("--config", house.a.configuration, "queue", "hold", "--all")
            if number == 60:
                mailsuite("--config", house.a.configuration, "queue", "release", "--all")
                mailsuite("--config", house.a.configuration, "queue", "requeue", "--all")
    mailsuite("--config", house.a.configuration, "queue", "release", "--all")
    house.a.wait_until_drained(20)
    house.b.wait_until_drained()
    assert sorted(house.b.numbers("bob")) == list(range(count))
    assert house.a.messages("alice") == []
