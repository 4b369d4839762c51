"""Queue ids: short names for messages, in letters and digits, that sort by time.

An id is the time in microseconds as ten digits in base 36 (that lasts until the year 2085), followed by the number of
the spool's start. Within one start the time only ever grows, whatever the clock does; each start has a number that
no other has. So an id is never given twice, and no file or table has to be asked.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)  # two digits by one look-up
_PAIR = len(_PAIRS)


class QueueIds:
    """Gives ids to one run of the spool. `start` is the number of that run, unique for the store."""

    __slots__ = ("_clock", "_last", "_suffix")

    def __init__(self, clock: IReactorTime, start: int) -> None:
        self._clock = clock
        self._last = -1
        self._suffix = base36(start)

    def next(self) -> str:
        """An id that was never given before."""
        moment = max(int(self._clock.seconds() * 1e6), self._last + 1)
        self._last = moment
        rest, pair5 = divmod(moment, _PAIR)
        rest, pair4 = divmod(rest, _PAIR)
        rest, pair3 = divmod(rest, _PAIR)
        pair1, pair2 = divmod(rest, _PAIR)
        head = _PAIRS[pair1 % _PAIR]
        return f"{head}{_PAIRS[pair2]}{_PAIRS[pair3]}{_PAIRS[pair4]}{_PAIRS[pair5]}{self._suffix}"


def base36(number: int) -> str:
    """A number that is not negative, in base 36."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
