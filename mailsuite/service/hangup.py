"""SIGHUP, for a server that runs as a process of its own: files are read anew; where its terminal is gone, it ends.

For `twistd` alone: in other programs signals are theirs. A signal that somebody else has taken, or that is to be
ignored (`nohup`), is left as it is.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

_log = Logger()


class HangUps:
    """Takes SIGHUP once `install` was called. `again` reads what can be read anew."""

    def __init__(self, reactor: Any, again: Callable[[], Awaitable[None]]) -> None:
        self._reactor = reactor
        self._again = again
        self._had_terminal = False

    def install(self) -> bool:
        """Take the signal from now on, where it may be taken. Tells whether it is."""
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
            return False
        self._had_terminal = _has_terminal()
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._reactor.callFromThread(self.hung_up))
        return True

    def hung_up(self) -> None:
        """What the signal means, on the reactor's thread."""
        if self._had_terminal and not _has_terminal():
            _log.info("the terminal was closed: the server ends")
            self._reactor.stop()
            return
        reading = Deferred.fromCoroutine(self._read())
        reading.addErrback(lambda failure: _log.failure("SIGHUP has met a defect", failure))

    async def _read(self) -> None:
        await self._again()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
