"""`mailsuite send` to an alias goes under the sender that the server would name."""

import os
import subprocess
import sys

import pytest

from tests.peers.process import LOOPBACK, free_ports

CONFIG = """
hostname = "mx.here.example"
data_directory = "data"
[forwarding]
srs_domain = "here.example"
[[route]]
domain = "else.example"
next_hop = "{host}:{port}"
"""


@pytest.fixture
def command(tmp_path):
    """Run `mailsuite` with these arguments."""
    file = tmp_path / "m.toml"
    [closed] = free_ports(1)
    file.write_text(CONFIG.format(host=LOOPBACK, port=closed))

    def command(*arguments):
        words = [sys.executable, "-m", "mailsuite", "--config", str(file), *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    (tmp_path / "data").mkdir()
    for arguments in (("domain", "add", "here.example"), ("alias", "add", "out@here.example", "carol@else.example")):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
    return command


@pytest.mark.parametrize("has_secret", [True, False])
def test_a_test_message_to_an_alias_has_the_senders_rewritten_name(command, tmp_path, has_secret) -> None:
    if has_secret:
        (tmp_path / "data" / "srs.key").write_bytes(bytes(range(32)))
    for name in ("send", "route"):
        sender = "--from" if name == "send" else "--sender"
        done = command(name, "out@here.example", sender, "sally@there.example")
        assert done.returncode == (os.EX_TEMPFAIL if name == "send" else 0), done.stdout + done.stderr
        assert ("carol@else.example gets it under the sender SRS0=" in done.stdout) == has_secret
