"""The server's core of SMTP, and of LMTP as a dialect of it (RFC 5321, RFC 2033).

It answers bad syntax and bad order by itself, so that a session sees only commands that are legal now, and it keeps
pipelining correct: after a command it is paused until `send` has answered it. What a session may see is the
table `LEGAL`; where an answer leads is the table `LEADS`.

Content comes as `Content` and `ContentEnd`. DATA is a command that the session answers (354 or a refusal); a BDAT chunk is
announced by `Bdat`, which wants no answer: its `ContentEnd` does. In LMTP the end of the content wants one reply for
each recipient that was accepted.

A command that stands behind STARTTLS in the same packet is refused together with it, and the connection is closed.
"""

from __future__ import annotations

from enum import Enum, auto

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.buffer import LineFault, ReceiveBuffer
from mailsuite.wire.core import (
    NEED_DATA,
    PAUSED,
    Answer,
    EndOfFile,
    Event,
    LocalProtocolError,
    Phase,
    Role,
    Signal,
)
from mailsuite.wire.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from mailsuite.wire.smtp.content import ChunkReader, DotReader
from mailsuite.wire.smtp.grammar import decode_response, parse_command
from mailsuite.wire.smtp.offer import Offer


class State(Enum):
    """Where the conversation is."""

    CONNECTED = auto()  # the greeting is not said yet
    REFUSING = auto()  # the greeting was 554: only QUIT is left (RFC 5321 section 3.1)
    INITIAL = auto()  # greeted, no EHLO or HELO yet
    READY = auto()
    SENDER = auto()  # MAIL was accepted
    RECIPIENTS = auto()  # so was a recipient
    CONTENT = auto()  # the content flows, by DATA or in a chunk
    CHUNKS = auto()  # between two BDAT chunks
    BROKEN = auto()  # a chunk was refused: only RSET and what implies it help (RFC 3030 section 2)
    AUTH = auto()  # within an AUTH exchange
    DONE = auto()  # closed, or handed over


_OPEN = frozenset(
    {State.INITIAL, State.READY, State.SENDER, State.RECIPIENTS, State.CHUNKS, State.BROKEN},
)
_TRANSACTION = frozenset({State.SENDER, State.RECIPIENTS, State.CONTENT, State.CHUNKS, State.BROKEN})
_WITH_MORE: tuple[type[Event], ...] = (Data, Auth, AuthResponse)

LEGAL: dict[type[Command], frozenset[State]] = {
    Ehlo: _OPEN,
    Helo: _OPEN,
    Mail: frozenset({State.READY}),
    Rcpt: frozenset({State.SENDER, State.RECIPIENTS}),
    Data: frozenset({State.RECIPIENTS}),
    Bdat: frozenset({State.RECIPIENTS, State.CHUNKS}),
    Rset: _OPEN,
    Noop: _OPEN,
    Help: _OPEN,
    Vrfy: _OPEN,
    Quit: _OPEN | {State.REFUSING},
    StartTls: frozenset({State.READY}),  # RFC 3207 section 4: after EHLO, outside a transaction
    Auth: frozenset({State.READY}),  # RFC 4954 section 4: never within a transaction
}
"""In which states a session may see a command; elsewhere it is answered 503."""

LEADS: dict[tuple[type[Event] | None, int], State] = {
    # (what was answered, first digit of the answer): where that leads. What is not listed leads nowhere else.
    (None, 2): State.INITIAL,  # the greeting
    (None, 5): State.REFUSING,
    (Ehlo, 2): State.READY,
    (Helo, 2): State.READY,
    (Mail, 2): State.SENDER,
    (Rcpt, 2): State.RECIPIENTS,
    (Data, 3): State.CONTENT,
    (Auth, 3): State.AUTH,
    (Auth, 2): State.READY,
    (AuthResponse, 3): State.AUTH,
    (AuthResponse, 2): State.READY,
    (AuthResponse, 4): State.READY,
    (AuthResponse, 5): State.READY,
    (StartTls, 2): State.DONE,
    (Quit, 2): State.DONE,
}

