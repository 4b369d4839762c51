"""Transactions that a client has given a name, on the server's side of CHECKPOINT (RFC 1845).

Where the line breaks within the content, what came is kept in the spool under the name, cut back to the last line end:
the client says the name again, is told the offset, and sends the rest. When the message is whole, the name stays for
as long as the client may not have heard so.

Rules
- A name is in the hands of one session at a time. Whoever says it later gets it: what the earlier one has is kept
  first, and where that one is just committing, the later one waits for the end.
- The offset counts the peer's octets. What we write above them does not count, and where the rule for line ends has
  altered something, the offset stays in front of that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

WORTH_KEEPING: Final = 16 * 1024  # octets; less is sent again as quickly as it is looked up


async def seen_through(work: Awaitable[None]) -> None:
    """Wait for work that goes on where the session is cancelled; raises what it raises."""
    answer: Deferred[None] = Deferred()

    async def do() -> None:
        await work

    def failed(failure: Failure) -> None:
        if answer.called:
            _log.failure("a message was not committed, whose session had ended", failure)
        else:
            answer.errback(failure)

    Deferred.fromCoroutine(do()).addCallbacks(answer.callback, failed)
    await answer


class Checkpoint:
    """A transaction under way that has a name, and how far it could be taken up again.

    `ours` octets stand in the draft before the peer's, of which there are `received`; behind the first `offset` of
    those a line begins.
    """

    __slots__ = (
        "_after_cr",
        "_completing",
        "_give_way",
        "_under_way",
        "_waiting",
        "altered",
        "name",
        "offset",
        "ours",
        "received",
    )

    def __init__(self, name: str, under_way: dict[str, Checkpoint]) -> None:
        self.name = name
        self.ours = self.received = self.offset = 0
        self.altered = False
        self._after_cr = False
        self._under_way = under_way
        self._give_way: Callable[[], object] | None = None  # None: just now nobody can have the name
        self._completing = False
        self._waiting: list[Deferred[None]] = []

    def count(self, data: bytes) -> None:
        """These octets of the peer's are in the draft now."""
        if self.altered:
            return
        start = self.received
        self.received += len(data)
        end = data.rfind(b"\r\n")
        if end >= 0:
            self.offset = start + end + 2
        elif self._after_cr and data.startswith(b"\n"):
            self.offset = start + 1
        self._after_cr = data.endswith(b"\r")

    # ------------------------------------------------------------------------------ who has the name

    def ready(self, give_way: Callable[[], object]) -> None:
        """From now on whoever says the name gets it: `give_way` is called then."""
        self._give_way = give_way
        self._wake()

    def release(self) -> None:
        """The transaction is over. Does nothing while it is being completed, or a second time."""
        if not self._completing:
            self._end()

    async def complete(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the last step of the transaction, which goes on where the session is cancelled; raises what it raises."""
        self._give_way, self._completing = None, True

        async def do() -> None:
            try:
                await work()
            finally:
                self._end()

        await seen_through(do())

    async def give_up(self) -> None:
        """Let another session have the name: at once, or when this one can."""
        if self._give_way is None:
            waiter: Deferred[None] = Deferred(self._forget_waiter)
            self._waiting.append(waiter)
            await waiter
        else:
            self._give_way()
            self._end()

    def _end(self) -> None:
        if self._under_way.get(self.name) is self:
            del self._under_way[self.name]
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _forget_waiter(self, waiter: Deferred[None]) -> None:
        with suppress(ValueError):  # it is being woken
            self._waiting.remove(waiter)


class Checkpoints:
    """The named transactions that are under way at the doors of a server, which share this.

    A part of fewer than `worth_keeping` octets is not kept.
    """

    def __init__(self, worth_keeping: int = WORTH_KEEPING) -> None:
        self.worth_keeping = worth_keeping
        self._under_way: dict[str, Checkpoint] = {}

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    async def claim(self, name: str) -> Checkpoint:
        """Have a name, from whoever has it. The caller sees to it that it becomes `ready`, and is released."""
        while (other := self._under_way.get(name)) is not None:
            await other.give_up()
        own = self._under_way[name] = Checkpoint(name, self._under_way)
        return own
