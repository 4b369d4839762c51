"""Commands that change the queue, as processes: through a running server, and without one."""

import json
import os
import time
from pathlib import Path

import pytest

from mailsuite.admin.queue.work import operator
from mailsuite.mail.selection import EVERYTHING
from mailsuite.spool.reading import SpoolReader
from tests.instance import Instance, mailsuite
from tests.peers.process import LOOPBACK, free_ports, wait_until

pytestmark = pytest.mark.slow


class House:
    """A server whose next hop for dead.test does not answer, and the command line over it."""

    def __init__(self, directory: Path) -> None:
        [closed] = free_ports(1)
        self.instance = Instance(
            directory,
            routes=[{"domain": "dead.test", "next_hop": f"{LOOPBACK}:{closed}"}],
            settings={"retry.first": 600, "retry.longest": 600},
        )

    def put(self, *recipients: str) -> str:
        """Queue a message; its id, when a first attempt has failed."""
        with self.instance.client("alice") as client:
            client.mail("alice@a.test")
            for recipient in recipients:
                client.rcpt(recipient)
            code, text = client.data(b"Subject: hello\r\n\r\nbody\r\n")
        assert code == 250, text
        queue_id = text.decode().split()[-1]
        wait_until(lambda: set(self.states(queue_id)) <= {"waiting", "due"}, why=self.instance.log)
        return queue_id

    def states(self, queue_id: str) -> list[str]:
        queued = SpoolReader(self.instance.data / "spool").select(EVERYTHING, 1000)
        found = [one for message in queued if message.message.queue_id == queue_id for one in message.recipients]
        return [one.state.value for one in found]

    def __call__(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        done = mailsuite("--config", self.instance.configuration, "queue", *arguments, stdin=stdin)
        assert "Traceback" not in done.stdout
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("serving"))
    house.instance.start()
    yield house
    house.instance.check_log()
    house.instance.stop()


@pytest.fixture
def stopped(tmp_path):
    """The same, with messages in the queue and without a server."""
    house = House(tmp_path)
    house.instance.start()
    house.ids = [house.put(f"user{number}@dead.test") for number in range(2)]
    house.instance.stop()
    return house


def test_a_running_server_holds_and_releases_at_once(serving):
    queue_id = serving.put("bob@dead.test", "carol@dead.test")
    assert serving("hold", queue_id) == (0, "1 message, 2 recipients: put on hold.\n")
    assert serving.states(queue_id) == ["on hold"] * 2
    assert serving("hold", queue_id)[0] == 1
    assert serving("release", queue_id) == (0, "1 message, 2 recipients: released.\n")
    assert "on hold" not in serving.states(queue_id)
    status, said = serving("release", queue_id)
    assert status == 1
    assert said == "Error: nothing of that is on hold; `mailsuite queue show` tells how it stands\n"


def test_a_flush_tries_even_destinations_that_rest(serving):
    queue_id = serving.put("bob@dead.test")
    before = serving.instance.log().count("is left alone for")
    status, said = serving("flush", "dead.test")
    assert status == 0
    assert said.endswith(": tried again now.\n")
    wait_until(lambda: serving.instance.log().count("is left alone for") > before, why=serving.instance.log)
    wait_until(lambda: set(serving.states(queue_id)) == {"waiting"}, why=serving.instance.log)
    assert serving("flush", "maildir") == (0, "Nothing is queued that fits.\n")
    assert serving("flush", "other.test") == (0, "Nothing is queued that fits.\n")
    assert "'a b' is neither a domain" in serving("flush", "a b")[1]


def test_what_is_expired_goes_back_to_its_sender(serving):
    queue_id = serving.put("bob@dead.test")
    before = len(serving.instance.messages("alice"))
    status, said = serving("expire", queue_id, stdin=b"y\n")
    assert status == 0
    assert "Return 1 message (1 recipient, " in said
    assert "1 message, 1 recipient: returned to their senders.\n" in said
    wait_until(lambda: len(serving.instance.messages("alice")) == before + 1, timeout=20, why=serving.instance.log)
    assert serving.states(queue_id) == []


