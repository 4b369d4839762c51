"""One mail transaction on the client's side: MAIL, RCPT for each recipient, the content, what it came to.

Its four steps are apart so that transactions can overlap: where the server takes pipelining, the next one begins
behind the content of this one, "in the same group as the final transfer of the headers and body" (RFC 2920 section
3.1), so that messages follow each other at one round trip each. The steps of one transaction come in order: `begin`,
`open`, `say_content`, `finish`; only the next one's `begin` may stand before `finish`.

DATA or BDAT: where CHUNKING is offered, BDAT. Its octets need no stuffing here and no search for an end there. It is
said when the replies to all recipients are in: RFC 3030 section 2 has it so, nobody is sent content that nobody will
take, and it costs no round trip against DATA, which waits for its 354. Since a chunk that fails leaves a state that
only RSET clears, a transaction that is to follow at once has RSET before it, where DATA would have stood.

Recipients beyond what the server takes in one transaction (452, or 552 by RFC 5321 section 4.5.3.1.10) are not settled
but left to the next, as long as every one takes at least one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mailsuite.interfaces import IConversation
from mailsuite.mail.reply import Reply
from mailsuite.mail.status import EnhancedStatus
from mailsuite.session.attempt import Attempt, deferred
from mailsuite.session.exchange import hear
from mailsuite.session.fitting import in_ascii
from mailsuite.wire.core import ConnectionClosed, RemoteProtocolError
from mailsuite.wire.smtp.client import Replied, SmtpClientCore
from mailsuite.wire.smtp.client_states import State
from mailsuite.wire.smtp.commands import Bdat, Command, Content, ContentEnd, Data, Mail, Rcpt, Rset

_BLOCK: Final = 256 * 1024  # octets read, said and put into one BDAT chunk
_CHUNKS_AHEAD: Final = 4  # chunks that may be without their reply
_MANY: Final = 100  # recipients that every server must take: RFC 5321 section 4.5.3.1.8

UNREADABLE: Final = EnhancedStatus(4, 3, 0)


class ContentUnreadable(Exception):
    """Content could not be read to its end, and a part of it was said: the connection must end before the dot comes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How transactions are held on one connection: what the server offers and we want.

    `window` is how many commands may be without an answer.
    """

    pipelining: bool
    chunking: bool
    lmtp: bool
    window: int


class Transaction:
    """One transaction for some recipients of a delivery, or for all of them."""

    def __init__(
        self, conversation: IConversation, attempt: Attempt, mail: Mail, terms: Terms, recipients: Iterable[int]
    ) -> None:
        self.attempt = attempt
        self.begun = False
        self._conversation = conversation
        self._core: SmtpClientCore = conversation.core
        self._mail = mail
        self._terms = terms
        self._unsaid = deque(recipients)
        self._said: deque[int] = deque()  # recipients whose RCPT has no reply yet
        self._accepted: list[int] = []
        self._too_many: list[int] = []
        self._mail_refused = False
        self._data_said = False
        self._chunks_said = False
        self._chunk_refused: Reply | None = None
        self._judged = 0  # LMTP: how many of the accepted have had their reply to the content
        self._owed = 0  # replies that are still to come

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
            elif self._accepted and not (self._data_said or self._terms.chunking):
                self._say_data()
            else:
                return

    def remainder(self) -> Transaction | None:
        """After `open`: the transaction for the recipients that were too many for this one, if there are any."""
        if not self._too_many:
            return None
        return Transaction(self._conversation, self.attempt, self._mail, self._terms, self._too_many)

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

    def make_room(self) -> None:
        """After `say_content`: another transaction is to begin before this one's replies are in."""
        if self._chunks_said:
            # RFC 3030 section 2: should the last chunk fail, "a RSET command MUST be issued".
            self._say(Rset())

    async def finish(self) -> None:
        """Take all replies that are still to come. Raises as `exchange.hear`."""
        await self._hear_all()
        if self._core.state is State.BROKEN:
            self._say(Rset())
            await self._hear_all()

    # ----------------------------------------------------------------------------------------- saying

    def _say(self, command: Command) -> None:
        self._conversation.send(command)
        self._owed += 1

    def _say_recipients(self) -> None:
        window = self._terms.window if self._terms.pipelining else 1
        recipients = self.attempt.delivery.recipients
        while self._unsaid and self._owed < window:
            index = self._unsaid.popleft()
            address = recipients[index].address
            if not self._mail.smtputf8:
                address = in_ascii(address) or address
            self._said.append(index)
            self._say(Rcpt(address))
        if self._terms.pipelining and not (self._unsaid or self._terms.chunking):
            self._say_data()

    def _say_data(self) -> None:
        self._data_said = True
        self._say(Data())

    def _say_end(self, replies: int, *, last: bool) -> None:
        self._conversation.send(ContentEnd(last))
        self._owed += replies

    async def _read(self, offset: int) -> bytes:
        """A block of the content. Raises `ContentUnreadable`."""
        content = self.attempt.delivery.content
        octets = content.in_memory()
        try:
            block = await content.read(offset, _BLOCK) if octets is None else octets[offset : offset + _BLOCK]
        except OSError as error:
            raise ContentUnreadable(f"the message cannot be read: {error}") from error
        left = content.size - offset
        if len(block) > left or (left and not block):
            raise ContentUnreadable("the message is not as long as it was")
        return block

    async def _say_data_content(self) -> None:
        offset, size = 0, self.attempt.delivery.content.size
        while offset < size:
            block = await self._read(offset)
            offset += len(block)
            self._conversation.send(Content(block))
            if size > _BLOCK:
                await self._conversation.drain()

    async def _say_chunks(self) -> None:
        offset, size = 0, self.attempt.delivery.content.size
        last = False
        while not (last or self._chunk_refused):
            try:
                block = await self._read(offset)
            except ContentUnreadable as error:
                # No chunk is under way, so the transaction can be taken back.
                self._settle_accepted(error)
                break
            offset += len(block)
            last = offset == size
            self._conversation.send(Bdat(len(block), last))
            self._conversation.send(Content(block))
            self._say_end(len(self._accepted) if last and self._terms.lmtp else 1, last=last)
            if not last:
                await self._conversation.drain()
                while self._owed > (_CHUNKS_AHEAD if self._terms.pipelining else 0):
                    await self._hear()
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
            await self._hear()

    async def _hear(self) -> None:
        event = await hear(self._conversation)
        assert isinstance(event, Replied)  # it was greeted before
        self.attempt.heard = True
        self._owed -= 1
        command, reply = event.command, event.reply
        if isinstance(command, ContentEnd):
            self._hear_end(command, reply)
        elif isinstance(command, Rcpt):
            self._hear_recipient(self._said.popleft(), reply)
        elif isinstance(command, Mail) and not reply.is_positive:
            self._mail_refused = True
            for index in (*self._said, *self._unsaid):
                self.attempt.judge(index, reply)
        elif isinstance(command, Data) and not reply.is_intermediate:
            for index in self._accepted:
                self.attempt.judge(index, reply)
            self._accepted.clear()
        elif isinstance(command, Rset) and not reply.is_positive:
            raise RemoteProtocolError(f"RSET was answered by {reply}")

    def _hear_recipient(self, index: int, reply: Reply) -> None:
        if self._mail_refused:
            return  # whatever is said of a recipient without a sender
        if reply.is_positive:
            self._accepted.append(index)
        elif self._accepted and _says_too_many(reply, len(self._accepted)):
            self._too_many.append(index)
        else:
            self.attempt.judge(index, reply)

    def _hear_end(self, end: ContentEnd, reply: Reply) -> None:
        if not end.last:
            if not reply.is_positive:
                self._chunk_refused = self._chunk_refused or reply
            return
        # RFC 3030 section 2: once a chunk was refused "the transaction should be considered failed".
        verdict = self._chunk_refused or reply
        if self._terms.lmtp:
            self.attempt.judge(self._accepted[self._judged], verdict)
            self._judged += 1
        else:
            for index in self._accepted:
                self.attempt.judge(index, verdict)

    async def _hear_last_words(self) -> None:
        """The peer has closed while content was said; it may have told why. Raises as `exchange.hear`."""
        self._owed += 1
        await self._hear()


def _says_too_many(reply: Reply, accepted: int) -> bool:
    """Whether a reply to RCPT says that this transaction has recipients enough (RFC 5321 section 4.5.3.1.10)."""
    if reply.code not in (452, 552):
        return False
    if reply.status is not None and reply.status[1:] != (0, 0):
        return reply.status[1:] == (5, 3)  # RFC 3463 section 3.6: "Too many recipients"
    return accepted >= _MANY or reply.code == 452
