"""Postfix's load generator and its black hole: `smtp-source` and `smtp-sink`.

`smtp-source` is one process without threads that sends HELO (never EHLO), so it uses neither PIPELINING
nor TLS nor AUTH, and writes contents with blocking calls. It gives up as a whole, with status 1, on the
first reply that is not positive. It runs as root without ado. With several recipients their names are
the given one with a number before it: `user@d` becomes `3user@d`, `2user@d`, `user@d`.

`smtp-sink` refuses to run as root without an unprivileged user to become.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.peers import postfix
from tests.peers.process import LOOPBACK, PeerError, Server, free_port, run, spawn, stop, wait_for_greeting

SINK_USER = "nobody"


def why_missing() -> str | None:
    """Why these two cannot be used here, or None. They need no root and no ids, unlike Postfix."""
    return postfix.why_not_unpacked()


def recipient_names(recipient: str, count: int) -> list[str]:
    """The addresses that `smtp-source` makes of one when it sends to `count` recipients."""
    return [recipient, *(f"{number}{recipient}" for number in range(2, count + 1))]


def smtp_source_command(
    port: int,
    *,
    messages: int = 1,
    sessions: int = 1,
    length: int = 4096,
    keep: bool = False,
    recipients: int = 1,
    sender: str = "sender@client.test",
    recipient: str = "user@peer.test",
    subject: str | None = None,
    lmtp: bool = False,
) -> list[str]:
    """The command line for `messages` in all, over `sessions` connections at once.

    `length` is in octets, without the header. With `keep` a connection carries one message after the
    other (`-d`: do not disconnect); without, each message has a connection of its own.
    """
    return [
        str(postfix.program("smtp-source")),
        "-4",
        "-s", str(sessions),
        "-m", str(messages),
        "-l", str(length),
        "-r", str(recipients),
        "-M", "client.test",
        "-f", sender,
        "-t", recipient,
        *(["-d"] if keep else []),
        *(["-L"] if lmtp else []),
        *(["-S", subject] if subject is not None else []),
        f"{LOOPBACK}:{port}",
    ]  # fmt: skip


def smtp_source(
    port: int,
    *,
    messages: int = 1,
    sessions: int = 1,
    length: int = 4096,
    keep: bool = False,
    recipients: int = 1,
    sender: str = "sender@client.test",
    recipient: str = "user@peer.test",
    subject: str | None = None,
    lmtp: bool = False,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Send the load of `smtp_source_command`; status 0 when every message was taken."""
    command = smtp_source_command(
        port,
        messages=messages,
        sessions=sessions,
        length=length,
        keep=keep,
        recipients=recipients,
        sender=sender,
        recipient=recipient,
        subject=subject,
        lmtp=lmtp,
    )
    return run(command, timeout=timeout, environment=postfix.environment())


class SmtpSink(Server):
    """A server that takes mail and throws it away, or keeps it in files and refuses as it is told.

    `options` are its own, such as `("-r", "RCPT")` to refuse recipients for now, `("-f", "DATA")` for
    good, `("-q", ".")` to vanish, `("-L",)` for LMTP, `("-w", "5")` to be slow after DATA.
    """

    def __init__(self, *options: str, capture: bool = False) -> None:
        self._options = options
        self._capture = capture
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="mailsuite-smtp-sink-"))
        self.port = free_port()

    def start(self, timeout: float = 10.0) -> None:
        """Start it and return when it greets. Raises `PeerError`."""
        missing = why_missing()
        if missing:
            raise PeerError(missing)
        privileges: list[str] = []
        if os.geteuid() == 0:
            privileges = ["-u", SINK_USER]
        # It becomes another user after the socket is open and before the first file is written.
        self._directory.chmod(0o777)
        dump = ["-d", "%s."] if self._capture else []
        command = [str(postfix.program("smtp-sink")), "-4", *privileges, *dump, *self._options]
        output = self._directory / "output"
        self._process = spawn(
            [*command, f"{LOOPBACK}:{self.port}", "256"],
            output=output,
            cwd=self._directory,
            environment=postfix.environment(),
        )
        try:
            expected = b"" if "CONNECT" in self._options else b"220"  # it refuses, or vanishes, instead of greeting
            wait_for_greeting(self.port, self._process, output=output, timeout=timeout, expected=expected)
        except PeerError as problem:
            self.stop()
            raise PeerError(f"{shlex.join(command)}: {problem}") from None

    def stop(self) -> None:
        """End it and remove what it wrote."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def messages(self) -> list[bytes]:
        """The captured transactions: `X-` lines with the envelope, then the message, LF line ends.

        A transaction that is still going on is among them, as far as it has come.
        """
        files = (path for path in self._directory.iterdir() if path.name != "output")
        return [path.read_bytes() for path in sorted(files)]
