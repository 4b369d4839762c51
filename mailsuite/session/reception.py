"""A message on its way in: from MAIL to the commit, on whatever door it came.

The content streams into a spool draft behind our own trace line. What goes wrong on the way (a full disk, a header that
tells of a loop) is kept until the end of the content, where the peer can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import make_msgid

from mailsuite.interfaces import IDraft, ISpool, Refused, SpoolError, SpoolFull
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.headers import begins_with_field, field_names, header_length
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.trace import date_time

# What is held back at the most while the end of the header has not come.
_HEADER_BOUND = 256 * 1024
# RFC 5321 section 6.3
_MAX_HOPS = 100


@dataclass(frozen=True, slots=True)
class Amendments:
    """What a submission server adds to a message that lacks it (RFC 6409 section 8)."""

    hostname: str
    now: Callable[[], float]

    def missing(self, names: frozenset[bytes]) -> bytes:
        """The fields to add, given the names of those that are there."""
        lines = b""
        if b"date" not in names:
            lines += f"Date: {date_time(self.now())}\r\n".encode("ascii")
        if b"message-id" not in names:
            lines += f"Message-ID: {make_msgid(domain=self.hostname)}\r\n".encode("ascii")
        return lines


@dataclass(slots=True)
class Reception:
    """One transaction. `abort` may be called at any time, and does nothing once the message is committed."""

    envelope: Envelope
    amendments: Amendments | None = None
    _targets: dict[tuple[Address, Destination], Target] = field(default_factory=dict)
    recipients: int = 0
    only_recipient: Address | None = None
    _draft: IDraft | None = None
    _trace: Callable[[str], bytes] | None = None
    _head: bytes | None = b""
    _fault: Reply | None = None

    def accept(self, recipient: Address, targets: Sequence[Target]) -> None:
        """Add what one recipient resolved to; what another has brought already is not added twice."""
        self.recipients += 1
        self.only_recipient = recipient if self.recipients == 1 else None
        for target in targets:
            self._targets.setdefault((target.address, target.destination), target)

    def begin(self, spool: ISpool, trace: Callable[[str], bytes]) -> None:
        """Open the draft. `trace` makes our Received line from the queue id. Raises `Refused`."""
        try:
            self._draft = spool.draft()
        except SpoolError as error:
            raise Refused(_told(error)) from None
        self._trace = trace

    @property
    def targets(self) -> Sequence[Target]:
        """Where the message goes: once to each mailbox, by however many recipients it was named."""
        return tuple(self._targets.values())

    @property
    def begun(self) -> bool:
        """Whether content is expected or has come."""
        return self._draft is not None or self._fault is not None

    @property
    def fault(self) -> Reply | None:
        """What has gone wrong with the content so far."""
        return self._fault

    @property
    def queue_id(self) -> str:
        """The name in the queue, while content comes."""
        return "" if self._draft is None else str(self._draft.queue_id)

    def fail(self, reply: Reply) -> None:
        """Give the content up; `commit` will refuse with this."""
        self._fault = reply
        self._head = None
        self.abort()

    async def write(self, data: bytes) -> None:
        """Take some content; what goes wrong is kept for `commit`."""
        if self._fault is not None:
            return
        if self._head is None:
            await self._store(data)
            return
        looked_at = len(self._head)
        self._head = head = self._head + data if looked_at else data
        length = header_length(head, looked_at)
        if length is not None or len(head) > _HEADER_BOUND:
            self._head = None
            await self._finish_header(head, length)

    async def commit(self) -> int:
        """Make the message durable, and tell how many octets it has. Raises `Refused` with what the peer is told."""
        if self._head is not None and self._fault is None:
            head, self._head = self._head, None
            await self._finish_header(head, len(head))
        draft, self._draft = self._draft, None
        if self._fault is not None:
            raise Refused(self._fault)
        assert draft is not None
        size = int(draft.size)
        try:
            await draft.commit(self.envelope, self.targets)
        except SpoolError as error:
            raise Refused(_told(error)) from None
        return size

    def abort(self) -> None:
        """Forget the content that came."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.abort()

    async def _finish_header(self, head: bytes, length: int | None) -> None:
        names: list[bytes] = []
        # A header of a hundred lines has no more than a hundred fields of any name.
        if self.amendments is not None or head.count(b"\n", 0, length) > _MAX_HOPS:
            names = field_names(head if length is None else head[:length])
        if names.count(b"received") > _MAX_HOPS:
            self.fail(replies.ROUTING_LOOP)
            return
        assert self._trace is not None
        added = self._trace(self.queue_id)
        if self.amendments is not None:
            added += self.amendments.missing(frozenset(names))
        # A message without any header gets the empty line that ends the one it gets from us.
        separator = b"" if begins_with_field(head) else b"\r\n"
        await self._store(added + separator + head)

    async def _store(self, data: bytes) -> None:
        assert self._draft is not None
        try:
            waiting = self._draft.write(data)
            if waiting is not None:
                await waiting
        except SpoolError as error:
            self.fail(_told(error))


def _told(error: SpoolError) -> Reply:
    """What the peer is told of it."""
    return replies.STORAGE_FULL if isinstance(error, SpoolFull) else replies.LOCAL_ERROR
