"""SIGTERM: sessions may come to their end, but not for ever; what was acknowledged is there at the next start."""

import signal
import smtplib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.instance import Instance, any_certificate, mailsuite
from tests.load import Load
from tests.peers.process import wait_until

STOP_TIME = 2

# twistd ends a service that was told to by SIGTERM by that same signal; to a service manager this is success.
GRACEFUL = (0, -signal.SIGTERM)


def in_the_midst(server: Instance) -> smtplib.SMTP:
    """Return a client that has sent a part of a message."""
    client = server.client()
    client.ehlo()
    client.mail("x@client.test")
    client.rcpt("alice@a.test")
    client.docmd("DATA")
    client.send(b"Subject: unfinished\r\n\r\nso far\r\n")
    return client


def last_words(client: smtplib.SMTP) -> int:
    """Wait for a reply that nobody asked for, and close the connection as it is closed by the server."""
    code, _ = client.getreply()
    client.close()
    return code


def stopping(server: Instance) -> threading.Thread:
    """Send SIGTERM, and go on when the server has understood."""
    thread = threading.Thread(target=lambda: statuses.append(server.terminate()))
    statuses: list[int] = []
    pid = server.pid
    thread.start()
    wait_until(lambda: "shutting down" in server.log(), why=server.log)
    assert Path(f"/proc/{pid}").exists() or statuses[0] in GRACEFUL
    return thread


def test_who_waits_is_told_and_the_end_comes_at_once(instances: Callable[..., Instance]) -> None:
    server = instances("a.test", settings={"stop_time": 20})
    clients = [server.client(), server.client(), server.client("alice")]
    clients[0].ehlo()
    with ThreadPoolExecutor() as pool:
        heard = [pool.submit(last_words, client) for client in clients]
        started = time.monotonic()
        assert server.terminate() in GRACEFUL
        assert time.monotonic() - started < 10
        assert [words.result() for words in heard] == [421, 421, 421]


def test_a_message_that_ends_in_time_is_taken(instances: Callable[..., Instance]) -> None:
    server = instances("a.test", settings={"stop_time": 10})
    client = in_the_midst(server)
    thread = stopping(server)
    assert client.docmd(".")[0] == 250
    assert client.getreply()[0] == 421
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    server.start()
    assert server.find("unfinished")


@pytest.mark.slow
def test_who_takes_too_long_is_cut_off(instances: Callable[..., Instance]) -> None:
    server = instances("a.test", settings={"stop_time": STOP_TIME})
    client = in_the_midst(server)
    started = time.monotonic()
    assert server.terminate() in GRACEFUL
    assert STOP_TIME - 0.5 < time.monotonic() - started < STOP_TIME + 5
    client.close()
    server.start()
    assert server.messages() == []
    server.check_leftovers()


@pytest.mark.slow
def test_nothing_is_lost_when_it_is_stopped_under_load(instances: Callable[..., Instance]) -> None:
    server = instances("a.test", users=["alice", "bob"])
    with Load(server.smtp_port, ["alice@a.test", "bob@a.test"], count=1000) as load:
        for threshold in (200, 600):
            load.wait_for(threshold)
            assert server.terminate() in GRACEFUL
            server.start()
        load.join(60.0)
        server.wait_until_drained(30.0)
        copies = load.check(server.data.glob("maildirs/*/*/new/*"))
    assert set(copies.values()) == {1}
    server.check_leftovers()


@pytest.mark.slow
def test_changes_by_the_command_are_seen_without_a_restart(server: Instance) -> None:
    def command(*arguments: str, stdin: bytes = b"") -> None:
        done = mailsuite("--config", server.configuration, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stdout

    assert not server.takes("new@a.test")
    command("user", "add", "new@a.test", "--password-stdin", "--cram", "--scram", stdin=b"a secret\n")
    wait_until(lambda: server.takes("new@a.test"), timeout=5)
    with smtplib.SMTP("127.0.0.1", server.submission_port, "client.test", timeout=10) as client:
        client.starttls(context=any_certificate())
        client.login("new@a.test", "a secret")
    command("alias", "add", "info@a.test", "new@a.test", "alice@a.test")
    wait_until(lambda: server.takes("info@a.test"), timeout=5)
    command("user", "del", "new@a.test", "--yes")
    wait_until(lambda: not server.takes("new@a.test"), timeout=5)
    command("domain", "add", "second.test")
    wait_until(lambda: server.takes("postmaster@a.test") == server.takes("postmaster@second.test"), timeout=5)
