"""A whole server of ours as a process: `twistd -n mailsuite` on free loopback ports, with a directory of its own.

    with Instance(tmp_path, "a.test", users=("alice",)) as server:
        ... server.smtp_port ... server.wait_for("alice", 2)

Settings are TOML keys with their dots (`{"retry.first": 1}`); what is not said is as below: retries after a second.
Every account has the password `PASSWORD`, and the secrets for all mechanisms. The fixtures are in `tests.servers`.
"""

from __future__ import annotations

import json
import os
import signal
import smtplib
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.passwords import PasswordCost
from mailsuite.mail.session import SecretKind
from tests.peers import process
from tests.peers.process import LOOPBACK, PeerError, Server, wait_until

PASSWORD = "open sesame"
ALL_KINDS = (SecretKind.SHARED, SecretKind.SCRAM_SHA_256)

CHECKOUT = Path(__file__).resolve().parents[1]
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
COMMAND = (sys.executable, "-m", "mailsuite")
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "PYTHONDONTWRITEBYTECODE": "1",
}

# The least that argon2 does: what a guess costs is not what is tested here.
_CHEAP = PasswordCost(time_cost=1, memory_kib=8)
# Nothing here asks the world for a name: where a test brings no resolver, there is none.
_NO_RESOLVER = f"{LOOPBACK}:9"


