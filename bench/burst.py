"""A load to many domains: `python -m bench.burst PORT --messages N --domains N`, a process of its own.

`smtp-source` sends to one domain. This sends each message to `user@d<number>.many.test`, the domains in turn, over kept
connections, commands pipelined: two writes and three reads for a message, so that it takes little of the processor.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from collections.abc import Iterator, Sequence

from bench.load import content
from bench.names import SENDER
from tests.peers.process import LOOPBACK

DOMAIN = "many.test"


def domain(number: int) -> str:
    """The name of a domain, numbered from 0."""
    return f"d{number}.{DOMAIN}"


class _Session(threading.Thread):
    """One connection; `problem` is what went wrong."""

    def __init__(self, port: int, numbers: Sequence[int], length: int) -> None:
        super().__init__()
        self._port = port
        self._numbers = numbers
        self._content = content(length)
        self.problem: str | None = None

    def run(self) -> None:
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=60.0) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._talk(connection)
        except (OSError, ValueError) as problem:
            self.problem = str(problem)

    def _talk(self, connection: socket.socket) -> None:
        replies = _replies(connection)
        _expect(replies, "220")
        connection.sendall(b"EHLO client.test\r\n")
        _expect(replies, "250")
        for number in self._numbers:
            head = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<user@{domain(number)}>\r\nDATA\r\n"
            connection.sendall(head.encode())
            for code in ("250", "250", "354"):
                _expect(replies, code)
            connection.sendall(self._content)
            _expect(replies, "250")
        connection.sendall(b"QUIT\r\n")


def _replies(connection: socket.socket) -> Iterator[bytes]:
    """The last line of each reply."""
    buffer = b""
    while True:
        line, end, rest = buffer.partition(b"\r\n")
        if not end:
            received = connection.recv(4096)
            if not received:
                raise OSError("the server has closed the connection")
            buffer += received
            continue
        buffer = rest
        if line[3:4] != b"-":
            yield line


def _expect(replies: Iterator[bytes], code: str) -> None:
    line = next(replies)
    if not line.startswith(code.encode()):
        raise ValueError(f"the server said {line!r}")


def main(arguments: Sequence[str]) -> int:
    """Send a load as the command line says; 1 when the server refuses anything."""
    parser = argparse.ArgumentParser(prog="bench.burst")
    parser.add_argument("port", type=int)
    for name, value in (("messages", 1), ("sessions", 10), ("length", 4096), ("domains", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    numbers = [number % options.domains for number in range(options.messages)]
    sessions = [
        _Session(options.port, numbers[at :: options.sessions], options.length) for at in range(options.sessions)
    ]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    problems = [session.problem for session in sessions if session.problem]
    if problems:
        print(problems[0])
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
