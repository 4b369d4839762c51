"""SIGHUP and the terminal: a server reads its files anew, and does not outlive the terminal that it was started in."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.instance import ENVIRONMENT
from tests.peers.process import wait_until

pytestmark = pytest.mark.slow

READ = "read anew: certificate, accounts, customers and their recipients"
_IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
CHANGED = "the configuration has changed: restart the server"


def hang_up(server, line):
    before = server.log().count(line)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: server.log().count(line) > before, why=server.log)


def test_a_server_reads_anew_and_tells_what_takes_a_restart(tmp_path, instances):
    server = instances("a.test")
    hang_up(server, READ)
    assert CHANGED not in server.log()
    text = server.configuration.read_text()
    server.configuration.write_text(text.replace("stop_time = 5", "stop_time = 6"))
    hang_up(server, CHANGED)
    server.configuration.write_text(f"{text}\nnonsense")
    hang_up(server, "goes on with the configuration from its start")
    assert server.takes("alice@a.test")
    assert "Port" not in server.log()
    server.check_log()


def test_a_certificate_that_is_spoilt_is_told_and_the_old_one_stays(tmp_path, instances):
    server = instances("a.test")
    certificate = server.data / "self-signed.pem"
    kept = certificate.read_bytes()
    certificate.write_text("nonsense")
    hang_up(server, "the certificate from before stay in force")
    certificate.write_bytes(kept)
    with server.client() as client:
        assert client.starttls()[0] == 220


def test_a_server_ends_with_its_terminal(tmp_path, instances):
    server = instances("a.test")
    server.stop()
    terminal, inside = pty.openpty()
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), inside)
    command = [sys.executable, "-c", _IN_A_TERMINAL, *server.command]
    with subprocess.Popen(
        command, cwd=server.directory, env={**os.environ, **ENVIRONMENT}, start_new_session=True, **ends
    ) as process:
        os.close(inside)
        shown = b""
        while b"listening on" not in shown:
            shown += os.read(terminal, 1000)
        wait_until(lambda: server.takes("alice@a.test"), timeout=20.0)
        os.close(terminal)
        assert process.wait(20.0) == 0
