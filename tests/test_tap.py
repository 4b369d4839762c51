"""`twistd mailsuite` as service managers start it: in the background, and by systemd with its sockets."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.instance import TWISTD, Instance, mailsuite
from tests.peers.process import LOOPBACK, run

pytestmark = pytest.mark.slow

# What systemd does before it starts a service: sockets are the descriptors from 3 on, and the environment counts them.
_ACTIVATE = """
import os, sys
for number, descriptor in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(descriptor, number)
    names = ["mailsuite.socket"] * (number - 2)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


def test_port_in_use_is_told_by_a_twistd_that_goes_to_the_background(tmp_path, used_port):
    file = tmp_path / "mailsuite.toml"
    file.write_text(f'[[listen]]\nendpoint = "tcp:{used_port}:interface={LOOPBACK}"\n')
    log, pid = tmp_path / "log", tmp_path / "pid"
    done = run([*TWISTD, "--pidfile", pid, "--logfile", log, "mailsuite", "--config", file], timeout=30.0)
    assert done.returncode == 1
    # twistd's own word has room for a hundred octets.
    sentence = f"mailsuite: cannot listen on 'tcp:{used_port}:interface={LOOPBACK}': address already in use: another "
    assert done.stdout.count("cannot listen") == 1
    assert done.stdout.startswith(sentence)
    assert done.stdout.splitlines()[0].endswith("or take another port")
    assert log.read_text().count("address already in use") == 1
    assert "Traceback" not in log.read_text()
    assert not pid.exists()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Three ports that systemd would have opened."""
    opened = [socket.create_server((LOOPBACK, 0)) for _ in range(3)]
    yield opened
    for one in opened:
        one.close()


def activated(tmp_path: Path) -> Instance:
    """A server that finds its ports as etc/systemd has them."""
    listeners = [
        {"endpoint": "systemd:domain=INET:index=0"},
        {"endpoint": "systemd:domain=INET:index=1", "service": "submission"},
        {"endpoint": "systemd:domain=INET:index=2", "service": "submission", "tls": "implicit"},
    ]
    return Instance(tmp_path, listeners=listeners, settings={"allow_root": True})


def test_ports_of_systemd_are_taken_over(tmp_path, sockets, monkeypatch):
    server = activated(tmp_path)
    ports = [one.getsockname()[1] for one in sockets]
    server.smtp_port, server.submission_port, server.submissions_port = ports
    for one in sockets:
        os.set_inheritable(one.fileno(), True)
    descriptors = ",".join(str(one.fileno()) for one in sockets)
    command = [sys.executable, "-c", _ACTIVATE, descriptors, *server.command]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False
    ) as process:
        try:
            with server.client() as client:
                assert client.noop()[0] == 250
            with server.client("alice") as client:
                client.sendmail("alice@a.test", ["alice@a.test"], "Subject: x\n\n")
            server.wait_for("alice")
        finally:
            process.terminate()


def test_ports_of_systemd_are_not_missed_by_the_check(tmp_path):
    server = activated(tmp_path)
    assert mailsuite("check", server.configuration).returncode == 0
    done = run(server.command, timeout=30.0)
    assert done.returncode == 1
    assert "systemd has not handed over the socket of 'systemd:domain=INET:index=0'" in done.stdout
