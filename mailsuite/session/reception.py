"""A message on its way in: from MAIL to the commit, on whatever door it came.

The content streams into a spool draft behind our own trace line. What goes wrong on the way (a full disk, a header that
tells of a loop) is kept until the end of the content, where the peer can be told.

A transaction that has a name (see `checkpoints`) can be given up in part, and begins where an earlier one has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from email.utils import make_msgid
from functools import partial
from typing import NamedTuple

from mailsuite.interfaces import IDraft, IQuota, IReservation, ISpool, Refused, SpoolError, SpoolFull
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.headers import begins_with_field, field_names, header_length, noted
from mailsuite.mail.loops import passed_on, went_to
from mailsuite.mail.origin import Origin
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import HOLD, Destination, Target
from mailsuite.mail.trace import date_time, delivered_to_line
from mailsuite.session.checkpoints import Checkpoint, seen_through

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


class Remainder(NamedTuple):
    """What is left of a transaction whose line broke: the arguments of `ISpool.keep`, but for its envelope."""

    draft: IDraft
    name: str
    received: int
    size: int


@dataclass(slots=True)
class Reception:
    """One transaction. `abort` may be called at any time, and does nothing once the message is committed.

    `declared` is the size that MAIL has told, if it has. `reservation` is the room that it keeps in quotas.
    `protocol` (of the Received line) and `message_id` are known when the header is, but not of what was resumed.
    """

    envelope: Envelope
    amendments: Amendments | None = None
    checkpoint: Checkpoint | None = None
    declared: int | None = None
    reservation: IReservation | None = None
    begins_at: int = 0
    _targets: dict[tuple[Address, Destination], Target] = field(default_factory=dict)
    recipients: int = 0
    only_recipient: Address | None = None
    protocol: str = ""
    message_id: str | None = None
    _draft: IDraft | None = None
    _trace: Callable[[str], bytes] | None = None
    _head: bytes | None = b""
    _fault: Reply | None = None
    _known: frozenset[tuple[str, str]] = frozenset()

    def resume(self, part: Partial) -> None:
        """Go on with a part of this transaction: its draft, its recipients."""
        checkpoint = self.checkpoint
        assert checkpoint is not None
        self._take_over(part.targets)
        self._draft = part.draft
        self._head = None
        self.envelope = part.envelope  # with what its header has told
        self.begins_at = checkpoint.received = checkpoint.offset = part.received
        checkpoint.ours = part.draft.size - part.received

    def _take_over(self, targets: Sequence[Target]) -> None:
        self._targets = {(target.address, target.destination): target for target in targets}
        self._known = frozenset(_key(target.original or target.address) for target in targets)
        self.recipients = len(self._known)

    def knows(self, recipient: Address) -> bool:
        """Whether this recipient is one already, by what was resumed."""
        return bool(self._known) and _key(recipient) in self._known

    async def keep_room(self, quota: IQuota, targets: Sequence[Target]) -> None:
        """Keep room for customers among these targets. Raises `Refused`."""
        if self._fault is not None:  # it has gone wrong while a router was asked, and its end has come
            raise Refused(self._fault)
        if any(target.destination.agent == HOLD for target in targets):
            if self.reservation is None:
                self.reservation = quota.reservation(self.declared or 0)
            await self.reservation.include(targets)

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
            raise Refused(told(error)) from None
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

    async def write(self, data: bytes, *, altered: bool = False) -> None:
        """Take some content; what goes wrong is kept for `commit`. `altered` as in `wire.smtp.commands.Content`."""
        if self._fault is not None:
            return
        if altered and self.checkpoint is not None:
            self.checkpoint.altered = True
        if self._head is None:
            await self._store(b"", data)
            return
        looked_at = len(self._head)
        self._head = head = self._head + data if looked_at else data
        length = header_length(head, looked_at)
        if length is not None or len(head) > _HEADER_BOUND:
            self._head = None
            await self._finish_header(head, length)

    async def commit(self, origin: Callable[[Reception], Origin] | None = None) -> int:
        """Make the message durable, and tell how many octets it has. Raises `Refused` with what the peer is told.

        `origin` is asked when the whole header is known.
        """
        if self._head is not None and self._fault is None:
            head, self._head = self._head, None
            await self._finish_header(head, len(head))
        checkpoint = self.checkpoint
        if checkpoint is not None and self._fault is None and self._begins_anew(checkpoint):
            self.fail(replies.NOT_WHERE_IT_BROKE)
        if self.reservation is not None and self._draft is not None and self._fault is None:
            await self.reservation.fit(int(self._draft.size))
        draft, self._draft = self._draft, None
        if self._fault is not None:
            raise Refused(self._fault)
        assert draft is not None
        size = int(draft.size)
        whole = partial(draft.commit, self.envelope, self.targets, origin=None if origin is None else origin(self))
        if checkpoint is not None and not checkpoint.altered:
            whole = partial(whole, name=checkpoint.name, received=checkpoint.received)
        commit: Callable[[], Awaitable[None]] = whole
        reservation, self.reservation = self.reservation, None
        if reservation is not None:
            commit = partial(_landing, reservation, commit)
        try:
            if checkpoint is not None:
                await checkpoint.complete(commit)
            elif reservation is not None:
                await seen_through(commit())
            else:
                await commit()
        except SpoolError as error:
            raise Refused(told(error)) from None
        return size

    def _begins_anew(self, checkpoint: Checkpoint) -> bool:
        """Whether a peer that was told to go on has sent everything: it did not wait for the offset."""
        came = checkpoint.received - self.begins_at
        return self.begins_at > 0 and self.declared is not None and came >= self.declared

    def leave(self, worth_keeping: int) -> Remainder | None:
        """Give the transaction up, for its line has broken: what is left of it, where that is worth keeping."""
        draft, checkpoint = self._draft, self.checkpoint
        if (
            draft is None
            or checkpoint is None
            or self._head is not None
            or checkpoint.offset < worth_keeping
            or not self._targets
        ):
            self.abort()
            return None
        self._draft = None
        checkpoint.release()
        self._give_room_back()
        return Remainder(draft, checkpoint.name, checkpoint.offset, checkpoint.ours + checkpoint.offset)

    def abort(self) -> None:
        """Forget the content that came."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.abort()
        if self.checkpoint is not None:
            self.checkpoint.release()
        self._give_room_back()

    def _give_room_back(self) -> None:
        if self.reservation is not None:
            self.reservation.release()

    async def _finish_header(self, head: bytes, length: int | None) -> None:
        names: list[bytes] = []
        # A header of a hundred lines has no more than a hundred fields of any name.
        if self.amendments is not None or head.count(b"\n", 0, length) > _MAX_HOPS:
            names = field_names(head if length is None else head[:length])
        if names.count(b"received") > _MAX_HOPS:
            self.fail(replies.ROUTING_LOOP)
            return
        self.message_id, tls_optional = noted(head, len(head) if length is None else length)
        if tls_optional and not self.envelope.options.require_tls:  # RFC 8689 section 4.1
            self.envelope = replace(self.envelope, options=replace(self.envelope.options, tls_optional=True))
        assert self._trace is not None
        added = self._trace(self.queue_id)
        alias = passed_on(self.only_recipient, self.targets, smtputf8=self.envelope.smtputf8)
        if alias is not None:
            if went_to(head if length is None else head[:length], alias):
                self.fail(replies.FORWARDING_LOOP)
                return
            added = delivered_to_line(alias) + added
        if self.amendments is not None:
            missing = self.amendments.missing(frozenset(names))
            self.message_id = self.message_id or noted(missing, len(missing))[0]
            added += missing
        # A message without any header gets the empty line that ends the one it gets from us.
        separator = b"" if begins_with_field(head) else b"\r\n"
        await self._store(added + separator, head)

    async def _store(self, ours: bytes, theirs: bytes) -> None:
        assert self._draft is not None
        try:
            waiting = self._draft.write(ours + theirs if ours else theirs)
            if self.checkpoint is not None:  # before the wait, within which the line may break
                self.checkpoint.ours += len(ours)
                self.checkpoint.count(theirs)
            if waiting is not None:
                await waiting
        except SpoolError as error:
            self.fail(told(error))


