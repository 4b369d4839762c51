"""How long we wait for a peer: the limits for each phase, and the watch over the wait that is going on.

A wait begins when a session must see something of the peer, and single octets do not begin it anew: a command line
must be whole within its limit. While content flows every block is a wait of its own; against a peer that sends one
octet at a time there is a minimum rate, averaged over the time that we have waited. The time that we take ourselves is
never counted.

Waits are frequent, so they are cheap: beginning one notes a time, and one delayed call re-arms itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsuite.wire.core import Phase

_FIELDS: Final = {phase: phase.value.replace("-", "_") for phase in Phase}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of time in seconds, None for no limit (RFC 5321 section 4.5.3.2, where not said otherwise).

    `minimum_rate` is in octets a second: what a peer must reach, averaged over `data_block` seconds of waiting, while
    it sends content. `closing` is how long a peer may take to read what is still to be written when we close. After
    `dead_line` a line from whose other end the system hears nothing counts as lost (see `liveness`).
    """

    greeting: float | None = 300.0
    command: float | None = 300.0
    response: float | None = 300.0
    mail: float | None = 300.0
    recipient: float | None = 300.0
    data_initiation: float | None = 120.0
    data_block: float | None = 180.0
    data_termination: float | None = 600.0
    turn: float | None = 600.0
    quit: float | None = 10.0
    working: float | None = None
    connect: float = 30.0
    handshake: float = 60.0
    closing: float = 30.0
    minimum_rate: float = 100.0
    dead_line: float | None = 120.0

    def limit(self, phase: Phase) -> float | None:
        """The limit of a phase."""
        seconds: float | None = getattr(self, _FIELDS[phase])
        return seconds


class Patience:
    """The limit of one connection's present wait; `expired` is called with its phase when it has passed."""

    __slots__ = (
        "_call",
        "_call_at",
        "_clock",
        "_deadline",
        "_expired",
        "_from",
        "_limit",
        "_octets",
        "_paced",
        "_phase",
        "_since",
        "_timeouts",
        "_waited",
    )

    def __init__(self, clock: IReactorTime, timeouts: Timeouts, expired: Callable[[Phase], None]) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._expired = expired
        self._phase: Phase | None = None
        self._limit: float | None = None
        self._deadline: float | None = None  # of the wait that is going on, if one is
        self._since = 0.0  # when it began
        self._call: IDelayedCall | None = None
        self._call_at = 0.0
        # Of the window over which the rate of content is averaged:
        self._paced = False
        self._from = 0.0  # where in the present wait it begins
        self._waited = 0.0  # time waited before the present wait
        self._octets = 0

    @property
    def phase(self) -> Phase | None:
        """The phase of the last wait."""
        return self._phase

    def begin(self, phase: Phase, *, paced: bool = True) -> None:
        """A wait begins. Not `paced` where it is for the peer to take something: then octets that come say nothing."""
        if phase is not self._phase:
            self._phase = phase
            self._limit = self._timeouts.limit(phase)
            self._waited, self._octets = 0.0, 0
        limit = self._limit
        if limit is None:
            self._deadline = None
            return
        now = self._clock.seconds()
        self._since = self._from = now
        self._paced = paced and phase is Phase.DATA_BLOCK
        self._deadline = deadline = now + limit - (self._waited if self._paced else 0.0)
        if self._call is None:
            self._arm(deadline, now)
        elif self._call_at > deadline:
            self._call.cancel()  # not reset(): to move a call forward, the reactor searches all that it has
            self._arm(deadline, now)

    def progress(self, octets: int) -> None:
        """Content has come during the wait."""
        self._octets += octets

    def end(self) -> None:
        """The wait is over."""
        if self._deadline is not None:
            if self._paced:
                self._waited += self._clock.seconds() - self._from
            self._deadline = None

    def stop(self) -> None:
        """No wait will follow."""
        self._deadline = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _arm(self, deadline: float, now: float) -> None:
        self._call_at = deadline
        self._call = self._clock.callLater(max(deadline - now, 0.0), self._look)

    def _look(self) -> None:
        self._call = None
        deadline, limit = self._deadline, self._limit
        if deadline is None or limit is None:
            return
        now = self._clock.seconds()
        if now >= deadline and self._paced and self._octets >= self._timeouts.minimum_rate * limit:
            # Fast enough so far: the window begins anew. What remains is the limit of the wait itself.
            self._from, self._waited, self._octets = now, 0.0, 0
            self._deadline = deadline = self._since + limit
        if now < deadline:
            self._arm(deadline, now)
            return
        self._deadline = None
        assert self._phase is not None
        self._expired(self._phase)
