"""What a user can do wrong: one sentence on stderr that names the thing and the cure, exit status 1, no traceback."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailsuite.admin.command import root
from tests.instance import CHECKOUT, ENVIRONMENT, Instance, mailsuite
from tests.peers.certificate import self_signed
from tests.peers.process import LOOPBACK

pytestmark = pytest.mark.slow


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """One that is not started, with nothing wrong so far."""
    return Instance(tmp_path)


def failure(instance: Instance) -> str:
    """Start it, expect it to end by itself with status 1, and return the sentence on its stderr."""
    done = subprocess.run(
        instance.command,
        cwd=instance.directory,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.stderr.startswith("mailsuite: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def checked(instance: Instance) -> str:
    """Return the sentence with which `mailsuite check` refuses the configuration."""
    done = CliRunner().invoke(root, ["check", str(instance.configuration)])
    assert done.exit_code == 1, done.output
    (sentence,) = done.output.splitlines()
    return sentence


def unlike_toml(instance: Instance) -> str:
    instance.configuration.write_text("hostname = \n")
    return f"{instance.configuration}: it is not TOML: Invalid value (at line 1, column 12)"


def no_file(instance: Instance) -> str:
    instance.configuration.unlink()
    return f"{instance.configuration}: there is no such file"


def misspelt_key(instance: Instance) -> str:
    instance.settings = {"limits.mesage_size": 1}
    return "limits.mesage_size: there is no such key; did you mean message_size?"


def wrong_value(instance: Instance) -> str:
    instance.settings = {"retry.first": "soon"}
    return "retry.first = 'soon': give seconds as a number"


def no_endpoint(instance: Instance) -> str:
    instance.listeners = [{"endpoint": "tpc:25"}]
    return "'tpc:25' does not describe a listener"


def no_certificate(instance: Instance) -> str:
    instance.settings = {"tls.certificate": "/nowhere/cert.pem"}
    return "/nowhere/cert.pem"


def another_key(instance: Instance) -> str:
    here, there = (instance.directory / name for name in ("here", "there"))
    for place in (here, there):
        place.mkdir()
    certificate, key = self_signed(here).chain, self_signed(there).key
    instance.settings = {"tls.certificate": str(certificate), "tls.key": str(key)}
    return str(key)


def no_authority(instance: Instance) -> str:
    instance.settings = {"relay.ca_file": "/nowhere/ca.pem"}
    return "/nowhere/ca.pem"


def no_agent(instance: Instance) -> str:
    instance.settings = {"local.agent": "pigeon"}
    return "local.agent = 'pigeon': there is no such delivery agent; those installed are: discard, maildir, pipe"


def no_option(instance: Instance) -> str:
    instance.settings = {"local.options.colour": "red"}
    return "local.options: colour: there is no such option"


def no_password_file(instance: Instance) -> str:
    instance.routes = [
        {"domain": "*", "next_hop": "x.test", "tls": "verified", "username": "u", "password_file": "/nowhere/it"}
    ]
    return "route[0]: password_file /nowhere/it cannot be read"


def two_minds(instance: Instance) -> str:
    hops = [{"domain": f"{tls}.test", "next_hop": "x.test", "tls": tls} for tls in ("none", "required")]
    instance.routes = hops
    return "route: two routes lead to [x.test]:25 with different settings: route[0] and route[1] differ in tls"


BAD_CONFIGURATIONS = [
    unlike_toml,
    no_file,
    misspelt_key,
    wrong_value,
    no_endpoint,
    no_certificate,
    another_key,
    no_authority,
    no_agent,
    no_option,
    no_password_file,
    two_minds,
]


@pytest.mark.parametrize("spoil", BAD_CONFIGURATIONS)
def test_a_bad_configuration(instance: Instance, spoil: Callable[[Instance], str]) -> None:
    expected = spoil(instance)
    if spoil not in (unlike_toml, no_file):
        instance.configure()
    assert expected in failure(instance)
    assert expected in checked(instance)
    assert list(instance.data.iterdir()) == [instance.data / "accounts.db"]


def test_check_takes_what_is_right(instance: Instance) -> None:
    for path in (instance.configuration, CHECKOUT / "etc" / "mailsuite.toml"):
        done = mailsuite("check", path)
        assert done.returncode == 0
        assert done.stdout.splitlines()[0] == f"{path}: nothing is wrong with it."


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken(instance: Instance, taken_port: int) -> None:
    instance.listeners = [{"endpoint": f"tcp:{taken_port}:interface={LOOPBACK}"}]
    instance.configure()
    sentence = failure(instance)
    assert f"'tcp:{taken_port}:interface={LOOPBACK}': address already in use: another program has it" in sentence


def test_a_socket_without_a_directory(instance: Instance) -> None:
    instance.listeners = [{"endpoint": "unix:/nowhere/lmtp.sock", "service": "lmtp"}]
    instance.configure()
    assert "'unix:/nowhere/lmtp.sock': no such file or directory: make the directory" in failure(instance)


def test_two_servers_over_one_directory(instance: Instance) -> None:
    second = Instance(instance.directory / "second", users=())
    second.data = instance.data
    second.configure()
    with instance:
        sentence = failure(second)
        assert f"Another mailsuite (process {instance.pid}) uses the spool in {instance.data}/spool" in sentence
        with instance.client() as client:
            client.sendmail("x@client.test", ["alice@a.test"], "Subject: still here\r\n\r\n")
        assert instance.find("still here")
    instance.check_log()


def test_a_file_in_the_place_of_the_data_directory(instance: Instance) -> None:
    instance.data = instance.directory / "file"
    instance.data.write_text("")
    instance.configure()
    sentence = failure(instance)
    assert f"data_directory = '{instance.data}' cannot be used" in sentence
    assert "make it for the user who serves" in sentence


def test_a_damaged_queue_is_not_begun_anew(instance: Instance) -> None:
    with instance:
        pass
    database = instance.data / "spool" / "queue.db"
    octets = database.read_bytes()
    database.write_bytes(b"nonsense" + octets[8:])
    assert str(database) in failure(instance)
    database.unlink()
    assert f"{database} is missing, but there was a queue in it. Restore it" in failure(instance)


def test_damaged_accounts(instance: Instance) -> None:
    (instance.data / "accounts.db").write_bytes(b"nonsense" * 1000)
    assert str(instance.data / "accounts.db") in failure(instance)


def test_commands_say_what_is_wrong_in_one_sentence(instance: Instance) -> None:
    command = ("--config", instance.configuration)
    for arguments, sentence in (
        (("user", "add", "bob@nowhere.test", "--generate"), "nowhere.test is not a local domain"),
        (("user", "add", "alice@a.test", "--generate"), "alice@a.test"),
        (("user", "del", "nobody@a.test", "--yes"), "nobody@a.test"),
        (("domain", "add", "a.test"), "a.test is a local domain already"),
    ):
        done = mailsuite(*command, *arguments)
        assert done.returncode == 1
        (line,) = done.stdout.splitlines()
        assert line.startswith("Error: ")
        assert sentence in line
