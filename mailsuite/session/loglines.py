"""Lines of the log that come by the hundred: those of one turn of the reactor are written as one event.

An event of the log costs as much as parsing a message, most of it for the time stamp and the write. What sessions say
of each message comes in groups anyway, since commits do.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger


class LogLines:
    """A callable that takes a line. Without a `clock` each line is an event at once."""

    _log = Logger()

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._lines: list[str] = []

    def __call__(self, line: str) -> None:
        self._lines.append(line)
        if self._clock is None:
            self._write()
        elif len(self._lines) == 1:
            self._clock.callLater(0, self._write)

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        self._log.info("{lines}", lines="\n".join(lines))
