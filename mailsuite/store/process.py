"""The near end of the delivery process: hands batches over and takes outcomes back.

Small messages go through the pipe; large ones, which lie in files, are left to a thread: they are few. When the process
dies, or cannot be started, its work is done in a thread too, as a replay: what it had delivered is found and not
delivered again.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsuite.mail.queue import Delivery, Outcome
from mailsuite.store.worker import LENGTH, Packed, frame, pack, unframe

Outcomes = Sequence[Sequence[Outcome]]
Deliver = Callable[[Sequence[Delivery]], Outcomes]

_MODULE: Final = "mailsuite.store.worker"


class WorkerLost(Exception):
    """The process has ended before it answered."""


class MaildirProcess:
    """Runs a store's work in a child process, which is started when it is first needed.

    `arguments` are those of the child's `MaildirStore`, but for its clock. `in_thread` runs what is not for the child.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorProcess, arguments: Mapping[str, Any], in_thread: Callable[..., Awaitable[Any]]
    ) -> None:
        self._reactor = reactor
        self._arguments = dict(arguments)
        self._in_thread = in_thread
        self._child: _Child | None = None

    async def run(self, deliver: Deliver, deliveries: Sequence[Delivery]) -> Outcomes:
        """The outcomes of a batch, each in its place; `deliver` does in a thread what the child is not given."""
        contents = [delivery.content.in_memory() for delivery in deliveries]
        small = [
            (delivery, octets) for delivery, octets in zip(deliveries, contents, strict=True) if octets is not None
        ]
        large = [delivery for delivery, octets in zip(deliveries, contents, strict=True) if octets is None]
        of_small = iter(await self._in_child(deliver, small) if small else ())
        of_large = iter(await self._in_thread(deliver, large) if large else ())
        return [next(of_large if octets is None else of_small) for octets in contents]

    async def _in_child(self, deliver: Deliver, small: Sequence[tuple[Delivery, bytes]]) -> Outcomes:
        deliveries = [delivery for delivery, _ in small]
        if self._child is None or not self._child.was_useless:  # else so would the next be
            try:
                return await self._living_child().ask([pack(delivery, octets) for delivery, octets in small])
            except (WorkerLost, OSError) as error:
                self._log.error("the delivery process is lost ({error}); delivering in a thread", error=error)
                deliveries = [replace(one, replayed=True) for one in deliveries]
        outcomes: Outcomes = await self._in_thread(deliver, deliveries)
        return outcomes

    def _living_child(self) -> _Child:
        """The child, or another one in its place. Raises `OSError`."""
        child = self._child
        if child is None or child.ended:
            child = _Child(self._arguments)
            command = [sys.executable, "-P", "-m", _MODULE]
            self._reactor.spawnProcess(child, sys.executable, command, os.environ)
            self._child = child  # only now: one that was not spawned would never answer
        return child


class _Child(ProcessProtocol):
    """The pipes to one process. Answers come in the order of the questions."""

    _log = Logger()

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._unsent = [frame(arguments)]
        self._waiting: deque[Deferred[Outcomes]] = deque()
        self._received = bytearray()
        self._made = False
        self._has_answered = False
        self.ended = False

    @property
    def was_useless(self) -> bool:
        """Whether it ended without a single answer."""
        return self.ended and not self._has_answered

    def ask(self, batch: list[Packed]) -> Deferred[Outcomes]:
        """Hand a batch over. Fails with `WorkerLost`."""
        # A cancellation changes nothing: the batch is with the child, and its answer must find its place.
        answer: Deferred[Outcomes] = Deferred()
        self._waiting.append(answer)
        self._unsent.append(frame(batch))
        self._send()
        return answer

    def connectionMade(self) -> None:
        self._made = True
        self._send()

    def _send(self) -> None:
        if self._made:
            octets, self._unsent = b"".join(self._unsent), []
            transport: Any = self.transport
            transport.write(octets)

    def outReceived(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._received)
            end = LENGTH.size + length
            if len(self._received) < end:
                return
            octets = bytes(self._received[LENGTH.size : end])
            del self._received[:end]
            self._has_answered = True
            self._waiting.popleft().callback(unframe(octets))

    def errReceived(self, data: bytes) -> None:
        self._log.error("the delivery process says: {text}", text=data.decode("utf-8", "replace").rstrip())

    def processEnded(self, reason: Failure) -> None:
        self.ended = True
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            answer.errback(WorkerLost(str(reason.value)))
