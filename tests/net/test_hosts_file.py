"""The file of hosts: what stands there, and that it is read only when it has changed."""

import os
from pathlib import Path

import pytest
from twisted.names.error import DomainError

from mailsuite.net.hosts_file import HostsFile

TEXT = """
# 192.0.2.1 comment.example
192.0.2.7\tShip.example ship # and not this.example
2001:db8::7 six.example
192.0.2.8 both.example
2001:db8::8 both.example BOTH.example
192.0.2.9 both.example
nonsense.address odd.example
\xff\xff strange.example
192.0.2.10
"""


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "hosts"
    file.write_text(TEXT, encoding="latin-1")
    return file


def ask(hosts, name, *, six=False):
    """The addresses; None where the file does not have the name."""
    found = []
    asked = hosts.lookupIPV6Address(name) if six else hosts.lookupAddress(name)
    asked.addCallbacks(
        lambda answer: found.append([one.payload.dottedQuad() if not six else one.payload for one in answer[0]]),
        lambda failure: found.append(failure.trap(DomainError) and None),
    )
    [result] = found
    return result


@pytest.mark.parametrize(
    ("name", "four", "six"),
    [
        ("ship.example", ["192.0.2.7"], 0),
        ("SHIP", ["192.0.2.7"], 0),
        ("six.example", [], 1),
        ("both.example", ["192.0.2.8", "192.0.2.9"], 1),
        *[(f"{name}.example", None, None) for name in ("comment", "this", "odd", "strange", "elsewhere")],
    ],
)
def test_a_name_has_the_addresses_that_stand_there_and_no_others(file, name, four, six) -> None:
    hosts = HostsFile(file)
    assert ask(hosts, name) == four
    found = ask(hosts, name, six=True)
    assert (found if found is None else len(found)) == six


def test_answers_hold_as_long_as_was_said(file) -> None:
    answers = []
    HostsFile(file, ttl=5).lookupAddress("ship.example").addCallback(answers.append)
    [((answer,), _authority, _additional)] = answers
    assert (answer.ttl, answer.payload.ttl) == (5, 5)


def test_the_file_is_read_again_only_when_it_has_changed(file, monkeypatch) -> None:
    reads = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    hosts = HostsFile(file)
    for _ in range(10):
        assert ask(hosts, "ship") == ["192.0.2.7"]
        assert ask(hosts, "elsewhere") is None
    assert len(reads) == 1
    file.write_text("192.0.2.99 ship\n")
    os.utime(file, ns=(1, 1))
    assert ask(hosts, "ship") == ["192.0.2.99"]
    file.unlink()
    assert ask(hosts, "ship") is None
    file.write_text("192.0.2.98 ship\n")
    assert ask(hosts, "ship") == ["192.0.2.98"]
