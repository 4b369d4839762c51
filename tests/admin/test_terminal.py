"""Where there is no terminal, and where nothing can be printed: one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def mailsuite(*arguments, **options):
    command = [sys.executable, "-m", "mailsuite", *map(str, arguments)]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, check=False, timeout=60, **options)


@pytest.mark.parametrize("words", [("--version",), ("user", "list", "--help"), ("demo", "--help")])
def test_output_that_cannot_be_written_is_a_sentence(words):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = mailsuite(*words, stdout=full)
    assert done.returncode == os.EX_IOERR
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


def test_without_a_terminal_a_password_is_not_asked_for(tmp_path):
    config = tmp_path / "mailsuite.toml"
    config.write_text('hostname = "mx.example.org"\ndata_directory = "data"\n')
    (tmp_path / "data").mkdir()
    options = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, "start_new_session": True}
    assert mailsuite("-c", config, "domain", "add", "example.org", **options).returncode == 0
    done = mailsuite("-c", config, "user", "add", "alice@example.org", **options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: there is no terminal to ask for the password at; say --password-stdin")
