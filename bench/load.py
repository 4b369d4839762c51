"""The load: Postfix's `smtp-source`, or one like it in Python where that is missing.

`python -m bench.load PORT` is the latter, a process of its own as the former is. It says the same to the
server, but costs more processor, so what it measures is lower: results of the two do not compare.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.names import RECIPIENT, SENDER
from tests.peers import postfix, smtpstone
from tests.peers.process import LOOPBACK, run

_CHUNK = 2**16


class LoadError(Exception):
    """The server refused something, or did not end in time."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `length` is in octets without the header; `keep`: many messages on one connection."""

    messages: int
    sessions: int = 10
    length: int = 4096
    keep: bool = True
    recipients: int = 1


def generator() -> str:
    """What the load comes from on this machine, for the record."""
    missing = smtpstone.why_missing()
    return f"bench.load, because {missing}" if missing else "smtp-source of Postfix"


def send(load: Load, port: int, *, timeout: float, recipient: str = RECIPIENT) -> float:
    """Send it all and return the seconds from start to last reply. Raises `LoadError`."""
    if smtpstone.why_missing():
        command = _own_command(load, port)
        assert recipient == RECIPIENT, "ours knows one recipient"
    else:
        command = smtpstone.smtp_source_command(
            port,
            messages=load.messages,
            sessions=load.sessions,
            length=load.length,
            keep=load.keep,
            recipients=load.recipients,
            sender=SENDER,
            recipient=recipient,
        )
    environment = postfix.environment()
    started = time.perf_counter()
    try:
        finished = run(command, timeout=timeout, environment=environment)
    except subprocess.TimeoutExpired:
        raise LoadError(f"the load did not end in {timeout:.0f} seconds") from None
    taken = time.perf_counter() - started
    if finished.returncode != 0:
        raise LoadError(finished.stdout.strip()[-500:] or f"the load ended with {finished.returncode}")
    return taken


def content(length: int) -> bytes:
    """A header, and lines of 78 octets and CRLF up to the length, and the end of data."""
    header = b"From: <%b>\r\nTo: <%b>\r\nSubject: load\r\n\r\n" % (SENDER.encode(), RECIPIENT.encode())
    lines, rest = divmod(length, 80)
    body = (b"X" * 78 + b"\r\n") * lines + (b"X" * (rest - 2) + b"\r\n" if rest >= 2 else b"")
    return header + body + b".\r\n"


def _own_command(load: Load, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "bench.load", str(port)),
        *("--messages", str(load.messages), "--sessions", str(load.sessions)),
        *("--length", str(load.length), "--recipients", str(load.recipients)),
        *(["--keep"] if load.keep else []),
    ]


class _Sender:
    """The sessions of one load, which share what is left to send."""

    def __init__(self, load: Load, port: int) -> None:
        self._load = load
        self._port = port
        self._left = load.messages
        self._content = content(load.length)
        self._recipients = smtpstone.recipient_names(RECIPIENT, load.recipients)

    async def send_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._load.sessions):
                group.create_task(self._session())

    async def _session(self) -> None:
        while self._left > 0:
            reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
            await _expect(reader, b"2")
            await _say(reader, writer, "HELO client.test")
            while self._left > 0:
                self._left -= 1
                await self._message(reader, writer)
                if not self._load.keep:
                    break
            await _say(reader, writer, "QUIT")
            writer.close()
            await writer.wait_closed()

    async def _message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _say(reader, writer, f"MAIL FROM:<{SENDER}>")
        for recipient in self._recipients:
            await _say(reader, writer, f"RCPT TO:<{recipient}>")
        await _say(reader, writer, "DATA", expected=b"3")
        for start in range(0, len(self._content), _CHUNK):
            writer.write(self._content[start : start + _CHUNK])
            await writer.drain()
        await _expect(reader, b"2")


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str, expected: bytes = b"2") -> None:
    writer.write(line.encode() + b"\r\n")
    await _expect(reader, expected)


async def _expect(reader: asyncio.StreamReader, expected: bytes) -> None:
    while (line := await reader.readline())[3:4] == b"-":
        continue
    if line[:1] != expected:
        raise LoadError(f"the server said {line!r}")


def main(arguments: Sequence[str]) -> int:
    """Send a load as the command line says; 1 when the server refuses anything."""
    parser = argparse.ArgumentParser(prog="bench.load")
    parser.add_argument("port", type=int)
    for name, value in (("messages", 1), ("sessions", 1), ("length", 4096), ("recipients", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(arguments)
    load = Load(options.messages, options.sessions, options.length, options.keep, options.recipients)
    try:
        asyncio.run(_Sender(load, options.port).send_all())
    except ExceptionGroup as problems:
        print(problems.exceptions[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