def mailsuite(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run the `mailsuite` command; `stdout` is what it printed, errors too."""
    return process.run([*COMMAND, *arguments], timeout=30.0, stdin=stdin, environment=ENVIRONMENT)


def parse(path: Path) -> EmailMessage:
    """The message in a file of a maildir."""
    message = message_from_bytes(path.read_bytes(), policy=default)
    assert isinstance(message, EmailMessage)
    return message


class Instance(Server):
    """One server below `directory`, which serves the users (local parts) of `domain`.

    `routes` are `[[route]]` tables, in order; `listeners` are `[[listen]]` tables in the place of ours. `customers` are
    `[[customer]]` tables: with them `odmr_port` (with STARTTLS) and `odmrs_port` (TLS from the first octet) are there.
    `pulls` are `[[pull]]` tables. `twistd` are options of twistd. All may be changed later; `configure` writes them.
    """

    def __init__(
        self,
        directory: Path,
        domain: str = "a.test",
        *,
        users: Sequence[str] = ("alice",),
        settings: Mapping[str, Any] | None = None,
        routes: Sequence[Mapping[str, Any]] = (),
        listeners: Sequence[Mapping[str, Any]] | None = None,
        customers: Sequence[Mapping[str, Any]] = (),
        pulls: Sequence[Mapping[str, Any]] = (),
        twistd: Sequence[str] = (),
    ) -> None:
        self.domain = domain
        self.hostname = f"mail.{domain}"
        self.directory = directory
        self.data = directory / "data"
        self.configuration = directory / "mailsuite.toml"
        self.smtp_port, self.submission_port, self.submissions_port, self.lmtp_port = process.free_ports(4)
        self.odmr_port, self.odmrs_port = process.free_ports(2)
        self.lmtp_socket = directory / "lmtp.sock"
        self._twistd = twistd
        self._output = directory / "output"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: list[int] = []  # processes whose children are still to be looked for
        self.directory.mkdir(parents=True, exist_ok=True)
        self.settings, self.routes = settings or {}, routes
        self.customers, self.pulls = customers, pulls
        self.listeners = self._default_listeners() if listeners is None else listeners
        self.configure()
        self.data.mkdir(exist_ok=True)
        self.add_users(users)

    def _default_listeners(self) -> list[dict[str, Any]]:
        submission = {"service": "submission"}
        odmr = {"service": "odmr"}
        on_demand = [
            {"endpoint": f"tcp:{self.odmr_port}:interface={LOOPBACK}", **odmr},
            {"endpoint": f"tcp:{self.odmrs_port}:interface={LOOPBACK}", **odmr, "tls": "implicit"},
        ]
        return [
            {"endpoint": f"tcp:{self.smtp_port}:interface={LOOPBACK}"},
            {"endpoint": f"tcp:{self.submission_port}:interface={LOOPBACK}", **submission},
            {"endpoint": f"tcp:{self.submissions_port}:interface={LOOPBACK}", **submission, "tls": "implicit"},
            {"endpoint": f"tcp:{self.lmtp_port}:interface={LOOPBACK}", "service": "lmtp"},
            {"endpoint": f"unix:{self.lmtp_socket}", "service": "lmtp", "tls": "none"},
            *(on_demand if self.customers else []),
        ]

    def configure(self) -> None:
        """Write the configuration from `settings` and the tables. It is read at the next start."""
        keys = {
            "hostname": self.hostname,
            "data_directory": str(self.data),
            "stop_time": 5,
            "retry.first": 1,
            "retry.longest": 1,
            "retry.jitter": 0,
            "relay.resolver": _NO_RESOLVER,
            **self.settings,
        }
        lines = _keys(keys)
        tables_of = {"listen": self.listeners, "route": self.routes, "customer": self.customers, "pull": self.pulls}
        for name, tables in tables_of.items():
            for table in tables:
                lines += [f"[[{name}]]", *_keys(table)]
        self.configuration.write_text("\n".join(lines) + "\n")

    def add_users(self, users: Sequence[str], *, keep: Sequence[SecretKind] = ALL_KINDS) -> None:
        """Make the domain local, if it is not, and add accounts; a server that runs sees them within a second."""
        with self.accounts() as accounts:
            if not accounts.domains():
                accounts.add_domain(self.domain)
            for user in users:
                accounts.add_user(self.address(user), PASSWORD, keep=keep)

    def accounts(self) -> DirectoryFile:
        """Its directory of accounts, for editing."""
        return DirectoryFile(self.data / "accounts.db", create=True, cost=_CHEAP)

    def address(self, user: str) -> str:
        """The address of one of its users."""
        return f"{user}@{self.domain}"

    # ------------------------------------------------------------------------------------- the process

    @property
    def command(self) -> list[str]:
        """The command line that serves."""
        return [*TWISTD, "--nodaemon", "--pidfile=", *self._twistd, "mailsuite", "--config", str(self.configuration)]

    @property
    def pid(self) -> int:
        """Its process id. Raises `PeerError` unless it runs."""
        if self._process is None:
            raise PeerError("this instance is not running")
        return self._process.pid

    def start(self, timeout: float = 20.0) -> None:
        self.launch()
        assert self._process is not None
        try:
            process.wait_for_greeting(self.smtp_port, self._process, output=self._output, timeout=timeout)
            wait_until(self._knows_its_users, timeout=timeout, why=self.log)
        except (PeerError, AssertionError):
            self.kill()
            raise

    def launch(self) -> None:
        """Start the process, and do not wait."""
        self._process = process.spawn(self.command, output=self._output, cwd=self.directory, environment=ENVIRONMENT)

    def takes(self, recipient: str) -> bool:
        """Whether it takes mail from strangers for this address now."""
        return self._answer(recipient) == 250

    def _answer(self, recipient: str) -> int:
        with self.client() as client:
            client.ehlo()
            client.mail("")
            return client.rcpt(recipient)[0]

    def _knows_its_users(self) -> bool:
        # The ports are open before queue and directory are; until then the answer is 451.
        return self._answer(f"postmaster@{self.domain}") != 451

    def stop(self) -> None:
        self.terminate()
        while self._ended:
            process.expect_end(self._ended.pop())

    def terminate(self, timeout: float = 20.0) -> int:
        """Send SIGTERM and return the exit status. Raises `PeerError` where it has to be killed after `timeout`."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """Send SIGKILL: the process has no chance to tidy up."""
        self._end(signal.SIGKILL, 20.0)

    def restart(self) -> None:
        """Stop it and start it with the same configuration and ports."""
        self.stop()
        self.start()

    def wait_for_exit(self, timeout: float = 20.0) -> int:
        """The status with which it ends by itself. Raises `PeerError` where it does not."""
        return self._end(0, timeout)

    def _end(self, signal_number: int, timeout: float) -> int:
        running, self._process = self._process, None
        if running is None:
            return 0
        self._ended.append(running.pid)
        running.send_signal(signal_number)  # does nothing where it has ended already
        try:
            return running.wait(timeout)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            raise PeerError(f"it did not end: {self.log()[-2000:]}") from None

    def check_log(self) -> None:
        """Verify that nothing went wrong in a way that nobody had thought of."""
        assert "Traceback" not in self.log(), self.log()

    def log(self) -> str:
        """What it has printed so far, over all its starts."""
        return self._output.read_text("utf-8", "replace") if self._output.exists() else ""

    # ---------------------------------------------------------------------------------- what it keeps

    def maildir(self, user: str) -> Path:
        """Where the mail of a user lies."""
        return self.data / "maildirs" / self.domain / user

    def messages(self, user: str = "alice") -> list[Path]:
        """The files that were delivered to a user, oldest first."""
        new = self.maildir(user) / "new"
        return sorted(new.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name)) if new.exists() else []

    def wait_for(self, user: str = "alice", count: int = 1, *, timeout: float = 10.0) -> list[EmailMessage]:
        """The messages of a user, when there are `count`. Raises `AssertionError` where there are not, or more."""
        wait_until(lambda: len(self.messages(user)) >= count, timeout=timeout, why=self.log)
        found = self.messages(user)
        assert len(found) == count, f"{len(found)} messages instead of {count}: {self.log()}"
        return [parse(path) for path in found]

    def find(self, subject: str, user: str = "alice", *, timeout: float = 10.0) -> EmailMessage:
        """The one message of a user with this subject, as soon as it is there. Raises `AssertionError`."""

        def matching() -> list[EmailMessage]:
            return [message for path in self.messages(user) if (message := parse(path))["Subject"] == subject]

        wait_until(matching, timeout=timeout, why=lambda: f"nothing about {subject!r}: {self.log()[-3000:]}")
        found = matching()
        assert len(found) == 1, f"{len(found)} messages about {subject!r}"
        return found[0]

    def queue(self) -> list[tuple[str, int, str]]:
        """The recipients that wait or are under way: address, attempts, what was said last."""
        with closing(sqlite3.connect(f"file:{self.data}/spool/queue.db?mode=ro", uri=True, timeout=10.0)) as database:
            return database.execute(
                "SELECT local_part || '@' || domain, attempts, coalesce(last_text, '') FROM recipients ORDER BY key"
            ).fetchall()

    def numbers(self, user: str = "alice") -> list[int]:
        """The subjects of what a user has got, which are numbers, in no order."""
        return [int(path.read_bytes().partition(b"\nSubject: ")[2].partition(b"\n")[0]) for path in self.messages(user)]

    def wait_until_drained(self, timeout: float = 10.0) -> None:
        """Return when nothing is in the queue. Raises `AssertionError`."""
        wait_until(lambda: not self.queue(), timeout=timeout, why=lambda: f"{self.queue()[:5]} {self.log()[-3000:]}")

    def check_leftovers(self) -> None:
        """Verify that an empty queue and finished deliveries have left no file. What is under way gets its time."""
        places = [self.data / "spool" / "contents", *self.data.glob("maildirs/*/*/tmp")]

        def left() -> list[Path]:
            return [path for place in places if place.exists() for path in place.iterdir()]

        wait_until(lambda: not left(), timeout=5.0, why=lambda: f"left over: {left()}")

    # ------------------------------------------------------------------------------------ its clients

    def client(self, user: str | None = None, *, timeout: float = 10.0) -> smtplib.SMTP:
        """A client of the SMTP port; or of the submission port under TLS, logged in, where a user is given."""
        if user is None:
            return smtplib.SMTP(LOOPBACK, self.smtp_port, "client.test", timeout=timeout)
        client = smtplib.SMTP(LOOPBACK, self.submission_port, "client.test", timeout=timeout)
        client.starttls(context=any_certificate())
        client.login(self.address(user), PASSWORD)
        return client


def any_certificate() -> ssl.SSLContext:
    """A context for clients that do not look at the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _keys(table: Mapping[str, Any]) -> list[str]:
    # What JSON writes for texts, numbers, booleans and lists of them, TOML reads.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