@dataclass(slots=True)
class Repetition(Reception):
    """A transaction whose message was committed before, and whose peer has not heard so (RFC 1845 section 3).

    It takes no octet and no recipient that it has not had, and its `commit` is the one of before.
    """

    _done: Completed | None = None

    def repeat(self, done: Completed) -> None:
        """Say what was done."""
        self._done = done
        self._take_over(done.targets)
        self.begins_at = done.received

    async def keep_room(self, quota: IQuota, targets: Sequence[Target]) -> None:
        """It brings nothing that would need any."""

    def accept(self, recipient: Address, targets: Sequence[Target]) -> None:
        """See that the message has gone to all of these."""
        if any((target.address, target.destination) not in self._targets for target in targets):
            raise Refused(replies.NOT_AMONG_THEM)

    @property
    def begun(self) -> bool:
        return True

    @property
    def queue_id(self) -> str:
        return "" if self._done is None else self._done.queue_id

    async def write(self, data: bytes, *, altered: bool = False) -> None:
        if self._fault is None:
            self.fail(replies.WAS_COMPLETE)

    async def commit(self, origin: Callable[[Reception], Origin] | None = None) -> int:
        assert self._done is not None
        if self._fault is not None:
            raise Refused(self._fault)
        return self._done.received


async def _landing(reservation: IReservation, commit: Callable[[], Awaitable[None]]) -> None:
    """Commit a message, and tell its reservation how that has ended; not to be cancelled."""
    try:
        await commit()
    except BaseException:
        reservation.release()
        raise
    reservation.landed()


def told(error: SpoolError) -> Reply:
    """What the peer is told of it."""
    return replies.STORAGE_FULL if isinstance(error, SpoolFull) else replies.LOCAL_ERROR


def _key(address: Address) -> tuple[str, str]:
    return address.local_part, address.domain_key
