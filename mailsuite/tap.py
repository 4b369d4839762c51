"""`twistd mailsuite`: the options on the command line, and the service for them.

What a user can do wrong ends in one sentence and exit status 1, never in a traceback.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from mailsuite import __version__
from mailsuite.config import Settings, SettingsError


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
    from mailsuite import service

    try:
        path = options["config"]
        settings = Settings() if path is None else Settings.load(Path(path).absolute())
        twistd: dict[str, Any] = {} if options.parent is None else options.parent
        uid, gid = twistd.get("uid"), twistd.get("gid")
        owner = None if uid is None else (uid, -1 if gid is None else gid)
        made = service.makeService(settings, owner=owner, on_failure=partial(_fail, twistd))
        if os.geteuid() == 0 and uid in (None, 0):
            service.serving_as_root(settings)
        return made
    except (SettingsError, service.StartError) as error:
        raise SystemExit(f"mailsuite: {error}") from None


def _fail(twistd: dict[str, Any], error: Exception) -> None:
    """Say why the service cannot start, and end the process: at once, or when the reactor has stopped."""
    from twisted.internet import reactor

    sentence = f"mailsuite: {error}"
    # twistd has put its log in the place of stderr. Where that is the terminal too, it need not be said twice.
    if sys.__stderr__ is not None:
        print(sentence, file=sys.__stderr__, flush=True)
    if twistd.get("logfile") not in (None, "-") or twistd.get("syslog") or not twistd.get("nodaemon"):
        sys.stderr.write(f"{sentence}\n")
    if not reactor.running:
        if twistd.get("statusPipe") is not None:
            # twistd is in the background: its other half waits to hear of an error, and never hears of an exit.
            sys.tracebacklimit = 0  # the sentence in the log is enough
            raise error
        raise SystemExit(1)
    # twistd has no way to set its exit status but this one, and a service manager must see that we failed.
    reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
    reactor.stop()
