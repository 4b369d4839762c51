"""Writing: settlements go to the spool in groups, the next one while it does the last; what fails is told apart.

A spool that is down is asked again until it works, and `is_failing` meanwhile: nothing is lost, for what is not written
down stays under its lease. A settlement that it cannot write for what it is (a text that is none, a damaged content)
must not keep the others from it: the group is written one by one, and what fails alone is put on hold in plain words,
or left under its lease where not even that can be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsuite.delivery.tasks import Tasks
from mailsuite.interfaces import ISpool, SpoolDown, SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.plain import plain
from mailsuite.mail.queue import Delivery, Outcome, Recipient, Result, Settlement
from mailsuite.mail.status import EnhancedStatus

_MAX_GROUP: Final = 500
_FIRST_PAUSE: Final = 1.0  # seconds before a spool that failed is asked again; doubled each time
_LONGEST_PAUSE: Final = 30.0
_LOCAL_ERROR: Final = EnhancedStatus(4, 3, 0)
_GONE: Final = (Result.DELIVERED, Result.RELAYED)
_TEXT_LIMIT: Final = 500

Together = tuple[Settlement, ...]


class Writing:
    """Writes settlements down; those that are put together are written in one transaction.

    `written` is called after each group, also when it was the last one.
    """

    _log = Logger()

    def __init__(self, spool: ISpool, clock: IReactorTime, written: Callable[[], object]) -> None:
        self._spool = spool
        self._clock = clock
        self._written = written
        self._pending: list[Together] = []
        self._tasks = Tasks()
        self._abandoned = False
        self._writing = False
        self.is_failing = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._pending)

    @property
    def is_idle(self) -> bool:
        """Whether all is written down."""
        return not (self._pending or self._writing)

    def put(self, together: Together) -> None:
        """Have this written down, with what else comes in this turn of the reactor."""
        self._pending.append(together)
        if not self._writing:
            self._writing = True
            self._clock.callLater(0, self._start)

    def abandon(self) -> None:
        """Stop, even while the spool fails."""
        self._abandoned = True
        self._tasks.cancel()

    def _start(self) -> None:
        if not self._abandoned:
            self._tasks.start(self._write(), "settling")

    async def _write(self) -> None:
        pause = _FIRST_PAUSE
        while self._pending:
            taken = self._pending[:_MAX_GROUP]
            down = await self._write_group(taken)
            if down is not None:
                self.is_failing = True
                count = len(self._pending)
                self._log.error("the spool failed, {count} settlements wait: {error}", count=count, error=str(down))
                await deferLater(self._clock, pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause, self.is_failing = _FIRST_PAUSE, False
            if self._pending:
                self._written()
        self._writing = False
        self._written()

    async def _write_group(self, taken: Sequence[Together]) -> SpoolError | None:
        """Write these, and take them from what is pending; what is left where the spool is down, and why."""
        error = await self._try(tuple(chain.from_iterable(taken)))
        if error is None:
            del self._pending[: len(taken)]
            return None
        if isinstance(error, SpoolError) and (down := await self._is_down(error)) is not None:
            return down
        for together in taken:
            error = await self._try(together)
            if error is not None and (down := await self._put_aside(together, error)) is not None:
                return down
            del self._pending[:1]
        return None

    async def _try(self, together: Together) -> Exception | None:
        try:
            await self._spool.settle(together)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect, ours or the spool's: find the one that it hangs on
            return error
        self._log_gone(together)
        return None

    async def _is_down(self, error: SpoolError) -> SpoolError | None:
        """Whether it is the spool that fails: then not even nothing can be written."""
        if isinstance(error, SpoolDown):
            return error
        try:
            await self._spool.settle(())
        except SpoolError as failure:
            return failure
        return None

    async def _put_aside(self, together: Together, error: Exception) -> SpoolError | None:
        """See to settlements that cannot be written as they are; why not, where the spool is down."""
        if isinstance(error, SpoolError) and (down := await self._is_down(error)) is not None:
            return down
        why = _ascii(f"{type(error).__name__}: {error}")
        ids = dict.fromkeys(settled.delivery.message.queue_id for settled in together)
        name = ", ".join(map(plain, ids))
        now = self._clock.seconds()
        for settled in together:
            failed = await self._try((_on_hold(settled.delivery, settled.outcomes, why, now),))
            if failed is None:
                self._log.error("{name}: cannot be settled, is put on hold: {why}", name=name, why=why)
                continue
            if isinstance(failed, SpoolError) and (down := await self._is_down(failed)) is not None:
                return down
            self._log.error("{name}: cannot be settled, stays under lease: {why}", name=name, why=why)
        return None

    def _log_gone(self, group: Sequence[Settlement]) -> None:
        """Say who has got what. A group is one event of the log: an event for each recipient would cost too much."""
        lines = [
            plain(
                f"{settled.delivery.message.queue_id}: to=<{recipient.address}> {outcome.result.value} {outcome.status}"
                + (f" {outcome.remote}: {outcome.text}" if outcome.remote else "")
            )
            for settled in group
            for recipient, outcome in zip(settled.delivery.recipients, settled.outcomes, strict=True)
            if outcome.result in _GONE
        ]
        if lines:
            self._log.info("{lines}", lines="\n".join(lines))


def _on_hold(delivery: Delivery, outcomes: Sequence[Outcome], why: str, now: float) -> Settlement:
    """In place of a settlement that cannot be written: all on hold, for an operator, in words that can."""
    texts = [_came_to(recipient, outcome) for recipient, outcome in zip(delivery.recipients, outcomes, strict=True)]
    detail = {"text": f"What became of it cannot be written down ({why}); on hold: {'; '.join(texts[:20])}"}
    step = Event(now, EventKind.FAULT, None, delivery.message.queue_id, detail)
    held = [Outcome(Result.HELD, _LOCAL_ERROR, f"On hold, its end cannot be written down: {text}") for text in texts]
    return Settlement(delivery, held, events=(step,))


def _came_to(recipient: Recipient, outcome: Outcome) -> str:
    return _ascii(f"{recipient.address} was {outcome.result.value}, {outcome.status} {outcome.text}")


def _ascii(text: str) -> str:
    return plain(text.encode("ascii", "backslashreplace").decode("ascii"))[:_TEXT_LIMIT]
