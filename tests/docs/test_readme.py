"""README.md: the conversation is what a server says, commands and links lead somewhere."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.admin.demo import _WELCOME
from mailsuite.mail.session import SecretKind
from tests.docs.pages import ROOT
from tests.instance import Instance, any_certificate, mailsuite
from tests.peers.process import LOOPBACK

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


class Said(NamedTuple):
    speaker: str
    text: str


def conversation() -> list[Said]:
    """The conversation of the README; what stands in angle brackets between the lines is a note."""
    [block] = re.findall(r"(?:^    S: 220 .*\n)(?:^    .*\n)+", README, re.MULTILINE)
    lines = re.findall(r"^    ([SC]): ?(.*)$", block, re.MULTILINE)
    return [Said(*line) for line in lines]


class Connection:
    """A connection to a server, line by line."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=10)
        self._file = self._socket.makefile("rb")

    def say(self, line: str) -> None:
        self._socket.sendall(line.encode() + b"\r\n")

    def hear(self) -> str:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), line
        return line[:-2].decode()

    def start_tls(self) -> None:
        self._file.close()
        self._socket = any_certificate().wrap_socket(self._socket)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Instance]:
    """What `mailsuite demo` starts, on other ports and with the password of the README."""
    server = Instance(tmp_path, "demo.example", users=())
    with DirectoryFile(server.data / "accounts.db", create=True) as accounts:
        if not accounts.domains():
            accounts.add_domain("demo.example")
        accounts.add_user("alice@demo.example", "sesame", keep=(SecretKind.SHARED, SecretKind.SCRAM_SHA_256))
    with server:
        yield server


@pytest.mark.slow
def test_conversation_is_what_the_server_says(demo):
    connection = Connection(demo.submission_port)
    skipping = False
    for said in conversation():
        if said.speaker == "C":
            connection.say(said.text)
        elif said.text == "250-...":
            skipping = True
        else:
            heard = connection.hear()
            while skipping and heard != said.text:
                assert heard.startswith("250-")
                heard = connection.hear()
            skipping = False
            wanted = re.sub(r"(?<=Queued as )\w+", r"\\w{11}", re.escape(said.text).replace(r"\ ", " "))
            assert re.fullmatch(wanted, heard), (said.text, heard)
            if heard.endswith("Ready to start TLS"):
                connection.start_tls()
    connection.close()
    [message] = demo.wait_for("alice")
    assert message["Subject"] == "the first mail"


@pytest.mark.slow
def test_demo_tells_a_command_that_sends(demo):
    told = _WELCOME.format(
        user="alice@demo.example",
        password="sesame",
        port=demo.submission_port,
        maildir="maildir",
        directory="directory",
        command="mailsuite",
        configuration="mailsuite.toml",
    )
    [command] = re.findall(r'^ +(python3 -c ".*?")$', told, re.MULTILINE | re.DOTALL)
    command = command.replace("python3", sys.executable, 1)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    [message] = demo.wait_for("alice")
    assert message["Subject"] == "the first mail"
    assert message.get_content() == "It works.\n"


@pytest.mark.slow
def test_commands_of_the_readme_make_a_directory_that_serves(tmp_path):
    sample = (ROOT / "etc" / "mailsuite.toml").read_text(encoding="utf-8")
    configuration = tmp_path / "mailsuite.toml"
    configuration.write_text(f'data_directory = "{tmp_path}"\n{sample}', encoding="utf-8")
    commands = re.findall(r"^    mailsuite (.+?)(?: +#.*)?$", README, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["check", "domain", "user", "alias"]
    for command in commands:
        arguments = command.replace("/etc/mailsuite/mailsuite.toml", str(configuration)).split()
        secret = ["--password-stdin"] if arguments[:2] == ["user", "add"] else []
        done = mailsuite("--config", configuration, *arguments, *secret, stdin=b"sesame\n")
        assert done.returncode == 0, done.stdout
    with DirectoryFile(tmp_path / "accounts.db") as accounts:
        assert [user.address for user in accounts.users()] == ["alice@example.org"]
        assert [alias.address for alias in accounts.aliases()] == ["postmaster@example.org"]


def test_sample_configuration_passes_the_check():
    done = mailsuite("check", ROOT / "etc" / "mailsuite.toml")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{ROOT}/etc/mailsuite.toml: nothing is wrong with it.\n")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_targets_of_the_makefile_are_those_that_the_pages_name():
    made = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^    make ([a-z]+)", text, re.MULTILINE)) <= made