def test_deleting_asks_first_and_tells_nobody(serving):
    queue_id = serving.put("bob@dead.test")
    before = len(serving.instance.messages("alice"))
    status, said = serving("delete", queue_id)
    assert status == 1
    assert "Delete 1 message (1 recipient, " in said
    assert said.endswith("Error: nobody has answered; say --yes where that is meant\n")
    assert serving("delete", queue_id, stdin=b"n\n")[0] == 1
    assert len(serving.states(queue_id)) == 1
    assert serving("delete", "-", "--yes", stdin=queue_id.encode()) == (0, "1 message, 1 recipient: deleted.\n")
    assert serving.states(queue_id) == []
    status, said = serving("delete", queue_id, "--yes")
    assert (status, "is not in the queue; `mailsuite trace" in said) == (1, True)
    assert len(serving.instance.messages("alice")) == before


def test_what_was_done_is_in_json_and_in_the_history(serving):
    queue_id = serving.put("bob@dead.test")
    status, said = serving("requeue", queue_id, "--json")
    assert (status, json.loads(said)) == (0, {"action": "requeue", "messages": 1, "recipients": 1, "busy": 0})
    _, said = serving("show", queue_id)
    assert f"operator  requeue for bob@dead.test by {operator()}\n" in said


def test_top_tells_what_the_server_knows(serving):
    serving.put("bob@dead.test")
    status, said = serving("top", "--once")
    assert status == 0
    assert " connection" in said.splitlines()[0]
    [row] = [line for line in said.splitlines() if line.startswith("relay:")]
    assert "rests, in 10 minutes" in row
    assert "connection refused" in row
    [row] = json.loads(serving("top", "--json")[1])
    assert (row["failures"] > 0, row["runs"], row["up_at"] > time.time()) == (True, 0, True)


def test_without_a_server_the_spool_itself_is_changed(stopped):
    first, second = stopped.ids
    assert stopped("hold", "--all") == (0, "2 messages, 2 recipients: put on hold.\n")
    assert stopped.states(first) == ["on hold"]
    assert stopped("delete", first, "--yes") == (0, "1 message, 1 recipient: deleted.\n")
    said = "1 message, 1 recipient: queued anew, and tried when the server starts.\n"
    assert stopped("requeue", second) == (0, said)
    assert stopped.states(second) == ["due"]
    assert "no server is running" in stopped("top", "--once")[1]
    stopped.instance.start()
    wait_until(lambda: stopped.states(second) == ["waiting"], why=stopped.instance.log)
    stopped.instance.stop()
    assert stopped("delete", "--all", "--yes") == (0, "1 message, 1 recipient: deleted.\n")
    assert stopped("list") == (0, "The queue is empty.\n")


def test_root_leaves_nothing_behind_that_the_server_could_not_touch(stopped):
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    owner = 65534
    stopped.instance.directory.chmod(0o755)
    for parent in stopped.instance.directory.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    for path in [stopped.instance.data, *stopped.instance.data.rglob("*")]:
        os.chown(path, owner, owner)
    assert stopped("hold", "--all") == (0, "2 messages, 2 recipients: put on hold.\n")
    assert {path.stat().st_uid for path in stopped.instance.data.rglob("*")} == {owner}


@pytest.mark.parametrize("words", [("list",), ("hold", "--all"), ("delete", "HOE1", "--yes"), ("top", "--once")])
def test_a_queue_that_nobody_has_made_is_not_empty(tmp_path, words):
    house = House(tmp_path)
    status, said = house(*words)
    assert status == os.EX_UNAVAILABLE
    assert said.startswith(f"Error: there is no queue in {house.instance.data / 'spool'} ")
    assert f"(by {house.instance.configuration})" in said


def test_a_stopped_server_does_it_when_it_starts(stopped):
    first, second = stopped.ids
    assert stopped("retry", first) == (0, "1 message, 1 recipient: tried when the server starts.\n")
    assert stopped("flush")[1].endswith(": tried when the server starts.\n")
    said = "1 message, 1 recipient: returned to their senders when the server starts.\n"
    assert stopped("expire", second, "--yes") == (0, said)
    assert stopped("hold", first)[0] == 0
    assert stopped("retry", first) == (1, "Error: on hold; release it first, by `mailsuite queue release`\n")
