"""docs/operating.md: its configurations, commands, log lines and units are those of the program."""

import ast
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mailsuite.admin.command import root
from mailsuite.config import Settings
from tests.docs.pages import ROOT, blocks
from tests.peers.process import run

PAGE = "docs/operating.md"
UNITS = ROOT / "etc" / "systemd"


def of_language(language: str) -> list[str]:
    return [block.text for block in blocks(PAGE) if block.language == language]


# -------------------------------------------------------------------------------- configuration, commands


@pytest.mark.parametrize("text", of_language("toml"))
def test_configurations_are_valid(text):
    assert Settings.parse(tomllib.loads(text), PAGE, Path())


def test_configuration_for_systemd_names_its_sockets_in_order():
    settings = Settings.parse(tomllib.loads(of_language("toml")[0]), PAGE, Path())
    ports = re.findall(r"^ListenStream=(\d+)$", (UNITS / "mailsuite.socket").read_text(), re.MULTILINE)
    services = {"smtp": {"starttls": "25"}, "submission": {"starttls": "587", "implicit": "465"}}
    assert [services[listen.service][listen.tls] for listen in settings.listen] == ports
    endpoints = [f"systemd:domain=INET6:index={index}" for index in range(len(ports))]
    assert [listen.endpoint for listen in settings.listen] == endpoints


def commands() -> list[str]:
    """What the page tells to type that begins with `mailsuite`: in indented blocks, and in its text."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    indented = re.findall(r"^ {4}(?:.*\| )?(mailsuite .*?)(?: +#.*)?$", text, re.MULTILINE)
    return sorted({*indented, *re.findall(r"`(mailsuite [^`]*)`", text)})


@pytest.mark.parametrize("line", commands())
def test_commands_are_there_with_their_options(line):
    for part in line.split(" | "):
        program, *words = shlex.split(part)
        assert program == "mailsuite"
        command: click.Command = root
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert not isinstance(command, click.Group) or not words, f"there is no {words}"
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options


def test_commands_are_found():
    assert len(commands()) > 20


# ----------------------------------------------------------------------------------------------- log lines


def said_in_the_log() -> list[str]:
    """The lines of the log that the page explains."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    tables = re.findall(r"^\| line \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    return [re.match(r"\| (`+) ?(.*?) ?\1 \|", row)[2] for row in rows]


def texts(tree: ast.Module) -> Iterator[list[str]]:
    """The constant parts of every text that has gaps: of f-strings, and of what twisted.logger formats."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
            yield "".join(map(str, parts)).split("\0")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.split(r"\{[a-z_]+(?::[^}]*)?\}", node.value)


@pytest.fixture(scope="module")
def patterns() -> list[re.Pattern[str]]:
    modules = sorted((ROOT / "mailsuite").rglob("*.py"))
    found = [parts for path in modules for parts in texts(ast.parse(path.read_text(encoding="utf-8")))]
    # What is hardly more than gaps would fit every line.
    telling = [parts for parts in found if len(parts) > 1 and sum(len(part.strip()) for part in parts) >= 7]
    return [re.compile(".*".join(map(re.escape, parts))) for parts in telling]


@pytest.mark.parametrize("line", said_in_the_log())
def test_log_lines_are_what_the_program_says(line, patterns):
    assert any(pattern.fullmatch(line) for pattern in patterns)


def test_log_line_that_nobody_says_is_noticed(patterns):
    assert len(said_in_the_log()) >= 20
    assert not any(pattern.fullmatch("the moon is in the seventh house") for pattern in patterns)


# --------------------------------------------------------------------------------------------------- units


def test_units_are_those_that_systemd_takes(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS.iterdir():
        # The programs of the unit are looked for, and are not installed here.
        text = re.sub(r"/opt/mailsuite/bin/\w+", sys.executable, unit.read_text(encoding="utf-8"))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = run(["systemd-analyze", "verify", *tmp_path.iterdir()], timeout=60.0)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_units_start_what_is_installed():
    service = (UNITS / "mailsuite.service").read_text(encoding="utf-8")
    commands = re.findall(r"^Exec\w+=/opt/mailsuite/bin/(\w+) (.*)$", service, re.MULTILINE)
    assert commands == [
        ("mailsuite", "check /etc/mailsuite/mailsuite.toml"),
        ("twistd", "--nodaemon --pidfile= mailsuite --config /etc/mailsuite/mailsuite.toml"),
    ]
