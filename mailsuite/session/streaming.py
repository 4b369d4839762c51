"""Many transactions under way at once: fills a line whose round trips are long.

Where one message follows the other at one round trip each, a satellite link stands empty most of the time. So messages
are said one behind the other, MAIL, RCPT, BDAT LAST, RSET, MAIL and so on, and the replies are taken as they come. RSET
stands between, since a chunk that was refused leaves a state that nothing else clears (RFC 3030 section 2).

That needs PIPELINING and CHUNKING (a group may not go on behind DATA), and it needs CHECKPOINT: when the line breaks
there are many messages of which nobody knows whether they arrived, and a server that remembers the TRANSIDs of those it
has completed answers 355 with the whole size, so that none comes twice. SIZE is needed too: a server can see by it that
more is said than it wants.

Rules
- What is not answered is bounded: in transactions, in recipients, and in octets of content.
- Content is said ahead of the replies to MAIL and RCPT only where the server can hardly know the TRANSID. It may where
  a line broke, and messages come again in the order in which they went, or are marked as replayed: so a connection
  begins with care, and waits for the answer to MAIL until one is not 355; for what was tried before it waits always.
- A 355 that comes nevertheless: the server refuses what it does not want, and the message is begun anew, with care.
  What it accepts, it has.
- A message of more than one chunk waits until its recipients are accepted. What follows it does not wait for its end.
- A server that says that its disk is full (x.3.1) is told nothing more before all is answered, and then one message
  after the other, with care, until it has taken one: what it refuses has crossed the line in vain.
- Outcomes are reported in the order in which the messages were taken, but for those that need another transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from mailsuite.mail.queue import Delivery, Outcome
from mailsuite.session.attempt import Attempt, deferred
from mailsuite.session.pipeline import Pipeline
from mailsuite.session.reading import BLOCK, ContentUnreadable, read_block
from mailsuite.session.transaction import UNREADABLE, Transaction
from mailsuite.wire.smtp.client_states import State

_OCTETS_AHEAD: Final = 1024 * 1024


class Stream:
    """Drains a run over one connection, with up to `ahead` transactions and `window` recipients without their replies.

    `following` gives the next transaction, None when there is none for now; `settle` is told what became of an attempt,
    with an outcome for those who have none. `breaks_count` says that recipients which were deferred may have been under
    way when a line broke.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        following: Callable[[], Awaitable[Transaction | None]],
        settle: Callable[[Attempt, Outcome | None], object],
        *,
        ahead: int,
        window: int,
        breaks_count: bool,
    ) -> None:
        self._pipeline = pipeline
        self._following = following
        self._settle = settle
        self._ahead = ahead
        self._window = window
        self._breaks_count = breaks_count
        self._under_way: deque[Transaction] = deque()
        self._again: deque[Transaction] = deque()
        self._octets = 0
        self._recipients = 0
        self._is_full = False  # the server has said so, and has taken nothing since
        self._is_trusting = False  # the last TRANSID that was answered was not known to the server
        pipeline.heard = self._take_away

    async def drain(self) -> None:
        """Send everything there is, and come back when all of it is answered. Raises as `exchange.hear`."""
        while True:
            if self._is_full:
                await self._hear_while(lambda: bool(self._under_way))
            transaction = await self._next()
            if transaction is None:
                if not (self._under_way or self._again):
                    return
                await self._hear_while(lambda: bool(self._under_way))
            elif self._may_be_known(transaction):
                await self._send_with_care(transaction)
            else:
                await self._send_at_once(transaction)

    async def _next(self) -> Transaction | None:
        if self._again:
            return self._again.popleft()
        if self._under_way:
            await self._pipeline.conversation.drain()  # whoever asks for more may have to wait for it
        return await self._following()

    # ----------------------------------------------------------------------------------------- saying

    def _may_be_known(self, transaction: Transaction) -> bool:
        """Whether content must wait until it is known where it begins, and who takes it."""
        attempt = transaction.attempt
        return (
            not self._is_trusting
            or self._is_full
            or transaction.size > BLOCK
            or len(transaction.recipients) > self._window
            or transaction.follows
            or was_tried(attempt.delivery, breaks_count=self._breaks_count)
        )

    async def _send_at_once(self, transaction: Transaction) -> None:
        try:
            block = await self._read(transaction)
        except ContentUnreadable as error:
            attempt = transaction.attempt
            self._settle(attempt, deferred(UNREADABLE, str(error), attempt.remote))
            return
        await self._make_room(transaction)
        if self._is_trusting and not self._is_full:
            self._add(transaction)
            transaction.say_at_once(block)
        else:  # meanwhile a server has shown that it knows more than it should, or has no room
            await self._send_with_care(transaction)

    async def _send_with_care(self, transaction: Transaction) -> None:
        await self._make_room(transaction)
        if self._is_full:
            await self._hear_while(lambda: bool(self._under_way))
        self._add(transaction)
        transaction.begin()
        await transaction.open()
        if transaction.is_resumed is not None:
            self._is_trusting = not transaction.is_resumed
        await transaction.say_content()
        self._take_away()

    async def _read(self, transaction: Transaction) -> bytes:
        content = transaction.attempt.delivery.content
        block = await read_block(content, 0)
        while len(block) < content.size:
            block += await read_block(content, len(block))
        return block

    async def _make_room(self, transaction: Transaction) -> None:
        octets, recipients = _octets(transaction), len(transaction.recipients)
        await self._hear_while(
            lambda: (
                bool(self._under_way)
                and (
                    len(self._under_way) >= self._ahead
                    or self._octets + octets > _OCTETS_AHEAD
                    or self._recipients + recipients > self._window
                )
            )
        )

    # ---------------------------------------------------------------------------------------- hearing

    async def _hear_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            await self._pipeline.hear()

    def _add(self, transaction: Transaction) -> None:
        if self._under_way or self._pipeline.core.state is not State.READY:
            transaction.say_reset()
        self._under_way.append(transaction)
        self._octets += _octets(transaction)
        self._recipients += len(transaction.recipients)

    def _take_away(self) -> None:
        """Look what has been answered."""
        while self._under_way and self._under_way[0].is_over:
            transaction = self._under_way.popleft()
            self._octets -= _octets(transaction)
            self._recipients -= len(transaction.recipients)
            if transaction.is_resumed:
                self._is_trusting = False
            successor = transaction.successor()
            if successor is None:
                attempt = transaction.attempt
                self._is_full = attempt.met_full_disk or (self._is_full and not attempt.arrived)
                self._settle(attempt, None)
            else:
                self._again.append(successor)


def was_tried(delivery: Delivery, *, breaks_count: bool) -> bool:
    """Whether a server may know this delivery from a connection that was lost."""
    return delivery.replayed or (breaks_count and any(recipient.attempts for recipient in delivery.recipients))


def _octets(transaction: Transaction) -> int:
    return min(transaction.size, BLOCK)
