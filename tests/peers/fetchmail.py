"""fetchmail, the customer of on-demand mail relay that exists everywhere, and a client of ETRN.

After ATRN it is a pipe between the provider and its local SMTP host. It never says STARTTLS there: with `ssl` it
speaks TLS from the first octet. Under TLS it then reads one line whenever octets have come, and nothing of what came
along with it: the provider must write each line as a record of its own, or the turn hangs (seen with 6.4.37). A program
that does TLS for it (`plugin`) has no such need. Under ETRN it takes "no messages" (251) for the end, and asks for
nothing after it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.peers.process import LOOPBACK, run

OK, NO_MAIL, NO_CONNECTION, NO_LOGIN, REFUSED, SMTP_FAILED = 0, 1, 2, 3, 4, 10
"""What its manual says of the exit status."""


def why_missing() -> str | None:
    """Why fetchmail cannot be used here, or None."""
    if shutil.which("fetchmail") is None:
        return "fetchmail is not installed (python -m tests.peers.install)"
    return None


@dataclass(frozen=True, slots=True)
class Fetchmail:
    """How it is set up; its run-control file and its state lie in `directory`.

    `port` is the provider's, on the loopback. `smtp_port` is where its local SMTP host listens, or nobody. `tls`: from
    the first octet; `ca` is what it checks the certificate with (for `localhost`), without it nothing is checked.
    `plugin`: OpenSSL's command speaks TLS for it.
    """

    directory: Path
    port: int
    domains: Sequence[str]
    smtp_port: int = 9
    user: str = "customer"
    password: str = "open sesame"
    tls: bool = False
    ca: Path | None = None
    plugin: bool = False

    def odmr(self, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Ask by ATRN, once. The status is 0 where there is no mail, too."""
        lines = [
            f'user "{self.user}" password "{self.password}"',
            f'smtphost "{LOOPBACK}/{self.smtp_port}"',
        ]
        if self.tls and not self.plugin:
            lines.append("ssl")
            lines.append(f'sslcertck sslcertfile "{self.ca}" sslcommonname "localhost"' if self.ca else "no sslcertck")
        else:
            lines.append('sslproto ""')
        return self._run("ODMR", lines, timeout)

    def etrn(self, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Ask by ETRN for each of the domains, once."""
        return self._run("ETRN", [f'user "{self.user}" password "{self.password}" sslproto ""'], timeout)

    def _run(self, protocol: str, lines: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        self.directory.mkdir(parents=True, exist_ok=True)
        control = self.directory / "fetchmailrc"
        control.touch(mode=0o600)  # it refuses one that others can read
        domains = " ".join(f'"{domain}"' for domain in self.domains)
        head = f'poll "{LOOPBACK}" protocol {protocol} port {self.port} no dns timeout {int(timeout)}'
        if self.plugin:
            check = f"-CAfile {self.ca} -verify_hostname localhost -verify_return_error" if self.ca else ""
            head += f' plugin "openssl s_client -quiet -connect %h:%p {check}"'
        control.write_text("\n  ".join([head, *lines, f"fetchdomains {domains}"]) + "\n")
        return run(
            [
                "fetchmail",
                "--fetchmailrc",
                control,
                "--pidfile",
                self.directory / "pid",
                "--nosyslog",
                "--nodetach",
                "-v",
            ],
            timeout=timeout,
            environment={"HOME": str(self.directory), "FETCHMAILHOME": str(self.directory), "LC_ALL": "C"},
            cwd=self.directory,
        )
