"""The client's core of SMTP, and of LMTP as a dialect of it (RFC 5321, RFC 2033).

It says commands, keeps count of them, and gives each reply to the command that it answers: `Replied`, in the order
in which they were said, "by counting each separate response" (RFC 2920 section 3.1). What may be said when stands in
the tables of `client_states`; a command that the server has not offered, or that may not be said yet, is a
`LocalProtocolError`.

Content comes behind a 354 or behind a `Bdat`: `Content` in chunks, then `ContentEnd`, which is what the server
answers, after a BDAT chunk as well. In LMTP the end of the content gets one `Replied` for each recipient that was
accepted.

A MAIL with a TRANSID may be answered by 355 (RFC 1845): `checkpoint.offset_of` its reply is where the content is to be
taken up. Whoever says BDAT before that answer must know what the octets come to if it is a 355. After a positive answer
to ATRN or TURN the core is done, as after STARTTLS: what comes then stands in `trailing_data`, for the server that we
are from there on.

A negative reply may come while content is still being said. In DATA the connection can then only be closed: what is
said of the content from there on goes nowhere. A BDAT chunk is said to its end.

Whatever a server sends that is no reply, or a reply that answers nothing, is a `Violation`, and the core reads no more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mailsuite.mail.envelope import Body
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import (
    NEED_DATA,
    PAUSED,
    EndOfFile,
    Event,
    LocalProtocolError,
    Phase,
    RemoteProtocolError,
    Role,
    Signal,
    Violation,
)
from mailsuite.wire.smtp.capabilities import Capabilities
from mailsuite.wire.smtp.checkpoint import is_transid, offset_of
from mailsuite.wire.smtp.client_states import (
    ENDS_GROUP,
    KINDS,
    LEADS,
    LEGAL,
    PHASES,
    Kind,
    State,
    expected,
    needed_keywords,
)
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Mail,
    Quit,
    Rcpt,
    Rset,
)
from mailsuite.wire.smtp.nodes import parse_domains, parse_node
from mailsuite.wire.smtp.response import ReplyLimits, ReplyReader
from mailsuite.wire.smtp.stuffing import DotStuffer

_OVER = frozenset({State.CLOSING, State.DONE, State.REFUSED})


@dataclass(frozen=True, slots=True)
class Greeting(Event):
    """What the server said first; no enhanced status is read out of a positive one."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Replied(Event):
    """The reply to one command; `command` is what was given to `send`."""

    command: Command | ContentEnd
    reply: Reply


@dataclass(frozen=True, slots=True)
class Closing(Event):
    """A 421 that answers nothing: the server ends the connection on its own account (RFC 5321 section 3.8)."""

    reply: Reply


@dataclass(frozen=True, slots=True, eq=False)
class _Awaited:
    """Something that was said and has not been answered."""

    said: Command | ContentEnd
    kind: Kind


class _Data:
    """Content on its way out behind a 354."""

    def __init__(self, awaited: _Awaited) -> None:
        self.awaited = awaited
        self.cut = False
        self._stuffer = DotStuffer()
        self.say = self._stuffer.stuff
        self.end = self._stuffer.finish


