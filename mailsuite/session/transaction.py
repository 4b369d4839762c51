"""One mail transaction on the client's side: MAIL, RCPT for each recipient, the content, what it came to.

Its four steps are apart so that transactions can overlap: where the server takes pipelining, the next one begins
behind the content of this one, "in the same group as the final transfer of the headers and body" (RFC 2920 section
3.1), so that messages follow each other at one round trip each. The steps of one transaction come in order: `begin`,
`open`, `say_content`, `finish`; only the next one's `begin` may stand before `finish`. `say_at_once` takes the place of
the first three where not even that round trip is to be waited for (see `streaming`).

DATA or BDAT: where CHUNKING is offered, BDAT. Its octets need no stuffing here and no search for an end there. But for
`say_at_once` it is said when the replies to all recipients are in: RFC 3030 section 2 has it so, nobody is sent content
that nobody will take, and it costs no round trip against DATA, which waits for its 354. Since a chunk that fails leaves
a state that only RSET clears, a transaction that is to follow at once has RSET before it, where DATA would have stood.

Recipients beyond what the server takes in one transaction (452, or 552 by RFC 5321 section 4.5.3.1.10) are not settled
but left to the next, as long as every one takes at least one of them.

CHECKPOINT (RFC 1845): MAIL carries a TRANSID, and a 355 says from which octet on the content is wanted. The recipients
are said again, since only their replies tell who they are. DATA waits until it is known where the content begins. What
cannot be gone on with (an offset that makes no sense, a server that takes no recipient again) is begun anew by another
name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from mailsuite.mail.reply import Reply
from mailsuite.mail.status import EnhancedStatus
from mailsuite.session.attempt import Attempt, deferred
from mailsuite.session.fitting import in_ascii
from mailsuite.session.pipeline import Pipeline
from mailsuite.session.reading import BLOCK, ContentUnreadable, place_of, read_block
from mailsuite.session.transid import transid_of
from mailsuite.session.wishes import rcpt
from mailsuite.wire.core import ConnectionClosed, RemoteProtocolError
from mailsuite.wire.smtp.checkpoint import offset_of
from mailsuite.wire.smtp.client import Replied
from mailsuite.wire.smtp.client_states import State
from mailsuite.wire.smtp.commands import Bdat, Command, Content, ContentEnd, Data, Mail, Rcpt, Rset

_CHUNKS_AHEAD: Final = 4  # chunks that may be without their reply
_NAMES: Final = 2  # TRANSIDs for one transaction
_MANY: Final = 100  # recipients that every server must take: RFC 5321 section 4.5.3.1.8

UNREADABLE: Final = EnhancedStatus(4, 3, 0)


@dataclass(frozen=True, slots=True)
class Terms:
    """How transactions are held on one connection: what the server offers and we want.

    `window` is how many commands may be without an answer. `names` is the host name that TRANSIDs end in, None where
    there are none. `dsn` says that the server takes RFC 3461's parameters, `secure` that the connection is
    under TLS; it is None for a mail store on this machine, which needs none (RFC 8689 section 4.4).
    """

    pipelining: bool
    chunking: bool
    lmtp: bool
    window: int
    names: str | None = None
    dsn: bool = False
    secure: bool | None = False


class Transaction:
    """One transaction for some recipients of a delivery, or for all of them.

    `serial` counts how often it was begun anew by another TRANSID. `follows` says that there was one before for the
    same delivery, `is_said` that nothing of it is still to be said. `is_resumed` says that the server has known its
    TRANSID; it is None before MAIL was accepted.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        attempt: Attempt,
        mail: Mail,
        terms: Terms,
        recipients: Iterable[int],
        serial: int = 0,
    ) -> None:
        self.attempt = attempt
        self.begun = False
        self.is_said = False
        self.follows = False
        self.is_resumed: bool | None = None
        self.recipients = tuple(recipients)
        self.serial = serial
        if terms.names is not None:
            transid = None  # whoever resumes what cannot be known to it is not asked a third time
            if serial < _NAMES:
                transid = transid_of(
                    attempt.delivery, self.recipients, terms.names, chunking=terms.chunking, serial=serial
                )
            mail = replace(mail, transid=transid)
        self._pipeline = pipeline
        self._conversation = pipeline.conversation
        self._core = pipeline.core
        self._mail = mail
        self._terms = terms
        self._unsaid = deque(self.recipients)
        self._said: deque[int] = deque()  # recipients whose RCPT has no reply yet
        self._accepted: list[int] = []
        self._too_many: list[int] = []
        self._not_again: list[int] = []  # recipients that a server which resumes does not take
        self._mail_refused = False
        self._data_said = False
        self._chunks_said = False
        self._chunk_refused: Reply | None = None
        self._judged = 0  # LMTP: how many of the accepted have had their reply to the content
        self._owed = 0  # replies that are still to come
        self._offset = 0  # where the server wants the content to be taken up
        self._place: int | None = 0  # where that is in what we have; None where nobody knows
        self._at_once = False  # the content was said before that was known
        self._begin_anew: list[int] | None = None  # for whom, by the same TRANSID or by another one
        self._by_another_name = False

    @property
    def size(self) -> int:
        """How many octets of content there are."""
        return self.attempt.delivery.content.size

    @property
    def is_over(self) -> bool:
        """Whether everything was said and answered."""
        return self.is_said and not self._owed

    # -------------------------------------------------------------------------------------- the steps

    def begin(self) -> None:
        """Say MAIL, and with pipelining as much of what follows as the window allows."""
        self.begun = True
        self._say(self._mail)
        if self._terms.pipelining:
            self._say_recipients()

    async def open(self) -> None:
        """Go on until every recipient has been answered and content may be said. Raises as `exchange.hear`."""
        while True:
            await self._hear_all()
            if self._mail_refused:
                return
            if self._unsaid:
                self._say_recipients()
                continue
            await self._take_up()
            if self._accepted and not (self._data_said or self._terms.chunking):
                self._say_data()
            else:
                return

    def successor(self) -> Transaction | None:
        """After `open`, or when it is over: the transaction that is to follow for the same delivery, if there is any.

        That is for recipients that were too many for this one, or for all whom it has not settled where it must be
        begun anew.
        """
        if self._begin_anew is not None:
            whom, serial = self._begin_anew, self.serial + self._by_another_name
        elif self._too_many:
            whom, serial = self._too_many, 0
        else:
            return None
        another = Transaction(self._pipeline, self.attempt, self._mail, self._terms, whom, serial)
        another.follows = True
        return another

    async def say_content(self) -> None:
        """Say the content, or what takes its place where nobody was accepted.

        Raises `ContentUnreadable` where the connection must be dropped, and as `exchange.hear`.
        """
        if self._core.state is State.CONTENT:
            if self._accepted:
                try:
                    await self._say_data_content()
                except ConnectionClosed:
                    await self._hear_last_words()
                    raise
            # RFC 2920 section 3.1: to a 354 without a recipient "the client SMTP should send a single dot".
            self._say_end(len(self._accepted) if self._terms.lmtp else 1, last=True)
        elif self._accepted:
            await self._say_chunks()
        elif self._core.state is not State.READY:
            self._say(Rset())
        self.is_said = True

    def say_reset(self) -> None:
        """Before `begin` or `say_at_once`: nobody knows what another transaction has left behind."""
        self._say(Rset())

    def say_at_once(self, block: bytes) -> None:
        """Say all of it, waiting for nothing; `block` is the whole content.

        For a TRANSID that the server should not know: what it says to one that it does is seen by the end of the
        content, where a refusal has the transaction begun anew.
        """
        self._at_once = self.attempt.sent = True
        self.begin()
        self._conversation.send(Bdat(len(block), last=True))
        self._conversation.send(Content(block))
        self._say_end(1, last=True)
        self.is_said = True

    def make_room(self) -> None:
        """After `say_content`: another transaction is to begin before this one's replies are in."""
        if self._chunks_said:
            # RFC 3030 section 2: should the last chunk fail, "a RSET command MUST be issued".
            self._say(Rset())

    async def finish(self) -> None:
        """Take all replies that are still to come. Raises as `exchange.hear`."""
        await self._hear_all()
        if self._core.state is State.BROKEN and not self._pipeline.has_quit:
            self._say(Rset())
            await self._hear_all()

    # ----------------------------------------------------------------------------------------- saying

    def _say(self, command: Command) -> None:
        self._pipeline.say(command, self)
        self._owed += 1

    def _say_recipients(self) -> None:
        window = self._terms.window if self._terms.pipelining else 1
        recipients = self.attempt.delivery.recipients
        while self._unsaid and (self._at_once or self._owed < window):
            index = self._unsaid.popleft()
            address = recipients[index].address
            if not self._mail.smtputf8:
                address = in_ascii(address) or address
            self._said.append(index)
            self._say(rcpt(address, recipients[index], self._mail, dsn=self._terms.dsn))
        # Behind a 354 nothing can be taken back any more, so with a TRANSID the answer to MAIL must be known.
        if self._terms.pipelining and not (self._unsaid or self._terms.chunking or self._mail.transid):
            self._say_data()

    def _say_data(self) -> None:
        self._data_said = True
        self._say(Data())

    def _say_end(self, replies: int, *, last: bool) -> None:
        self._conversation.send(ContentEnd(last))
        self._pipeline.expect(self, replies)
        self._owed += replies

    async def _take_up(self) -> None:
        """All recipients have been answered: find where the content is taken up, or that it cannot be."""
        if not self.is_resumed or self._data_said:
            return
        if self._accepted:
            # Whom it does not take again it did not have in this transaction.
            self._too_many += self._not_again
            self._not_again.clear()
            try:
                self._place = await place_of(self.attempt.delivery.content, self._offset, chunking=self._terms.chunking)
            except ContentUnreadable as error:
                self._settle_accepted(error)
                self._accepted.clear()
                return
        if self._place is None or self._not_again:
            self._go_back(by_another_name=True)

    def _go_back(self, *, by_another_name: bool) -> None:
        """Begin anew, for everybody whom this transaction has not settled."""
        whom = sorted([*self._accepted, *self._not_again, *self._too_many])
        self._begin_anew = whom or None
        self._by_another_name = by_another_name
        for recipients in (self._accepted, self._not_again, self._too_many):
            recipients.clear()

    async def _say_data_content(self) -> None:
        assert self._place is not None
        content, offset = self.attempt.delivery.content, self._place
        size = content.size
        several = size - offset > BLOCK
        while offset < size:
            block = await read_block(content, offset)
            offset += len(block)
            self._conversation.send(Content(block))
            if several:
                await self._conversation.drain()

    async def _say_chunks(self) -> None:
        assert self._place is not None
        content, offset = self.attempt.delivery.content, self._place
        last = False
        while not (last or self._chunk_refused):
            try:
                block = await read_block(content, offset)
            except ContentUnreadable as error:
                # No chunk is under way, so the transaction can be taken back.
                self._settle_accepted(error)
                break
            offset += len(block)
            last = offset == content.size
            self._conversation.send(Bdat(len(block), last))
            self._conversation.send(Content(block))
            self._say_end(len(self._accepted) if last and self._terms.lmtp else 1, last=last)
            if not last:
                await self._conversation.drain()
                while self._owed > (_CHUNKS_AHEAD if self._terms.pipelining else 0):
                    await self._pipeline.hear()
        if last:
            self._chunks_said = True
            return
        await self._hear_all()
        if self._chunk_refused is not None:
            for index in self._accepted:
                self.attempt.judge(index, self._chunk_refused)
        self._say(Rset())

    def _settle_accepted(self, error: ContentUnreadable) -> None:
        for index in self._accepted:
            self.attempt.settle(index, deferred(UNREADABLE, str(error), self.attempt.remote))

    # ---------------------------------------------------------------------------------------- hearing

    async def _hear_all(self) -> None:
        while self._owed:
            await self._pipeline.hear()

    def take(self, event: Replied) -> None:
        """The next reply to what this transaction has said. Raises `RemoteProtocolError`."""
        self._owed -= 1
        command, reply = event.command, event.reply
        if isinstance(command, Rset):
            if not reply.is_positive:
                raise RemoteProtocolError(f"RSET was answered by {reply}")
            return
        self.attempt.heard = True
        if isinstance(command, ContentEnd):
            self._take_end(command, reply)
        elif isinstance(command, Rcpt):
            self._take_recipient(self._said.popleft(), reply)
        elif isinstance(command, Mail):
            self._take_sender(reply)
        elif isinstance(command, Data) and not reply.is_intermediate:
            for index in self._accepted:
                self.attempt.judge(index, reply)
            self._accepted.clear()

    def _take_sender(self, reply: Reply) -> None:
        offset = offset_of(reply)
        if offset is not None or reply.is_positive:
            self.is_resumed = offset is not None
            self._offset = offset or 0
        else:
            self._mail_refused = True
            for index in (*self._said, *self._unsaid):
                self.attempt.judge(index, reply)

    def _take_recipient(self, index: int, reply: Reply) -> None:
        if self._mail_refused:
            return  # whatever is said of a recipient without a sender
        if reply.is_positive:
            self._accepted.append(index)
        elif self.is_resumed and reply.code == 503:
            self._not_again.append(index)
        elif self._accepted and _says_too_many(reply, len(self._accepted)):
            self._too_many.append(index)
        else:
            self.attempt.judge(index, reply)

    def _take_end(self, end: ContentEnd, reply: Reply) -> None:
        if not end.last:
            if not reply.is_positive:
                self._chunk_refused = self._chunk_refused or reply
            return
        # RFC 3030 section 2: once a chunk was refused "the transaction should be considered failed".
        verdict = self._chunk_refused or reply
        if self._at_once and self._is_at_odds(verdict):
            return
        if self._terms.lmtp:
            self.attempt.judge(self._accepted[self._judged], verdict)
            self._judged += 1
        else:
            for index in self._accepted:
                self.attempt.judge(index, verdict)

    def _is_at_odds(self, verdict: Reply) -> bool:
        """Whether everything was said to a server that wanted only the rest, or nothing, and has refused it."""
        if not self.is_resumed:
            return False
        if not self._accepted:
            self._go_back(by_another_name=True)
            return True
        self._too_many += self._not_again
        self._not_again.clear()
        if verdict.is_positive or not self._offset:
            return False
        self._go_back(by_another_name=False)
        return True

    async def _hear_last_words(self) -> None:
        """The peer has closed while content was said; it may have told why. Raises as `exchange.hear`."""
        self._pipeline.expect(self)
        self._owed += 1
        await self._pipeline.hear()


def _says_too_many(reply: Reply, accepted: int) -> bool:
    """Whether a reply to RCPT says that this transaction has recipients enough (RFC 5321 section 4.5.3.1.10)."""
    if reply.code not in (452, 552):
        return False
    if reply.status is not None and reply.status[1:] != (0, 0):
        return reply.status[1:] == (5, 3)  # RFC 3463 section 3.6: "Too many recipients"
    return accepted >= _MANY or reply.code == 452
