"""A server on `twisted.mail.smtp` that offers the mechanisms it is told to, under TLS: an old peer with CRAM-MD5.

It takes mail from `USER` with `PASSWORD` only, from any address to any other. The server itself is in
`twisted_mail_server`, which installs a reactor when it is imported.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.peers.certificate import Certificate
from tests.peers.process import PeerError, Server, free_port, spawn, stop, wait_for_greeting

USER, PASSWORD = "customer@old.test", "open sesame"


class TwistedMail(Server):
    """The server in a process of its own, with its files in `directory`."""

    def __init__(self, directory: Path, certificate: Certificate, *mechanisms: str) -> None:
        self._directory = directory
        self._certificate = certificate
        self._mechanisms = mechanisms
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def start(self) -> None:
        output, messages = self._directory / "output", self._directory / "messages"
        messages.mkdir(parents=True, exist_ok=True)
        certificate = (self._certificate.chain, self._certificate.key)
        arguments = (str(self.port), *certificate, messages, USER, PASSWORD, *self._mechanisms)
        self._process = spawn(
            [sys.executable, "-m", "tests.peers.twisted_mail_server", *arguments],
            output=output,
            cwd=Path(__file__).parents[2],
        )
        try:
            wait_for_greeting(self.port, self._process, output=output)
        except PeerError:
            self.stop()
            raise

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None

    def messages(self) -> list[bytes]:
        """What it has taken, in no order."""
        return [path.read_bytes() for path in (self._directory / "messages").iterdir()]
