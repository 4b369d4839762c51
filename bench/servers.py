"""The servers under test, alike from outside: start, a port, maildirs under one directory, stop.

Each runs as processes of its own, with its files below the directory it is given, and takes mail for
the users `USERS` at `DOMAIN`. All keep the promise of a 250 in the same way: what was accepted is synced
to the disk before. Everything else is as each comes, save limits on sizes and on connections.
"""

from __future__ import annotations

import abc
import importlib.metadata
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import mailsuite
from bench.mailsuite_setup import mailsuite_commands, mailsuite_config
from bench.names import DOMAIN, MESSAGE_LIMIT, USERS
from tests.peers import postfix
from tests.peers.process import (
    LOOPBACK,
    PeerError,
    Server,
    free_port,
    run,
    spawn,
    stop,
    wait_for_greeting,
)

# The two commands by their entry points, so that no installed script is needed.
_TWISTD = "from twisted.scripts.twistd import run; run()"
_MAILSUITE = "from mailsuite.admin.command import main; main()"
CHECKOUT = Path(__file__).resolve().parent.parent


class MailServer(Server):
    """A server under test.

    `copies_for_each`: each recipient gets a copy in a maildir; otherwise a message is one file, however
    many its recipients. `most_connections`: how many it can serve at once as it is set up here.
    """

    name: str
    copies_for_each = True
    most_connections = 100_000

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.maildirs = directory / "mail"
        self._numbers = itertools.count()

    @classmethod
    @abc.abstractmethod
    def why_missing(cls) -> str | None:
        """Why this server cannot be measured on this machine, or None."""

    @classmethod
    @abc.abstractmethod
    def version(cls) -> str:
        """Its version, for the record."""

    @property
    @abc.abstractmethod
    def port(self) -> int:
        """Where it listens, on the loopback."""

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """The first of its processes. Raises `PeerError` unless it runs."""

    def delivered(self) -> int:
        """How many messages are in the `new` of all maildirs."""
        return sum(1 for new in self._new_directories() for _ in os.scandir(new))

    def clear(self) -> None:
        """Put what was delivered aside, so that every run begins with empty maildirs.

        Nothing is unlinked: for minutes ext4 passes over inodes that were just freed, one by one and for each file it
        creates beside them, so that a run would pay for the removal of the last one's mail.
        """
        aside = self.directory / "aside"
        aside.mkdir(exist_ok=True)
        for new in self._new_directories():
            for entry in os.scandir(new):
                os.truncate(entry, 0)
            status = new.stat()
            new.rename(aside / str(next(self._numbers)))
            new.mkdir(mode=status.st_mode & 0o777)
            os.chown(new, status.st_uid, status.st_gid)

    def _new_directories(self) -> Iterator[Path]:
        for place, parts, _ in os.walk(self.maildirs):
            if "new" in parts:
                yield Path(place, "new")
                parts.clear()


class PythonServer(MailServer):
    """A server that is a Python program: one process group, started by a command line."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        if self._process is None:
            raise PeerError(f"{self.name} is not running")
        return self._process.pid

    @abc.abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command line that serves in the foreground."""

    def prepare(self) -> None:
        """Write what the command line needs, below `directory`. Raises `PeerError`."""

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.prepare()
        output = self.directory / "output"
        self._process = spawn(
            self.command(), output=output, cwd=self.directory, environment={"PYTHONPATH": str(CHECKOUT)}
        )
        try:
            wait_for_greeting(self.port, self._process, output=output)
        except PeerError as problem:
            self.stop()
            raise PeerError(f"{self.name}: {problem}") from None

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None


class Mailsuite(PythonServer):
    """Ours, from this checkout, as `twistd mailsuite` with the commands and settings of `mailsuite_setup`."""

    name = "mailsuite"

    @classmethod
    def why_missing(cls) -> str | None:
        for path in ("mailsuite/service/__init__.py", "twisted/plugins/mailsuite_plugin.py"):
            if not (CHECKOUT / path).exists():
                return f"this checkout has no {path}"
        return None

    @classmethod
    def version(cls) -> str:
        return mailsuite.__version__

    def prepare(self) -> None:
        config = self.directory / "mailsuite.toml"
        config.write_text(mailsuite_config(self.directory, self.maildirs, self.port))
        for command in mailsuite_commands(config):
            done = run(
                [sys.executable, "-c", _MAILSUITE, *command.arguments],
                stdin=command.stdin,
                timeout=60.0,
                environment={"PYTHONPATH": str(CHECKOUT)},
                cwd=self.directory,
            )
            if done.returncode != 0:
                raise PeerError(f"mailsuite {' '.join(command.arguments)}: {done.stdout.strip()[-1000:]}")

    def command(self) -> Sequence[str | Path]:
        return [
            *(sys.executable, "-c", _TWISTD),
            *("--nodaemon", "--pidfile=", "mailsuite"),
            *("--config", self.directory / "mailsuite.toml"),
        ]


class TwistedMail(PythonServer):
    """A small server on `twisted.mail.smtp` with maildirs; see `twisted_mail_server`."""

    name = "twisted.mail"

    @classmethod
    def why_missing(cls) -> str | None:
        return None

    @classmethod
    def version(cls) -> str:
        return importlib.metadata.version("twisted")

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "bench.twisted_mail_server", str(self.port), self.maildirs, *USERS]


class Aiosmtpd(PythonServer):
    """aiosmtpd with its own Mailbox: Python's maildir, which syncs each file. One copy for a message."""

    name = "aiosmtpd"
    copies_for_each = False

    @classmethod
    def why_missing(cls) -> str | None:
        if importlib.util.find_spec("aiosmtpd") is None:
            return "aiosmtpd is not installed (pip install 'mailsuite[bench]')"
        return None

    @classmethod
    def version(cls) -> str:
        return importlib.metadata.version("aiosmtpd")

    def command(self) -> Sequence[str | Path]:
        return [
            *(sys.executable, "-m", "aiosmtpd", "--nosetuid", "--size", str(MESSAGE_LIMIT)),
            *("--listen", f"{LOOPBACK}:{self.port}"),
            *("--class", "aiosmtpd.handlers.Mailbox", self.maildirs),
        ]


class Postfix(MailServer):
    """Postfix with its default settings, its queue and maildirs below the directory, logging to syslog."""

    name = "postfix"
    # One process for each connection, 100 of them at most by default; some are left for others.
    most_connections = 90

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._postfix = postfix.Postfix(domain=DOMAIN, users=USERS, directory=directory, logged=False)

    @classmethod
    def why_missing(cls) -> str | None:
        return postfix.why_missing()

    @classmethod
    def version(cls) -> str:
        # It warns first, about the configuration in /etc that is not there.
        return run(
            [postfix.program("postconf"), "-dh", "mail_version"],
            timeout=10.0,
            environment=postfix.environment(),
        ).stdout.splitlines()[-1]

    @property
    def port(self) -> int:
        return self._postfix.port

    @property
    def pid(self) -> int:
        return self._postfix.pid

    def start(self) -> None:
        self._postfix.start()

    def stop(self) -> None:
        self._postfix.stop()


SERVERS: tuple[type[MailServer], ...] = (Mailsuite, Postfix, TwistedMail, Aiosmtpd)
