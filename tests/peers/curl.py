"""curl as a mail client: `smtp://` and `smtps://` to send, `pop3://` and `imap://` to read.

curl is the peer that starts with EHLO, falls back to HELO, and asks for MAIL parameters (SIZE, SMTPUTF8)
by itself. It sends what it reads as it is: messages must already have CRLF line ends.
"""

from __future__ import annotations

import shutil
import subprocess

from tests.peers.process import LOOPBACK, run


def why_missing() -> str | None:
    """Why curl cannot be used here, or None."""
    if shutil.which("curl") is None:
        return "curl is not installed (python -m tests.peers.install)"
    protocols = run(["curl", "--version"], timeout=10.0).stdout
    if " smtp " not in protocols or " smtps " not in protocols:
        return "this curl was built without SMTP"
    return None


def curl(url: str, *arguments: str, stdin: bytes = b"", timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run curl verbosely; `stdout` is the dialogue and what it fetched. 0 is success, 55 and 56 network,
    67 a refused login, 8 a reply that it did not expect.
    """
    return run(
        ["curl", "--verbose", "--silent", "--show-error", "--noproxy", "*",
         "--max-time", str(timeout - 1), "--url", url, *arguments],
        timeout=timeout,
        stdin=stdin,
    )  # fmt: skip


def send(
    port: int,
    message: bytes,
    *arguments: str,
    scheme: str = "smtp",
    sender: str = "sender@client.test",
    recipient: str = "user@peer.test",
    timeout: float = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Send one message to the port on the loopback. The path in the URL is the name given in EHLO."""
    return curl(
        f"{scheme}://{LOOPBACK}:{port}/client.test",
        "--mail-from", sender,
        "--mail-rcpt", recipient,
        "--upload-file", "-",
        *arguments,
        stdin=message,
        timeout=timeout,
    )  # fmt: skip