_WITHOUT_TLS = (Ehlo, Helo, StartTls, Noop, Quit, Rset)  # RFC 3207 section 4
_WITHOUT_AUTH = (Ehlo, Helo, StartTls, Auth, Noop, Quit, Rset, Help)  # RFC 4954 section 6

_FAULTS = {LineFault.TOO_LONG: replies.LINE_TOO_LONG, LineFault.BARE_LINE_END: replies.BARE_LINE_END}


class SmtpServerCore:
    """One session's grammar and order, on the server's side. See `mailsuite.wire.core` for the contract."""

    role = Role.SERVER

    def __init__(self, offer: Offer, *, greeted: bool = False) -> None:
        """`greeted`: nobody greets again after STARTTLS (RFC 3207 section 4.2)."""
        self.offer = offer
        self.state = State.INITIAL if greeted else State.CONNECTED
        self._buffer = ReceiveBuffer()
        self._eof = False
        self._paused = not greeted  # the greeting is ours to say
        self._pending: type[Event] | None = None  # what waits for its answer; None is the greeting
        self._unanswered = 1  # how many answers it wants
        self._authenticated = False
        self._mail_parameters: frozenset[str] = frozenset()  # none after HELO
        self._smtputf8 = False
        self._accepted = 0  # recipients of this transaction
        self._reader: DotReader | ChunkReader | None = None
        self._chunk_room = 0  # octets that chunks of this transaction may still bring
        self._last = False  # whether the content that flows is the last of its message
        self._unseen: tuple[Reply | None, State] | None = None  # of a chunk that no session sees: answer and next state
        self._errors = 0

    # ---------------------------------------------------------------------------------- the contract

    @property
    def timeout(self) -> Phase:
        """The limit that applies to the present wait (RFC 5321 section 4.5.3.2)."""
        if self._paused:
            return Phase.WORKING
        return Phase.DATA_BLOCK if self.state is State.CONTENT else Phase.COMMAND

    @property
    def trailing_data(self) -> bytes:
        """What came and was not parsed, once the core is done."""
        return self._buffer.take_all() if self.state is State.DONE else b""

    @property
    def buffered(self) -> int:
        """How many octets wait."""
        return len(self._buffer)

    @property
    def in_transaction(self) -> bool:
        """Whether a message is under way, from MAIL to the reply to its end."""
        return self.state in _TRANSACTION or self._pending is Mail

    def receive_data(self, data: bytes) -> None:
        """Take what the peer sent; empty octets say that it has ended its side."""
        if data:
            self._buffer.feed(data)
        else:
            self._eof = True

    def next_event(self) -> Event | Signal:
        """The next event, or why there is none."""
        if self._paused:
            return PAUSED
        event = self._next_content() if self.state is State.CONTENT else self._next_line()
        if event is NEED_DATA and self._eof:
            return EndOfFile()
        return event

    def send(self, reply: Reply) -> bytes:
        """Answer what is pending (the greeting first of all). 421 may be said at any time and ends the session."""
        if self.state is State.DONE:
            raise LocalProtocolError(f"{reply.code} after the end")
        if reply.code == 421:
            self.state, self._paused = State.DONE, True
            return reply.encoded
        if not self._paused:
            raise LocalProtocolError(f"{reply.code}, and nothing is to be answered")
        # 3yz says that more is wanted: only DATA and an AUTH exchange have more (RFC 5321 section 4.2.1).
        if reply.is_intermediate and self._pending not in _WITH_MORE:
            raise LocalProtocolError(f"{reply.code} does not answer {self._pending}")
        self._unanswered -= 1
        if not self._unanswered:
            answered, self._pending = self._pending, None
            self.state = LEADS.get((answered, reply.code // 100), self.state)
            self._paused = self.state is State.DONE
            self._answered(answered, reply)
        return reply.encoded

    def _answered(self, answered: type[Event] | None, reply: Reply) -> None:
        """What an answer changes beside the state."""
        if reply.is_permanent:
            self._errors += 1
        if answered is ContentEnd:
            self._content_answered(reply)
        elif reply.is_positive:
            if answered is Rcpt:
                self._accepted += 1
            elif answered is Mail:
                self._accepted = 0
                self._chunk_room = -1 if self.offer.max_size is None else self.offer.max_size
            elif answered is Rset and self.state is not State.INITIAL:
                self.state = State.READY
            elif answered in (Auth, AuthResponse):
                self._authenticated = True
        elif answered is Data and reply.is_intermediate:
            self._reader = DotReader(self.offer.line_ends, self.offer.max_size)
            self._last = True

    def _content_answered(self, reply: Reply) -> None:
        self._reader = None
        if not self._last:
            # RFC 3030 section 2: after a chunk that failed the transaction is lost.
            self.state = State.CHUNKS if reply.is_positive else State.BROKEN
            return
        self.state = State.READY
        if reply.is_positive:
            self._errors = 0

    # --------------------------------------------------------------------------------------- content

    def _next_content(self) -> Event | Signal:
        reader = self._reader
        assert reader is not None
        if not reader.ended:
            content = reader.read(self._buffer)
            if content:
                return Content(content)
            if not reader.ended:
                return NEED_DATA
        if self._unseen is not None:
            (reply, self.state), self._unseen, self._reader = self._unseen, None, None
            return self._next_line() if reply is None else self._refuse(reply)
        # RFC 2033 sections 4.2 and 4.3: one reply for each recipient to the last of the content.
        return self._hand_out(
            ContentEnd(self._last, reader.fault),
            answers=self._accepted if self.offer.lmtp and self._last else 1,
        )

    def _begin_chunk(self, chunk: Bdat) -> Event | Signal:
        refusal = self._out_of_order(chunk)
        fault = refusal
        if fault is None and self._chunk_room >= 0:
            self._chunk_room -= chunk.size
            if self._chunk_room < 0:
                fault, self._chunk_room = replies.TOO_BIG, 0
        self._reader = ChunkReader(chunk.size, fault)
        # The octets of a chunk follow, whatever is said of it (RFC 3030 section 2).
        if refusal is not None:
            behind = State.BROKEN if self.state in _TRANSACTION else self.state
            # RFC 2033 section 4.3: without a recipient there is no reply to the last chunk.
            silent = self.offer.lmtp and chunk.last and self.state is State.SENDER
            self.state, self._unseen = State.CONTENT, (None if silent else refusal, behind)
            return self._next_content()
        self.state, self._last = State.CONTENT, chunk.last
        return chunk

    # ----------------------------------------------------------------------------------------- lines

    def _next_line(self) -> Event | Signal:
        in_auth = self.state is State.AUTH
        line = self._buffer.next_line(self.offer.max_response if in_auth else self.offer.max_line)
        if line is None:
            return NEED_DATA
        if in_auth:
            return self._auth_response(line)
        if isinstance(line, LineFault):
            return self._refuse(_FAULTS[line])
        command = parse_command(line, self._mail_parameters)
        if isinstance(command, Reply):
            return self._refuse(command)
        if type(command) is Bdat and self.offer.chunking and not self._demanded(command):
            return self._begin_chunk(command)
        refusal = self._unknown(command) or self._demanded(command) or self._out_of_order(command)
        if refusal is not None:
            return self._refuse(refusal)
        return self._take(command)

    def _take(self, command: Command) -> Event:
        """A command that is legal now, on its way to the session."""
        kind = type(command)
        if kind is Mail:
            mail = command
            assert isinstance(mail, Mail)
            if mail.reverse_path is not None and not mail.reverse_path.is_ascii and not mail.smtputf8:
                return self._refuse(replies.UTF8_NOT_ANNOUNCED)
            if mail.size is not None and self.offer.max_size is not None and mail.size > self.offer.max_size:
                return self._refuse(replies.TOO_BIG)  # RFC 1870 section 6.1
            self._smtputf8 = mail.smtputf8
        elif kind is Rcpt:
            assert isinstance(command, Rcpt)
            if not command.address.is_ascii and not self._smtputf8:
                return self._refuse(replies.UTF8_NOT_ANNOUNCED)
        elif kind is Ehlo:
            self._mail_parameters = self.offer.mail_parameters
        elif kind is Helo:
            self._mail_parameters = frozenset()
        elif kind is StartTls and len(self._buffer):
            # RFC 3207 section 4.2: nothing that came before the handshake may count after it.
            self.state, self._paused = State.DONE, True
            self._buffer.take_all()
            return Answer(replies.BEHIND_STARTTLS.encoded, closing=True)
        return self._hand_out(command)

    def _auth_response(self, line: bytes | LineFault) -> Event:
        if isinstance(line, LineFault):
            self.state = State.READY
            return self._refuse(replies.AUTH_LINE_TOO_LONG if line is LineFault.TOO_LONG else _FAULTS[line])
        response = decode_response(line)
        if isinstance(response, Reply):
            self.state = State.READY
            return self._refuse(response)
        return self._hand_out(AuthResponse(response))

    def _unknown(self, command: Command) -> Reply | None:
        """The refusal of a command that this server does not have."""
        kind = type(command)
        offer = self.offer
        if kind is Ehlo or kind is Helo:
            # RFC 2033 section 4.1: LHLO instead of HELO and EHLO, and the other way round.
            wanted = kind is Ehlo and getattr(command, "lmtp", False) is offer.lmtp
            return None if wanted or (kind is Helo and not offer.lmtp) else replies.UNRECOGNIZED
        missing = (
            (kind is StartTls and not offer.starttls)
            or (kind is Auth and not (offer.mechanisms or offer.require_auth))
            or (kind is Bdat and not offer.chunking)
        )
        return replies.NOT_IMPLEMENTED if missing else None

    def _demanded(self, command: Command) -> Reply | None:
        """The refusal where TLS or authentication must come first."""
        if self.offer.require_tls and not isinstance(command, _WITHOUT_TLS):
            return replies.TLS_REQUIRED
        if self.offer.require_auth and not self._authenticated and not isinstance(command, _WITHOUT_AUTH):
            return replies.AUTH_REQUIRED
        return None

    def _out_of_order(self, command: Command) -> Reply | None:
        """The refusal of a command that may not come now."""
        if self.state in LEGAL[type(command)]:
            if type(command) is Auth and self._authenticated:
                return replies.BAD_SEQUENCE.saying("Already authenticated")  # RFC 4954 section 4
            return None
        if self.state is State.REFUSING:
            return replies.BAD_SEQUENCE
        if self.state is State.INITIAL:
            return replies.BAD_SEQUENCE.saying("Say LHLO first" if self.offer.lmtp else "Say EHLO first")
        if self.state is State.SENDER and isinstance(command, Data | Bdat):
            return replies.NO_VALID_RECIPIENTS  # RFC 5321 section 3.3
        return replies.BAD_SEQUENCE

    # ---------------------------------------------------------------------------------------- giving

    def _hand_out(self, event: Event, answers: int = 1) -> Event:
        self._pending, self._unanswered, self._paused = type(event), answers, True
        return event

    def _refuse(self, reply: Reply) -> Answer:
        """Answer by ourselves; a peer that does nothing but err is sent away."""
        self._errors += 1
        if self._errors > self.offer.max_errors:
            self.state, self._paused = State.DONE, True
            return Answer(reply.encoded + replies.TOO_MANY_ERRORS.encoded, closing=True)
        return Answer(reply.encoded)
