"""`twistd mailsuite`: the options on the command line, and the service for them.

What a user can do wrong ends in one sentence and exit status 1, never in a traceback.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.application.service import IService
from twisted.python import usage

from mailsuite import __version__
from mailsuite.config import Settings, SettingsError

_NEW_OBJECTS: Final = 20_000  # that outlive their making, before the youngest of them are looked at


class Options(usage.Options):
    """The command line of `twistd mailsuite`."""

    synopsis = "[options]"
    longdesc = "A mail server: SMTP, submission and LMTP over one durable relay queue."
    optParameters = [  # noqa: RUF012 - Twisted reads it from the class
        ["config", "c", None, "The configuration, a TOML file. Without it the built-in defaults are used."],
    ]

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"mailsuite {__version__}\n")
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """Build the service for `twistd`. What is wrong with the configuration ends the process in a sentence.

    twistd shows a `usage.UsageError` from here with its traceback, hence `SystemExit`: Python prints it, with status 1.
    """
    from twisted.internet import reactor

    from mailsuite import service
    from mailsuite.service.hangup import HangUps
    from mailsuite.service.quiet import silence_twisted

    silence_twisted()
    try:
        path = options["config"]
        read = Settings if path is None else partial(Settings.load, Path(path).absolute())
        settings = read()
        twistd: dict[str, Any] = {} if options.parent is None else options.parent
        failing = _Failing(twistd)
        uid, gid = twistd.get("uid"), twistd.get("gid")
        owner = None if uid is None else (uid, -1 if gid is None else gid)
        made = service.makeService(settings, owner=owner, on_failure=failing.fail)
        if os.geteuid() == 0 and uid in (None, 0):
            service.serving_as_root(settings)
    except (SettingsError, service.StartError) as error:
        raise SystemExit(f"mailsuite: {error}") from None
    reactor.callWhenRunning(failing.started)
    reactor.callWhenRunning(_spare_the_collector)
    reactor.callWhenRunning(HangUps(reactor, partial(made.reload, read)).install)
    return made


def _spare_the_collector() -> None:
    """Have it look for garbage less often than Python would: little of ours is in cycles, and it took a tenth of all.

    What there is by now stays for good, and is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)


class NotStarted(Exception):
    """The service cannot start, and why has been said."""


class _Failing:
    """Says why the service cannot start, and ends the process: at once, or when the reactor has stopped.

    A twistd that goes to the background lets go of its terminal before it opens ports, and has a hundred octets to tell
    there what went wrong. So the terminal is kept until the reactor runs, and the sentence is written there whole.
    """

    def __init__(self, twistd: dict[str, Any]) -> None:
        self._twistd = twistd
        self._is_background = not (twistd.get("nodaemon") or twistd.get("debug"))
        self._terminal: int | None = None
        if self._is_background:
            with suppress(OSError):
                self._terminal = os.dup(2)

    def started(self) -> None:
        """The reactor runs: from here on there is the log alone."""
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            os.close(terminal)

    def fail(self, error: Exception) -> None:
        """Say it, and end."""
        from twisted.internet import reactor

        self._say(f"mailsuite: {error}\n")
        if not reactor.running:
            if self._twistd.get("statusPipe") is not None:
                # Its other half waits to hear of an error, and never hears of an exit.
                sys.excepthook = lambda *_error: None
                raise NotStarted("the reason stands above, and in the log")
            raise SystemExit(1)
        # twistd has no way to set its exit status but this one, and a service manager must see that we failed.
        reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        reactor.stop()

    def _say(self, sentence: str) -> None:
        """Once to whoever has started us, once to the log where that is elsewhere."""
        # twistd has put its log in the place of stderr.
        if self._terminal is not None:
            with suppress(OSError):
                os.write(self._terminal, sentence.encode("utf-8", "replace"))
        elif not self._is_background and sys.__stderr__ is not None:
            print(sentence, end="", file=sys.__stderr__, flush=True)
        if self._twistd.get("logfile") not in (None, "-") or self._twistd.get("syslog") or self._is_background:
            sys.stderr.write(sentence)
