"""A load of mail that knows what it was promised: threads send messages and note which have had their 250.

A message whose connection broke before its reply is in doubt: it may arrive, and it is not sent again. One that was
refused for the moment goes back to the others. Each message carries its number and the digest of its body, so that
what arrives can be held against what was sent.
"""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Self

from tests.peers.process import LOOPBACK

_LINE = 64  # octets, with its CR LF
_BLOCK = b"".join(random.Random(1).randbytes(31).hex().encode() + b"\r\n" for _ in range(16 * 1024))
_PAUSE = 0.05  # seconds before a new connection is tried

LARGE = 300 * 1024
"""Octets of the largest messages: more than a spool keeps in its database."""


class Refused(Exception):
    """The server said no, for now."""


class Load:
    """`count` messages over `sessions` connections at once; each goes to one or two of the recipients.

    `sent` is how many were given a connection, `noted` are the numbers of those that had their 250, with the
    recipients they went to; `doubtful` are those whose reply never came.
    """

    def __init__(self, port: int, recipients: Sequence[str], *, count: int = 2000, sessions: int = 8) -> None:
        self._port = port
        self._recipients = recipients
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(count):
            self._numbers.put(number)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(sessions)]
        self._ending = threading.Event()
        self.noted: dict[int, Sequence[str]] = {}
        self.doubtful: set[int] = set()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self.join(30.0)

    def join(self, timeout: float) -> None:
        """Wait until everything has been sent. Raises `AssertionError`."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), f"the load has not ended in {timeout} seconds"

    def wait_for(self, count: int, timeout: float = 60.0) -> None:
        """Return when so many messages have had their 250. Raises `AssertionError`."""
        deadline = time.monotonic() + timeout
        while len(self.noted) < count:
            assert time.monotonic() < deadline, f"{len(self.noted)} of {count} messages within {timeout} seconds"
            time.sleep(0.001)

    def check(self, delivered: Iterable[Path]) -> Counter[tuple[int, str]]:
        """Verify that what was promised has arrived, whole; count the copies of each, by number and recipient.

        Every file is checked, those in doubt too. Raises `AssertionError`.
        """
        copies: Counter[tuple[int, str]] = Counter()
        for path in delivered:
            header, _, body = path.read_bytes().partition(b"\n\n")
            fields = dict(line.split(b": ", 1) for line in header.splitlines() if b": " in line)
            assert sha256(body).hexdigest().encode() == fields[b"X-Digest"], f"{path} is not what was sent"
            copies[int(fields[b"Subject"]), fields[b"Delivered-To"].decode()] += 1
        promised = [(number, recipient) for number, recipients in self.noted.items() for recipient in recipients]
        lost = [one for one in promised if not copies[one]]
        assert not lost, f"{len(lost)} of {len(promised)} promised deliveries are lost: {lost[:5]}"
        sent = self.noted.keys() | self.doubtful
        strangers = [one for one in copies if one[0] not in sent]
        assert not strangers, f"delivered without having been sent: {strangers[:5]}"
        return copies

    def _run(self) -> None:
        while not self._ending.is_set():
            with (
                suppress(OSError),
                socket.create_connection((LOOPBACK, self._port), timeout=20.0) as connection,
                connection.makefile("rb") as replies,
            ):
                _expect(replies, b"220")
                connection.sendall(b"EHLO load.test\r\n")
                _expect(replies, b"250")
                if self._send_all(connection, replies):
                    return
            time.sleep(_PAUSE)

    def _send_all(self, connection: socket.socket, replies: BinaryIO) -> bool:
        """Send what is left; whether nothing is."""
        while not self._ending.is_set():
            try:
                number = self._numbers.get_nowait()
            except queue.Empty:
                return True
            recipients = self._recipients_of(number)
            try:
                _send(connection, replies, recipients, message(number))
            except Refused:
                self._numbers.put(number)
                raise ConnectionError from None
            except OSError:
                self.doubtful.add(number)
                raise
            self.noted[number] = recipients
        return True

    def _recipients_of(self, number: int) -> Sequence[str]:
        first = number % len(self._recipients)
        return self._recipients[first : first + 1 + (number % 5 == 0)]


def message(number: int) -> bytes:
    """The message of that number: mostly small, each tenth of 64 KiB, each hundredth larger than `LARGE`."""
    chance = random.Random(number)
    octets = (
        LARGE + chance.randrange(LARGE) if number % 100 == 7 else 65536 if number % 10 == 3 else chance.randrange(8192)
    )
    start = chance.randrange(1024)
    body = _BLOCK[start * _LINE : start * _LINE + octets // _LINE * _LINE]
    digest = sha256(body.replace(b"\r\n", b"\n")).hexdigest().encode()
    return b"Subject: %d\r\nX-Digest: %b\r\n\r\n%b" % (number, digest, body)


def _send(connection: socket.socket, replies: BinaryIO, recipients: Sequence[str], content: bytes) -> None:
    commands = [b"MAIL FROM:<load@load.test>", *(b"RCPT TO:<%b>" % one.encode() for one in recipients), b"DATA"]
    connection.sendall(b"".join(command + b"\r\n" for command in commands))
    for _ in commands[:-1]:
        _expect(replies, b"250")
    _expect(replies, b"354")
    connection.sendall(content + b".\r\n")
    _expect(replies, b"250")


def _expect(replies: BinaryIO, code: bytes) -> None:
    """Read a reply. Raises `Refused` for one in 4yz, `OSError` where the connection is lost."""
    while True:
        line = replies.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection was closed")
        if line.startswith(b"4"):
            raise Refused(line)
        assert line.startswith(code), line
        if line[3:4] == b" ":
            return
