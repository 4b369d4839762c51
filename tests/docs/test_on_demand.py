"""docs/on-demand.md, followed word by word: its commands are run in order, and do what the page says they do."""

import os
import re
import shlex
import shutil
import signal
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

import click
import pytest

from mailsuite.admin.command import root
from mailsuite.config import Settings
from tests.docs.pages import ROOT, blocks
from tests.instance import parse
from tests.peers.process import free_ports, run, wait_until

PAGE = "docs/on-demand.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
STEPS = [block.text for block in blocks(PAGE) if block.language == "sh"]
PORTS = ("3025", "3366", "3367", "3587", "4025", "4587")
KINDS = ("toml", "fetchmailrc")
INSTALLING = """\
python3 -m venv .venv
.venv/bin/pip install --quiet .
export PATH=$PWD/.venv/bin:$PATH
"""
PROGRAMS = {
    "mailsuite": "from mailsuite.admin.command import main; main()",
    "twistd": "from twisted.scripts.twistd import run; run()",
}


class Clone:
    """A clone in which somebody follows the page, with other ports and with what we run as the environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        (directory / "etc").mkdir()
        (directory / "bin").mkdir()
        for name in ("provider", "customer"):
            text = (ROOT / "etc" / f"{name}.toml").read_text(encoding="utf-8")
            (directory / "etc" / f"{name}.toml").write_text(self.with_ports(text), encoding="utf-8")
        for name, program in PROGRAMS.items():
            script = directory / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{program}" "$@"\n')
            script.chmod(0o755)

    def with_ports(self, text: str) -> str:
        return re.sub("|".join(PORTS), lambda match: self._ports[match[0]], text)

    def try_out(self, commands: str) -> CompletedProcess[str]:
        """Run commands in a shell that ends with the first that fails."""
        environment = {
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        arguments = ["sh", "-e", "-c", self.with_ports(commands)]
        return run(arguments, timeout=60.0, environment=environment, cwd=self.directory)

    def do(self, commands: str) -> str:
        """Run commands that must succeed, and tell what they print."""
        done = self.try_out(commands)
        assert done.returncode == 0, f"{commands}{done.stdout}{self.logs()}"
        return done.stdout

    def path(self, name: str) -> Path:
        return self.directory / name

    def mails(self) -> list[Path]:
        return sorted(self.path("etc/customer/maildirs/home.example/me/new").glob("*"))

    def logs(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.directory.glob("*.log")))

    def pids(self) -> list[int]:
        return [int(path.read_text()) for path in self.directory.glob("*.pid")]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    clone = Clone(tmp_path)
    yield clone
    for pid in clone.pids():  # none, unless a step has failed
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_page_is_followed_word_by_word(clone):
    steps = iter(STEPS)
    assert next(steps) == INSTALLING  # which our environment stands for

    # 1. The provider.
    said = clone.do(next(steps))
    assert "etc/provider.toml: nothing is wrong with it." in said
    assert "Note" not in said
    assert len(clone.path("etc/provider/home.password").read_text().split()) == 1

    # 2. The customer.
    said = clone.do(next(steps))
    assert said.startswith("added home.example\nadded me@home.example\n")
    assert said.endswith("etc/customer.toml: nothing is wrong with it.\n")

    # 3. The first mail.
    sending = next(steps)
    shown = clone.do(sending)
    assert re.search(r"^home\.example +1 +\d+ octets .*\(in 21 days\)", shown, re.MULTILINE), shown
    dry = clone.do("mailsuite --config etc/customer.toml pull --dry-run")
    assert dry == "provider: the login as home works; ATRN would be said for all domains\n"
    assert clone.mails() == []
    pulled = clone.do(next(steps)).splitlines()
    assert re.fullmatch(r"provider: all the mail has come; 1 message, \d+ octets in \d+\.\d s", pulled[0])
    assert pulled[1:] == [path.name for path in clone.mails()]
    message = parse(clone.mails()[0])
    assert message["Return-Path"] == "<friend@sender.example>"
    assert (message["Subject"], message.get_payload()) == ("Hello", "Are you at home?\n")
    pulling = next(steps)
    assert clone.do(pulling) == "provider: there is no mail\n"
    clone.do(sending)
    assert "1 message" in clone.do(pulling.splitlines()[-1])  # through the server
    wait_until(lambda: len(clone.mails()) == 2, why=clone.logs)

    # 4. When something is wrong.
    findings = [line.split(maxsplit=2) for line in clone.do(next(steps)).splitlines()]
    assert {verdict for verdict, *_ in findings} == {"ok", "warning"}
    assert [step for verdict, step, _ in findings if verdict == "warning"] == ["certificate", "MX", "certificate"]
    shown = clone.do("mailsuite --config etc/provider.toml customer show home")
    assert len(re.findall(r"ATRN +127\.0\.0\.1 +1 .* all was sent", shown)) == 2

    # When the network comes up by itself.
    clone.do(sending)
    [hook] = re.findall(r"^    (mailsuite pull .*)$", TEXT, re.MULTILINE)
    said = clone.do(hook.replace("mailsuite", "mailsuite --config etc/customer.toml"))
    assert said == "pulls begun: provider\n"
    wait_until(lambda: len(clone.mails()) == 3, why=clone.logs)

    # Another domain.
    clone.do(indented("Another domain"))
    to_shed = sending.replace("me@home.example", "me@shed.example")
    wait_until(lambda: clone.try_out(to_shed).returncode == 0, why=clone.logs)
    assert "1 message" in clone.do(pulling.splitlines()[-1])
    assert len(list(clone.path("etc/customer/maildirs/shed.example/me/new").glob("*"))) == 1

    # To end both.
    clone.do(next(steps))
    wait_until(lambda: not clone.pids(), timeout=20.0, why=clone.logs)
    assert next(steps, None) is None
    assert clone.try_out("mailsuite --config etc/customer.toml pull").returncode == 75
    assert "Traceback" not in clone.logs()


@pytest.mark.slow
@pytest.mark.interop
def test_fetchmail_is_the_customer_as_the_page_says(clone):
    if shutil.which("fetchmail") is None:
        pytest.skip("fetchmail is not installed")
    [listener], [control] = ([block.text for block in blocks(PAGE) if block.language == kind] for kind in KINDS)
    provider, home = clone.path("etc/provider.toml"), clone.path("etc/customer.toml")
    provider.write_text(provider.read_text() + clone.with_ports(listener))
    [endpoint] = re.findall(r"`(endpoint = \"tcp:4025[^`]*)`", TEXT)
    without_pull = re.sub(r"^\[\[pull\]\]$.*?(?=^\[\[)", "", home.read_text(), flags=re.MULTILINE | re.DOTALL)
    home.write_text(clone.with_ports(f"{without_pull}\n[[listen]]\n{endpoint}\n"))
    clone.do(STEPS[1] + indented("fetchmail as the customer"))
    clone.do(STEPS[2] + STEPS[5].splitlines()[0])
    clone.do(STEPS[3].partition("mailsuite ")[0])
    password = clone.path("etc/provider/home.password").read_text().strip()
    clone.path("fetchmailrc").touch(mode=0o600)
    clone.path("fetchmailrc").write_text(clone.with_ports(control.replace("THE PASSWORD", password)))
    clone.do("HOME=. FETCHMAILHOME=. fetchmail --fetchmailrc fetchmailrc --nosyslog --nodetach")
    wait_until(clone.mails, why=clone.logs)
    assert parse(clone.mails()[0])["Subject"] == "Hello"
    assert "Traceback" not in clone.logs()


def indented(heading: str) -> str:
    """The indented commands of a section of the page."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return "".join(f"{line}\n" for line in re.findall(r"^    (mailsuite .*)$", section, re.MULTILINE))


