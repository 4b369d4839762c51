"""Sockets that are real and time that is not: a reactor whose clock stands still while anything moves on the wire.

What is asked of it that has to do with time is a `task.Clock`'s, everything else the real reactor's. `live` lets time
pass: it goes on to the next delayed call only when no descriptor is ready and nothing waits to be written or called.
"""

import math
import select

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
)
from twisted.internet.task import Clock
from zope.interface import implementer

START = 1_700_000_000.0
_AT_ONCE = 0.05  # simulated seconds that may pass without a second look at the wire
_SECOND_LOOK = 0.001  # real seconds: what the kernel has still to carry over gets there


@implementer(IReactorTime, IReactorTCP, IReactorUDP, IReactorUNIX, IReactorCore, IReactorThreads)
class SimulatedTime(Clock):
    """`reactor` is the real one, of the kind that polls by a descriptor of its own."""

    def __init__(self, reactor):
        super().__init__()
        self.rightNow = START
        self._reactor = reactor
        self._wire = select.poll()
        self._wire.register(reactor._poller.fileno(), select.POLLIN)  # noqa: SLF001 - nothing else tells what is ready

    def __getattr__(self, name):
        return getattr(self._reactor, name)

    def live(self, seconds, until=None):
        """Let so much time pass, or less where a condition holds before that."""
        end = self.seconds() + seconds
        while True:
            self.settle()
            if until is not None and until():
                return
            due = min((call.getTime() for call in self.getDelayedCalls()), default=math.inf)
            if due > end:
                break
            if due > self.seconds() + _AT_ONCE and self._wire.poll(_SECOND_LOOK * 1000):
                continue
            self.rightNow = max(self.rightNow, due)
            self.advance(0)
        self.rightNow = max(self.rightNow, end)

    def settle(self):
        """Let happen what happens without any time."""
        reactor = self._reactor
        while True:
            self.advance(0)
            reactor.runUntilCurrent()
            is_due = reactor.timeout() == 0
            if not (is_due or self._wire.poll(0)):
                return
            reactor.doIteration(0)
