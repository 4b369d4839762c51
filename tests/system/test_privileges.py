"""Root: dropped behind the ports when twistd is told so, and else confined to the loopback."""

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.instance import COMMAND, ENVIRONMENT, PASSWORD, Instance
from tests.peers import process
from tests.peers.process import PeerError, free_port, wait_until

pytestmark = pytest.mark.slow

USER, GROUP = "nobody", "nogroup"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter; pytest's own are root's alone."""
    if os.geteuid() != 0:
        pytest.skip("this needs root, who can be dropped")
    directory = Path(tempfile.mkdtemp(prefix="mailsuite-privileges-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in (directory, *directory.rglob("*"))}


def send(server: Instance, subject: str) -> None:
    with server.client() as client:
        client.sendmail("x@client.test", [server.address("alice")], f"Subject: {subject}\r\n\r\n" + 300_000 * "x\r\n")


@pytest.fixture
def dropped(place: Path) -> Instance:
    return Instance(place, users=(), twistd=("--uid", USER, "--gid", GROUP))


def test_root_is_dropped_behind_the_ports(dropped: Instance) -> None:
    shutil.rmtree(dropped.data)
    nobody = pwd.getpwnam(USER)
    with dropped as server:
        status = Path(f"/proc/{server.pid}/status").read_text()
        (uids,) = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
        (groups,) = [line.split()[1:] for line in status.splitlines() if line.startswith("Groups:")]
        assert set(uids) == {str(nobody.pw_uid)}
        assert "0" not in groups
        server.add_users(["alice"])  # by root, beside the running server
        wait_until(lambda: server.takes("alice@a.test"), why=server.log)
        send(server, "for nobody")
        assert server.find("for nobody")
        with server.client("alice") as client:
            assert client.noop()[0] == 250
        server.wait_until_drained()
        assert owners(server.data) == {nobody.pw_uid}
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    dropped.check_log()


def test_what_root_has_made_before_the_first_start_is_no_obstacle(dropped: Instance) -> None:
    command = (*COMMAND, "--config", dropped.configuration)
    shutil.rmtree(dropped.data)
    dropped.data.mkdir(mode=0o700)  # as the command demands, for the user who serves
    shutil.chown(dropped.data, USER, GROUP)
    for arguments in (("domain", "add", "a.test"), ("user", "add", "alice@a.test", "--password-stdin")):
        done = process.run(
            [*command, *arguments], timeout=30.0, stdin=f"{PASSWORD}\n".encode(), environment=ENVIRONMENT
        )
        assert done.returncode == 0, done.stdout
    with dropped as server:
        send(server, "first")
        assert server.find("first")
        server.restart()
        send(server, "second")
        assert server.find("second")
        assert owners(server.data) == {pwd.getpwnam(USER).pw_uid}
    dropped.check_log()


def test_a_data_directory_that_is_not_for_who_serves(dropped: Instance) -> None:
    dropped.data.chmod(0o700)
    dropped.launch()
    assert dropped.wait_for_exit() == 1
    (sentence,) = [line for line in dropped.log().splitlines() if line.startswith("mailsuite: ")]
    assert str(dropped.data) in sentence
    assert "ermission denied" in sentence
    dropped.check_log()


def test_root_does_not_serve_strangers_unless_it_is_allowed(place: Path) -> None:
    instance = Instance(place, listeners=[{"endpoint": f"tcp:{free_port()}"}])
    with pytest.raises(PeerError, match="would serve strangers as root; start with `twistd --uid USER --gid GROUP`"):
        instance.start()
    assert not (instance.data / "spool").exists()
    assert "listening on" not in instance.log()
