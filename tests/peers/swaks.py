"""swaks, the SMTP transaction tester, as a client: every AUTH mechanism, STARTTLS, LMTP, PIPELINING."""

from __future__ import annotations

import shutil
import subprocess

from tests.peers.process import LOOPBACK, run

_MODULES = ("Net::SSLeay", "Authen::SASL", "Digest::HMAC_MD5")


def why_missing() -> str | None:
    """Why swaks cannot be used here, or None. Its Perl modules for TLS and AUTH count as part of it."""
    if shutil.which("swaks") is None:
        return "swaks is not installed (python -m tests.peers.install)"
    probe = run(["perl", *(f"-M{module}" for module in _MODULES), "-e", "1"], timeout=20.0)
    if probe.returncode != 0:
        return f"swaks lacks a Perl module: {probe.stdout.splitlines()[0]}"
    return None


def swaks(
    port: int,
    *arguments: str,
    sender: str = "sender@client.test",
    recipient: str = "user@peer.test",
    timeout: float = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Run one transaction against the port on the loopback; `stdout` is the whole dialogue.

    `arguments` are swaks' own (`--tls`, `--tls-on-connect`, `--auth CRAM-MD5`, `--auth-user` ...). The
    status is 0 when the message was taken; swaks' manual lists the others (21 to 29).
    """
    return run(
        [
            "swaks",
            "--server", LOOPBACK,
            "--port", str(port),
            "--helo", "client.test",
            "--from", sender,
            "--to", recipient,
            "--timeout", f"{max(1, int(timeout) - 5)}s",
            *arguments,
        ],
        timeout=timeout,
    )  # fmt: skip
