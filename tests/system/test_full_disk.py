"""A full disk, on a small tmpfs: 452 4.3.1 while it is full, and nothing that was acknowledged is lost."""

import os
import shutil
import smtplib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.instance import Instance
from tests.load import LARGE, message
from tests.peers import process

pytestmark = pytest.mark.slow

MEBIBYTE = 2**20
RESERVE = 64 * MEBIBYTE  # what the spool keeps free, to settle what is in the queue
ROOM = 8 * MEBIBYTE
FILL = b"Subject: fill\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Instance]:
    """One whose data lie on a file system of their own, with `ROOM` for mail as long as the filler is there."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("this needs root, who can mount a small file system")
    # Mail for held.test stays in the queue.
    instance = Instance(tmp_path / "server", users=(), routes=[{"domain": "held.test", "hold": True, "relay": True}])
    shutil.rmtree(instance.data)
    instance.data.mkdir()
    # The filler gives more room back than mail can have taken: what it leaves (a log, maildirs) stays.
    options = f"size={RESERVE + 4 * ROOM}"
    mounted = process.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", instance.data], timeout=10.0)
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted: {mounted.stdout.strip()}")
    try:
        filler(instance).write_bytes(bytes(3 * ROOM))
        instance.add_users(["alice"])
        with instance:
            yield instance
        instance.check_log()
    finally:
        unmounted = process.run(["umount", instance.data], timeout=10.0)
    assert unmounted.returncode == 0, unmounted.stdout


def filler(instance: Instance) -> Path:
    return instance.data / "filler"


def leave(instance: Instance, octets: int) -> None:
    """Let the filler take what is free, but for so many octets."""
    free = os.statvfs(instance.data)
    wanted = free.f_bavail * free.f_frsize - octets
    with suppress(OSError), filler(instance).open("ab", buffering=0) as file:
        while wanted > 0:
            wanted -= file.write(bytes(min(wanted, 4096)))


def send(server: Instance, content: bytes, recipient: str = "alice@a.test") -> tuple[int, bytes]:
    """Send a message and return the reply to its content."""
    with server.client() as client:
        client.ehlo()
        client.mail("x@client.test")
        client.rcpt(recipient)
        try:
            return client.data(content)
        except smtplib.SMTPDataError as refusal:
            return refusal.smtp_code, refusal.smtp_error


def fill(server: Instance, size: int, recipient: str = "alice@a.test") -> int:
    """Send messages of some size until one is refused, verify how it was, and return how many were taken."""
    content = FILL + (b"x" * 98 + b"\r\n") * (size // 100)
    for taken in range(1000):
        code, text = send(server, content, recipient)
        if code != 250:
            assert (code, text[:6]) == (452, b"4.3.1 ")
            return taken
    raise AssertionError("the disk does not get full")


def subjects(server: Instance) -> list[bytes]:
    return [path.read_bytes().partition(b"Subject: ")[2].partition(b"\n")[0] for path in server.messages()]


@pytest.mark.parametrize("size", [64 * 1024, LARGE])
def test_full_and_then_room_again(server: Instance, size: int) -> None:
    taken = fill(server, size)
    assert taken > 3
    # What was taken is delivered all the same: that is what the reserve is for.
    server.wait_until_drained()
    assert subjects(server) == [b"fill"] * taken
    leave(server, RESERVE - MEBIBYTE)
    assert send(server, b"Subject: small\r\n\r\nsmall\r\n")[0] == 452
    assert send(server, message(7))[0] == 452
    filler(server).unlink()
    assert send(server, b"Subject: room again\r\n\r\n")[0] == 250
    assert server.find("room again")
    server.wait_until_drained()
    server.check_leftovers()


@pytest.mark.parametrize("killed", [False, True])
def test_not_an_octet_left_and_then_room_again(server: Instance, killed: bool) -> None:
    taken = fill(server, 64 * 1024, "x@held.test")
    leave(server, 0)
    for _ in range(3):
        assert send(server, b"Subject: small\r\n\r\nsmall\r\n")[0] == 452
    if killed:
        server.kill()
    filler(server).unlink()
    if killed:
        server.start()
    assert send(server, b"Subject: room again\r\n\r\n")[0] == 250
    assert server.find("room again")
    assert [address for address, _, _ in server.queue()].count("x@held.test") == taken
    server.check_leftovers()


def test_a_content_that_the_disk_cannot_take_is_refused_and_forgotten(server: Instance) -> None:
    leave(server, RESERVE + MEBIBYTE)
    # There is room when it begins; meanwhile somebody else takes it.
    with server.client() as client:
        client.ehlo()
        client.mail("x@client.test")
        client.rcpt("alice@a.test")
        client.docmd("DATA")
        client.send(b"Subject: too late\r\n\r\n")
        line = b"x" * 98 + b"\r\n"
        client.send(line * 5000)
        leave(server, 0)
        client.send(line * 5000 + b".\r\n")
        code, text = client.getreply()
        assert (code, text[:6]) == (452, b"4.3.1 ")
        assert client.noop()[0] == 250
    server.check_leftovers()
    filler(server).unlink()
    assert send(server, b"Subject: room again\r\n\r\n")[0] == 250
    server.wait_for("alice", 1)