@pytest.mark.parametrize("name", ["provider", "customer"])
def test_sample_is_valid_with_every_key_in_force(name):
    text = (ROOT / "etc" / f"{name}.toml").read_text(encoding="utf-8")
    uncommented = re.sub(r"^#(\[|[a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    for sample in (text, uncommented):
        assert Settings.parse(tomllib.loads(sample), name, Path()).data_directory == Path(name)


def test_samples_differ_from_what_they_say_of_the_internet_in_the_ports_alone():
    endpoints = re.findall(r'endpoint = "tcp:\d(\d+):.*"  # "tcp6:(\d+)"', read_samples())
    assert len(endpoints) == 4
    assert {int(there) for _, there in endpoints} == {25, 366, 587}
    # 3025 stands for 25, and so on.
    assert [int(here) for here, _ in endpoints] == [int(there) for _, there in endpoints]


def read_samples() -> str:
    return "".join((ROOT / "etc" / f"{name}.toml").read_text(encoding="utf-8") for name in ("provider", "customer"))


def test_commands_and_keys_of_the_page_exist():
    commands = re.findall(r"`mailsuite ([^`]+)`", TEXT)
    assert len(commands) >= 2
    for command in commands:
        words = [word for word in shlex.split(command.replace("\n", " ")) if not word.startswith("-")]
        assert isinstance(root.get_command(click.Context(root), words[0]), click.Command), command
    tables = (field.annotation for field in Settings.model_fields.values())
    inner = [part for table in tables for part in (table, *getattr(table, "__args__", ()))]
    keys = {key for part in inner if hasattr(part, "model_fields") for key in part.model_fields}
    said = re.findall(r"`([a-z]+_[a-z_]+)`", TEXT) + re.findall(r"`([a-z_]+)\s+=", TEXT)
    assert len(said) >= 8
    assert set(said) - keys - set(Settings.model_fields) == set()
