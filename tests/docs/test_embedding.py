"""docs/embedding.md: every program on the page is run, and does what the page says."""

import smtplib
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from mailsuite.config import Settings
from tests.docs.pages import ROOT, TWISTD, Workplace, blocks
from tests.instance import any_certificate, mailsuite, wait_until

pytestmark = pytest.mark.slow  # a second or two each, for processes that import Twisted

PAGE = "docs/embedding.md"
MESSAGE = "Subject: hello\n\nHi.\n"
READER = "dev@lists.example"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(tmp_path, PAGE)
    yield place
    place.stop()
    if place.output.exists():
        assert place.printed().count("Traceback") == place.expected_failures, place.printed()


def send(place: Workplace, port: int = 2525, recipient: str = READER) -> None:
    with smtplib.SMTP(*place.address(port), timeout=10) as client:
        assert client.sendmail("me@sender.example", [recipient], MESSAGE) == {}


def expect_printed(place: Workplace, text: str) -> None:
    wait_until(lambda: text in place.printed(), why=place.printed)


def test_every_program_of_the_page_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    programs = [block.name for block in blocks(PAGE) if block.language == "python"]
    assert len(programs) == len(set(programs)) >= 7
    assert [name for name in programs if f'write("{name}")' not in source] == []


def test_receiver(place):
    place.start([sys.executable, place.write("receiver.py")], greets=2525)
    send(place)
    expect_printed(place, f"hello {READER}")
    with smtplib.SMTP(*place.address(2525), timeout=10) as client:
        assert set(client.esmtp_features) == set()
        client.ehlo()
        assert {"pipelining", "size", "8bitmime", "smtputf8", "chunking"} <= set(client.esmtp_features)
        client.mail("me@sender.example")
        assert client.rcpt("someone@elsewhere.example") == (550, b"5.7.1 Relaying denied")


def test_receiver_is_about_twenty_lines(place):
    text = place.write("receiver.py").read_text()
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 25


def test_receiver_answers_as_its_coroutine_ends(place):
    program = place.write("receiver.py")
    refusing = "async def take(received):\n    if b'spam' in received.content: raise Refused(replies.ROUTING_LOOP)\n"
    failing = "    if b'fault' in received.content: raise OSError('a fault of ours')\n"
    program.write_text(program.read_text().replace("async def take(received):\n", refusing + failing))
    place.expected_failures = 1  # an exception of a coroutine is logged as the defect that it is
    place.start([sys.executable, program], greets=2525)
    with smtplib.SMTP(*place.address(2525), timeout=10) as client:
        with pytest.raises(smtplib.SMTPDataError, match="554"):
            client.sendmail("me@sender.example", [READER], "Subject: spam\n\n")
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            client.sendmail("me@sender.example", [READER], "Subject: a fault\n\n")
        assert client.sendmail("me@sender.example", [READER], MESSAGE) == {}
    expect_printed(place, f"hello {READER}")


def test_submission(place):
    place.start([sys.executable, place.write("submission.py")], greets=2587)
    with smtplib.SMTP(*place.address(2587), timeout=10) as client:
        assert client.docmd("EHLO", "client.example")[0] == 250
        assert client.docmd("MAIL", "FROM:<>")[0] == 530
        client.starttls(context=any_certificate())
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        assert client.docmd("MAIL", "FROM:<>")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice", "sesam")
        client.login("alice", "sesame")
        assert client.docmd("MAIL", "FROM:<bob@lists.example>")[0] == 550
        assert client.sendmail("alice@lists.example", [READER], MESSAGE) == {}
    expect_printed(place, "alice sends")


def test_queue_with_an_agent_of_its_own(place):
    place.start([*TWISTD, "--python", place.write("queued.py")], greets=2525)
    send(place)
    expect_printed(place, " octets\n")
    place.stop()
    assert (place.directory / "queue" / "queue.db").exists()
    assert "Main loop terminated" in place.printed()


def write_configuration(place: Workplace, more: str = "") -> Path:
    path = place.directory / "mailsuite.toml"
    path.write_text(
        place.with_ports(
            'hostname = "mail.lists.example"\ndata_directory = "data"\n'
            f'[[listen]]\nendpoint = "tcp:2525:interface=127.0.0.1"\n{more}'
        )
    )
    (place.directory / "data").mkdir()
    for arguments in (("domain", "add", "lists.example"), ("user", "add", READER, "--no-password")):
        assert mailsuite("--config", path, *arguments).returncode == 0
    return path


def test_whole_server_beside_another_service(place):
    write_configuration(place)
    place.start([*TWISTD, "--python", place.write("site.tac")], greets=2525)
    send(place)
    new = place.directory / "data" / "maildirs" / "lists.example" / "dev" / "new"
    wait_until(lambda: new.exists() and len(list(new.iterdir())) == 1, why=place.printed)

    def page() -> bytes:
        connection = HTTPConnection(*place.address(8080), timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read()
        finally:
            connection.close()

    wait_until(lambda: not page().startswith(b"1 "), why=place.printed)
    assert page() == b"0 messages are in the queue\n"


def test_delivery_agent_as_a_plugin(place):
    place.write("mailsuite/plugins/archive.py")
    [toml] = [block.text for block in blocks(PAGE) if block.language == "toml"]
    configuration = write_configuration(place, toml)
    place.start([*TWISTD, "mailsuite", "--config", configuration], greets=2525)
    send(place)
    kept = place.directory / "data" / "kept"
    # The agent of the page writes in plain sight: a file is there before it is whole.
    wait_until(lambda: any(file.stat().st_size for file in kept.glob("*")), why=place.printed)
    [file] = kept.iterdir()
    assert file.read_bytes().startswith(b"Return-Path: <me@sender.example>\r\nReceived: from ")


def test_wrong_option_of_the_plugin_is_a_sentence(place):
    place.write("mailsuite/plugins/archive.py")
    configuration = write_configuration(place, '[local]\nagent = "archive"\noptions = {director = "x"}\n')
    done = subprocess.run(
        [*TWISTD, "mailsuite", "--config", configuration],
        env={"PYTHONPATH": f"{place.directory}:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "mailsuite: local.options: archive knows the option directory, and not director" in done.stderr


def test_sending_without_a_queue(place):
    program = place.write("send.py")
    place.start([sys.executable, place.write("receiver.py")], greets=2525)
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("relayed 2.0.0 Queued as ")
    expect_printed(place, f"hello {READER}")


def test_core_alone(place):
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, place.write("core.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    greeting, ehlo, *answers = done.stdout.splitlines()
    assert greeting == r"b'220 mail.lists.example ready\r\n'"
    assert ehlo.startswith("b'250-mail.lists.example greets client.example")
    assert [answer[2:5] for answer in answers] == ["500", "501"]


def test_settings_as_a_dictionary_are_as_the_page_says():
    settings = Settings.parse({"hostname": "mail.lists.example"}, "site.tac", Path())
    assert settings.hostname == "mail.lists.example"