class _Chunk:
    """Content on its way out behind a BDAT."""

    def __init__(self, awaited: _Awaited, size: int) -> None:
        self.awaited = awaited
        self.cut = False
        self._left = size

    def say(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise LocalProtocolError("more content than the BDAT command announced")
        return data

    def end(self) -> bytes:
        if self._left:
            raise LocalProtocolError(f"{self._left} octets less content than the BDAT command announced")
        return b""


class SmtpClientCore:
    """One connection's grammar and order, on the client's side. See `mailsuite.wire.core` for the contract.

    `state` is what replies have confirmed; `capabilities` are those of the last positive answer to EHLO or LHLO;
    `authenticated` says that AUTH has succeeded.
    """

    role = Role.CLIENT

    def __init__(self, *, lmtp: bool = False, greeted: bool = False, limits: ReplyLimits | None = None) -> None:
        """`greeted`: nobody greets again after STARTTLS (RFC 3207 section 4.2)."""
        self.lmtp = lmtp
        self.state = State.INITIAL if greeted else State.CONNECTED
        self.capabilities = Capabilities()
        self._replies = ReplyReader(limits or ReplyLimits())
        self._eof = False
        self._failed = False
        self._awaited: deque[_Awaited] = deque()
        self._spoken: State | None = None  # the state that we speak in, where it is known
        self._outgoing: _Data | _Chunk | None = None
        self._accepted = 0  # recipients of this transaction, as confirmed
        self._answered = 0  # replies that the oldest of `_awaited` has got
        self.authenticated = False
        self._mail: Mail | None = None  # the last that was said

    # ---------------------------------------------------------------------------------- the contract

    @property
    def timeout(self) -> Phase:
        """The limit that applies to the present wait: that of the oldest command without an answer."""
        if self.state is State.CONNECTED:
            return Phase.GREETING
        oldest = self._oldest()
        if self._outgoing is not None and oldest in (None, self._outgoing.awaited):
            return Phase.DATA_BLOCK
        return Phase.WORKING if oldest is None else PHASES.get(oldest.kind, Phase.RESPONSE)

    @property
    def trailing_data(self) -> bytes:
        """What came behind a positive reply to STARTTLS, ATRN or TURN, and was not parsed."""
        return self._replies.peek() if self.state is State.DONE else b""

    @property
    def buffered(self) -> int:
        """How many octets wait."""
        return len(self._replies)

    @property
    def outstanding(self) -> int:
        """How many commands have not been answered."""
        self._oldest()
        return len(self._awaited)

    @property
    def over(self) -> bool:
        """Whether nothing more can be said, but QUIT after a negative greeting."""
        return self.state in _OVER

    def receive_data(self, data: bytes) -> None:
        """Take what the peer sent; empty octets say that it has ended its side."""
        if not data:
            self._eof = True
        elif not self._failed:
            self._replies.feed(data)

    def next_event(self) -> Event | Signal:
        """The next event, or why there is none."""
        if self._failed or self.state is State.DONE:
            return PAUSED
        oldest = self._oldest()
        if oldest is None and self.state is State.CLOSING:
            self._replies.take_all()  # whatever it says behind its farewell
            return EndOfFile() if self._eof else NEED_DATA
        plain = oldest is not None and oldest.kind is not Kind.HELLO
        try:
            reply = self._replies.next_reply(status_in_positive=plain)
        except RemoteProtocolError as error:
            return self._violation(str(error))
        if reply is None:
            return EndOfFile() if self._eof else NEED_DATA
        if self.state is State.CONNECTED:
            return self._greet(reply)
        return self._take(oldest, reply)

    def send(self, message: Command | Content | ContentEnd) -> bytes:
        """Say a `Command`, `Content` or `ContentEnd`. Raises `LocalProtocolError` where it may not be said now."""
        if isinstance(message, Content):
            return self._say_content(message.data)
        if isinstance(message, ContentEnd):
            return self._say_end(message)
        return self._say(message)

    # ---------------------------------------------------------------------------------------- saying

    def _say(self, command: Command) -> bytes:
        kind = type(command)
        if kind not in KINDS:
            raise LocalProtocolError(f"{command!r} is nothing that a client says")
        if self._outgoing is not None:
            raise LocalProtocolError(f"{kind.verb} within the content")
        if self._spoken is None:
            self._spoken = expected(self.state, (awaited.kind for awaited in self._awaited))
        if self._spoken not in LEGAL[kind]:
            raise LocalProtocolError(f"{kind.verb} in {self._spoken}")
        if self._awaited and (not self.capabilities.pipelining or type(self._awaited[-1].said) in ENDS_GROUP):
            # RFC 2920 section 3.1
            raise LocalProtocolError(f"{kind.verb} before the answer to {_name(self._awaited[-1].said)}")
        line = command.line()
        self._check(command, line)
        if isinstance(command, Bdat):
            end = ContentEnd(command.last)
            # RFC 2033 section 4.3: the last chunk is answered for each recipient; that is no refusal of the chunk.
            last = Kind.CONTENT if self.lmtp else Kind.LAST_CHUNK
            awaited = _Awaited(end, last if command.last else Kind.CHUNK)
            self._outgoing = _Chunk(awaited, command.size)
        else:
            awaited = _Awaited(command, KINDS[kind])
            if isinstance(command, Mail):
                self._mail = command
                if command.transid is not None:
                    awaited = _Awaited(command, Kind.CHECKPOINTED_MAIL)
        self._awaited.append(awaited)
        self._spoken = expected(self._spoken, (awaited.kind,))
        return line

    def _say_content(self, data: bytes) -> bytes:
        if self._outgoing is None:
            raise LocalProtocolError("content before a 354 or BDAT")
        return b"" if self._outgoing.cut else self._outgoing.say(data)

    def _say_end(self, end: ContentEnd) -> bytes:
        outgoing = self._outgoing
        if outgoing is None:
            raise LocalProtocolError("the end of content that was not begun")
        if outgoing.awaited.said != end:
            raise LocalProtocolError(f"{end} where {outgoing.awaited.said} was announced")
        octets = b"" if outgoing.cut else outgoing.end()
        self._outgoing = None
        return octets

    def _check(self, command: Command, line: bytes) -> None:
        """Refuse to say what this server has not offered, and what is no line."""
        kind = type(command)
        if kind is Rset or kind is Quit:
            return
        if line.find(b"\r") != len(line) - 2 or line.find(b"\n") != len(line) - 1 or b"\0" in line:
            raise LocalProtocolError(f"{command.verb} with a line end within")
        for keyword in needed_keywords(command):
            if not self.capabilities.offers(keyword):
                raise LocalProtocolError(f"{command.verb} needs {keyword}")
        mail = command if isinstance(command, Mail) else self._mail
        if not line.isascii() and not (mail is not None and mail.smtputf8):
            raise LocalProtocolError(f"{command.verb} needs SMTPUTF8")  # RFC 6531 section 3.4
        # RFC 2033 section 4.1: LHLO takes the place of both EHLO and HELO.
        if (kind is Ehlo or kind is Helo) and getattr(command, "lmtp", False) is not self.lmtp:
            raise LocalProtocolError(f"{command!r} in the other dialect")
        # RFC 3030 section 3: binary content has no lines, so only BDAT can carry it.
        if kind is Data and mail is not None and mail.body is Body.BINARY:
            raise LocalProtocolError("DATA with BODY=BINARYMIME")
        if kind is Auth and self.authenticated:
            raise LocalProtocolError("AUTH a second time")  # RFC 4954 section 4
        if kind is not Rcpt:
            self._check_names(command)

    def _check_names(self, command: Command) -> None:
        """Refuse to say what no server could read."""
        match command:
            case Mail(transid=str() as transid) if self.lmtp or not is_transid(transid):
                # Nobody could tell how many replies a transaction that is resumed would have in LMTP.
                raise LocalProtocolError(f"TRANSID=<{transid}>")
            case Etrn(node=node) if parse_node(node) is None:
                raise LocalProtocolError(f"ETRN {node!r}")
            case Atrn(domains=(_, *_) as domains) if parse_domains(",".join(domains)) is None:
                raise LocalProtocolError(f"ATRN {domains!r}")

    # --------------------------------------------------------------------------------------- hearing

    def _greet(self, reply: Reply) -> Event:
        if reply.is_intermediate:
            return self._violation(f"greeted by {reply.code}")
        # RFC 5321 section 3.1: after 554 the server waits for QUIT.
        self.state = State.INITIAL if reply.is_positive else State.REFUSED
        if reply.code == 421:
            self.state = State.CLOSING
        return Greeting(reply)

    def _take(self, oldest: _Awaited | None, reply: Reply) -> Event:
        digit = reply.code // 100
        if oldest is None:
            if reply.code != 421:
                return self._violation(f"{reply.code} answers nothing")
            self._close()
            return Closing(reply)
        leads = LEADS[oldest.kind]
        if digit not in leads:
            # RFC 5321 section 4.2.1: what another class of reply would mean here nobody knows.
            return self._violation(f"{reply.code} cannot answer {_name(oldest.said)}")
        outgoing = self._outgoing
        early = outgoing is not None and outgoing.awaited is oldest
        if early and digit == 2:
            return self._violation("the content was accepted before its end")
        if self.state is not State.CLOSING:
            self.state = leads[digit] or self.state
        self._spoken = None
        self._answered += 1
        if not self.lmtp or self._answered >= self._wanted(oldest):
            self._awaited.popleft()
            self._answered = 0
        if reply.code == 421 or (early and isinstance(outgoing, _Data)):
            self._close()
        elif (wrong := self._note(oldest, reply)) is not None:
            return self._violation(wrong)
        return Replied(oldest.said, reply)

    def _note(self, answered: _Awaited, reply: Reply) -> str | None:
        """What a reply changes beside the state. Gives what is wrong where it makes no sense."""
        digit = reply.code // 100
        if digit == 3:
            if answered.kind is Kind.DATA:
                if self.lmtp and not self._accepted:
                    # RFC 2033 section 4.2: "the DATA command MUST fail", and nothing would end it
                    return "354 without a recipient"
                awaited = _Awaited(ContentEnd(), Kind.CONTENT)
                self._outgoing = _Data(awaited)
                self._awaited.append(awaited)
            elif answered.kind is Kind.CHECKPOINTED_MAIL and offset_of(reply) is None:
                return f"{reply.code} without an offset answers MAIL"  # RFC 1845 section 3
        elif digit == 2:
            if answered.kind is Kind.RCPT:
                self._accepted += 1
            elif answered.kind in (Kind.MAIL, Kind.CHECKPOINTED_MAIL, Kind.RSET):
                self._accepted = 0
            elif answered.kind is Kind.HELLO:
                ehlo = type(answered.said) is Ehlo
                self.capabilities = Capabilities.of_reply(reply) if ehlo else Capabilities()
            elif answered.kind is Kind.AUTH:
                self.authenticated = True
        return None

    def _wanted(self, awaited: _Awaited) -> int:
        # RFC 2033 section 4.2: "one reply for each previously successful RCPT command".
        return self._accepted if self.lmtp and awaited.kind is Kind.CONTENT else 1

    def _oldest(self) -> _Awaited | None:
        """What the next reply answers."""
        while self._awaited:
            oldest = self._awaited[0]
            if not self.lmtp or self._wanted(oldest):
                return oldest
            # RFC 2033 section 4.3: without a recipient the last chunk gets no reply.
            self._awaited.popleft()
            self.state, self._spoken = State.READY, None
        return None

    def _close(self) -> None:
        self.state, self._spoken = State.CLOSING, None
        if self._outgoing is not None:
            self._outgoing.cut = True

    def _violation(self, reason: str) -> Violation:
        self._failed = True
        self._close()
        self._replies.take_all()
        return Violation(reason)


def _name(said: Command | ContentEnd) -> str:
    return "the content" if isinstance(said, ContentEnd) else said.verb
