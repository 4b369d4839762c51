"""A message of nearly 50 MiB, in and on: it never lies in the server's memory whole."""

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.instance import Instance, any_certificate
from tests.peers.process import LOOPBACK, wait_until

pytestmark = pytest.mark.slow

LINES = [b"%07d %b\r\n" % (number, b"x" * 68) for number in range(1000)]
BLOCK = b"".join(LINES)
BLOCKS = 49 * 2**20 // len(BLOCK)
SIZE = BLOCKS * len(BLOCK)
BOUND = 30 * 2**20  # octets by which the most that was ever resident may grow


def most_resident(server: Instance) -> int:
    """Octets of the server's memory that were resident at its worst."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


class Client:
    """Says one command after the other; smtplib would want the message whole, and knows no BDAT."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._replies = connection.makefile("rb")

    def hear(self, code: bytes) -> None:
        while (line := self._replies.readline())[3:4] == b"-":
            assert line.startswith(code), line
        assert line.startswith(code), line

    def say(self, line: bytes, code: bytes) -> None:
        self.connection.sendall(line + b"\r\n")
        self.hear(code)

    def close(self) -> None:
        self.say(b"QUIT", b"221")
        self._replies.close()


def begin(server: Instance, recipient: str, *, tls: bool) -> tuple[Client, socket.socket]:
    connection = socket.create_connection((LOOPBACK, server.smtp_port), timeout=60)
    client = Client(connection)
    client.hear(b"220")
    client.say(b"EHLO client.test", b"250")
    if tls:
        client.say(b"STARTTLS", b"220")
        context: ssl.SSLContext = any_certificate()
        connection = context.wrap_socket(connection)
        client = Client(connection)
        client.say(b"EHLO client.test", b"250")
    client.say(b"MAIL FROM:<x@client.test>", b"250")
    client.say(b"RCPT TO:<%b>" % recipient.encode(), b"250")
    return client, connection


def send(server: Instance, recipient: str, *, tls: bool = False, chunking: bool = False) -> None:
    client, connection = begin(server, recipient, tls=tls)
    header = b"Subject: large\r\n\r\n"
    with connection:
        if chunking:
            client.say(b"BDAT %d\r\n%b" % (len(header), header.removesuffix(b"\r\n")), b"250")
            for number in range(BLOCKS):
                connection.sendall(b"BDAT %d%b\r\n" % (len(BLOCK), b" LAST" if number == BLOCKS - 1 else b""))
                connection.sendall(BLOCK)
                client.hear(b"250")
        else:
            client.say(b"DATA", b"354")
            connection.sendall(header)
            for _ in range(BLOCKS):
                connection.sendall(BLOCK)
            client.say(b".", b"250")
        client.close()


def wait_until_delivered(server: Instance, user: str) -> None:
    """Wait for the one message, and verify its body."""
    wait_until(lambda: server.messages(user), timeout=60, why=server.log)
    (path,) = server.messages(user)
    body = path.read_bytes().partition(b"\n\n")[2]
    assert hashlib.sha256(body).digest() == hashlib.sha256(BLOCK.replace(b"\r\n", b"\n") * BLOCKS).digest()


@pytest.fixture
def warm(instances: Callable[..., Instance]) -> Iterator[Instance]:
    """A server that has taken and delivered a few messages already."""
    server = instances("a.test", users=["alice", "bob", "carol", "warmed"])
    for _ in range(3):
        with server.client() as client:
            client.starttls(context=any_certificate())
            client.sendmail("x@client.test", ["warmed@a.test"], "Subject: warm up\r\n\r\n" + 3000 * "many lines\r\n")
    server.wait_for("warmed", 3)
    yield server
    server.wait_until_drained()
    server.check_leftovers()


@pytest.mark.parametrize(("tls", "chunking"), [(False, False), (False, True), (True, False)])
def test_taking_and_delivering_it_costs_no_memory(warm: Instance, tls: bool, chunking: bool) -> None:
    before = most_resident(warm)
    send(warm, "alice@a.test", tls=tls, chunking=chunking)
    wait_until_delivered(warm, "alice")
    assert most_resident(warm) - before < BOUND


def test_three_at_once_cost_no_memory(warm: Instance) -> None:
    before = most_resident(warm)
    clients = [begin(warm, f"{user}@a.test", tls=False) for user in ("alice", "bob", "carol")]
    for client, connection in clients:
        client.say(b"DATA", b"354")
        connection.sendall(b"Subject: large\r\n\r\n")
    for _ in range(BLOCKS):
        for _, connection in clients:
            connection.sendall(BLOCK)
    for client, connection in clients:
        client.say(b".", b"250")
        client.close()
        connection.close()
    for user in ("alice", "bob", "carol"):
        wait_until_delivered(warm, user)
    assert most_resident(warm) - before < BOUND


@pytest.mark.parametrize("tls", ["none", "required"])
def test_relaying_it_costs_no_memory(instances: Callable[..., Instance], tls: str) -> None:
    far = instances("b.test", users=["bob"])
    hop = {"domain": "b.test", "next_hop": f"{LOOPBACK}:{far.smtp_port}", "relay": True, "tls": tls}
    near = instances("a.test", routes=[hop])
    with near.client() as client:
        client.sendmail("x@client.test", ["bob@b.test"], "Subject: warm up\r\n\r\n" + 3000 * "many lines\r\n")
    far.wait_for("bob")
    near.wait_until_drained()
    far.messages("bob")[0].unlink()
    before = {server: most_resident(server) for server in (near, far)}
    send(near, "bob@b.test")
    wait_until_delivered(far, "bob")
    near.wait_until_drained()
    assert {server.domain: most_resident(server) - before[server] < BOUND for server in (near, far)} == {
        "a.test": True,
        "b.test": True,
    }


def test_what_grows_too_large_is_refused_and_leaves_nothing(warm: Instance) -> None:
    client, connection = begin(warm, "alice@a.test", tls=False)
    before = most_resident(warm)
    with connection:
        client.say(b"DATA", b"354")
        for _ in range(50 * 2**20 // len(BLOCK) + 2):
            connection.sendall(BLOCK)
        client.say(b".", b"552")
        client.close()
    assert most_resident(warm) - before < BOUND
    assert warm.messages("alice") == []
