"""A server that implements CHECKPOINT (RFC 1845) in full, over as many connections as it takes, and lines that break.

It keeps the part of a message whose line broke, and remembers the TRANSIDs of those it has completed. The grammar is
that of the server's core; what it answers is written from the RFC.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zope.interface import implementer

from mailsuite.interfaces import IConversation
from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Peer
from mailsuite.wire.core import Answer, ConnectionClosed, EndOfFile, Event, RemoteProtocolError, Signal, Violation
from mailsuite.wire.smtp.checkpoint import resuming
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.commands import Bdat, Content, ContentEnd, Data, Ehlo, Mail, Quit, Rcpt, Rset
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore

UNKNOWN = Reply.make(503, "5.5.1", "Not in this transaction")
TOO_MUCH = Reply.make(554, "5.5.4", "More than was announced")
NO_SUCH_USER = "nobody@example.net"


@dataclass
class Memory:
    """What outlasts the connections. `by_lines` is for DATA, whose parts end where a line does."""

    chunking: bool = True
    by_lines: bool = False
    takes_again: bool = True  # RCPT behind a 355
    offset: Callable[[int], int] = int  # what it says of the offset
    parts: dict[str, tuple[list[str], bytes]] = field(default_factory=dict)
    completed: dict[str, tuple[list[str], int]] = field(default_factory=dict)
    mailboxes: list[tuple[str, bytes]] = field(default_factory=list)
    content_taken: int = 0
    resumed: list[tuple[str, int]] = field(default_factory=list)

    def copies(self, name: str) -> list[bytes]:
        return [content for mailbox, content in self.mailboxes if mailbox == name]


def accept_all(event: Event) -> Reply | None:
    """Nothing is answered otherwise."""


class RememberingServer:
    """One connection of that server; `refuse` may answer a command or the end of content otherwise."""

    def __init__(self, memory: Memory, refuse: Callable[[Event], Reply | None] = accept_all) -> None:
        self.memory = memory
        self._offer = Offer("mx.example.net", chunking=memory.chunking, checkpoint=True, max_errors=10_000)
        self.core = SmtpServerCore(self._offer)
        self.closed = False
        self.heard: list[Event] = []
        self._refuse = refuse
        self._forget()
        self.out = self.core.send(Reply(220, None, ("mx.example.net",)))

    def take(self, data: bytes) -> None:
        """What the client says."""
        self.core.receive_data(data)
        while not self.closed and not isinstance(event := self.core.next_event(), Signal):
            assert not isinstance(event, EndOfFile)
            if isinstance(event, Answer):
                assert event.data.startswith((b"503", b"554")), event.data
                self.out += event.data
                self.closed = event.closing
                continue
            self.heard.append(event)
            reply = self._reply(event)
            if reply is not None:
                self.out += self.core.send(reply)
                self.closed = self.closed or reply.code in (221, 421)

    def lost(self) -> None:
        """The line broke: what has come is kept."""
        if self._transid is not None and self._mail is not None and self._content and not self._whole:
            content = self._content
            if self.memory.by_lines:
                content = content[: content.rfind(b"\r\n") + 2] if b"\r\n" in content else b""
            # A line may break again before the client has said its recipients again.
            self.memory.parts[self._transid] = (self._known or self._recipients, content)
        self.closed = True

    def _forget(self) -> None:
        self._mail: Mail | None = None
        self._transid: str | None = None
        self._recipients: list[str] = []
        self._known: list[str] | None = None  # the recipients, where the transaction is resumed
        self._content = b""
        self._whole = False  # it was completed before

    def _reply(self, event: Event) -> Reply | None:
        if isinstance(event, Content):
            self._content += event.data
            self.memory.content_taken += len(event.data)
            return None
        if isinstance(event, Bdat):
            return None
        refusal = self._refuse(event)
        if refusal is not None:
            if isinstance(event, ContentEnd):
                self._drop()
            return refusal
        if isinstance(event, ContentEnd):
            return self._end(event)
        if isinstance(event, Ehlo):
            return self._offer.ehlo_reply(event.domain)
        if isinstance(event, Mail):
            return self._begin(event)
        if isinstance(event, Rcpt):
            return self._recipient(str(event.address))
        if isinstance(event, Rset):
            self._drop()
        return {Data: replies.START_CONTENT, Quit: replies.BYE}.get(type(event), replies.OK)

    def _begin(self, mail: Mail) -> Reply:
        memory = self.memory
        self._forget()
        self._mail, self._transid = mail, mail.transid
        if mail.transid in memory.completed:
            self._known, size = memory.completed[mail.transid]
            self._whole = True
        elif mail.transid in memory.parts:
            self._known, self._content = memory.parts[mail.transid]
            size = len(self._content)
        else:
            return replies.SENDER_OK
        memory.resumed.append((mail.transid, size))
        return resuming(memory.offset(size))

    def _recipient(self, name: str) -> Reply:
        if name == NO_SUCH_USER:
            return replies.NO_SUCH_USER
        if self._known is not None and not (self.memory.takes_again and name in self._known):
            return UNKNOWN
        self._recipients.append(name)
        return replies.RECIPIENT_OK

    def _end(self, event: ContentEnd) -> Reply:
        if event.fault is not None:
            self._drop()
            return event.fault
        assert self._mail is not None
        if self._whole:
            surplus = bool(self._content)
            self._forget()
            return TOO_MUCH if surplus else replies.QUEUED
        if self._mail.size is not None and self._known is not None and len(self._content) > self._mail.size + 2:
            self._drop()
            return TOO_MUCH
        if not event.last:
            return replies.CHUNK_OK
        self.memory.mailboxes += [(name, self._content) for name in self._recipients]
        if self._transid is not None:
            self.memory.completed[self._transid] = (self._recipients, len(self._content))
            self.memory.parts.pop(self._transid, None)
        self._forget()
        return replies.QUEUED

    def _drop(self) -> None:
        """The client has given a transaction up, or it cannot go on."""
        if self._transid is not None:
            self.memory.parts.pop(self._transid, None)
        self._forget()


def whole(octets: bytes) -> list[bytes]:
    return [octets] if octets else []


def one_by_one(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


@implementer(IConversation)
class BreakingConversation:
    """What is said is heard at once, what is answered when the session waits. The line breaks after some octets.

    `trips` counts how often the session had to wait for the other side.
    """

    peer = local = Peer("192.0.2.25", 25)
    tls = None
    line_by_line = False

    def __init__(
        self,
        server: RememberingServer,
        octets: int | None = None,
        cut: Callable[[bytes], list[bytes]] = whole,
    ) -> None:
        self.core = SmtpClientCore()
        self.passed = 0
        self.trips = 0
        self.most_unanswered = 0
        self.said = b""
        self._server = server
        self._left = octets
        self._cut = cut
        self._out = b""
        self._in: list[bytes] = []
        self._broken = False

    async def receive(self) -> Event:
        while True:
            event = self.core.next_event()
            if isinstance(event, Violation):
                raise RemoteProtocolError(event.reason)
            if isinstance(event, EndOfFile):
                raise ConnectionClosed("closed")
            if isinstance(event, Event):
                return event
            if not self._in:
                if self._broken:
                    raise ConnectionClosed("the line broke")
                self._listen()
            if self._in:
                self.core.receive_data(self._in.pop(0))

    def send(self, message: Any) -> None:
        self._out += self.core.send(message)
        self.most_unanswered = max(self.most_unanswered, self.core.outstanding)

    async def drain(self) -> None:
        self._speak()
        if self._broken:
            raise ConnectionClosed("the line broke")

    def _speak(self) -> None:
        octets, self._out = self._out, b""
        self.said += octets
        for part in self._cut(self._carry(octets)):
            if not self._server.closed:
                self._server.take(part)
        self._look()

    def _listen(self) -> None:
        self.trips += 1
        self._speak()
        octets, self._server.out = self._server.out, b""
        self._in += self._cut(self._carry(octets))
        if self._server.closed and not self._broken:
            self._in.append(b"")
        self._look()
        assert self._in or self._broken, "both sides wait for each other"

    def _carry(self, octets: bytes) -> bytes:
        if self._broken:
            return b""
        octets = octets if self._left is None else octets[: self._left]
        self.passed += len(octets)
        if self._left is not None:
            self._left -= len(octets)
        return octets

    def _look(self) -> None:
        if self._left == 0 and not self._broken:
            self._broken = True
            self._server.lost()
