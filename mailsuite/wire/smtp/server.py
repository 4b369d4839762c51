"""The server's core of SMTP, and of LMTP as a dialect of it (RFC 5321, RFC 2033).

It answers bad syntax and bad order by itself, so that a session sees only commands that are legal now, and it keeps
pipelining correct: after a command it is paused until `send` has answered it. What a session may see, and where an
answer leads, stands in the tables of `server_states`.

Content comes as `Content` and `ContentEnd`. DATA is a command that the session answers (354 or a refusal); a BDAT
chunk is announced by `Bdat`, which wants no answer: its `ContentEnd` does. A chunk that may not come now is swallowed
and refused here. In LMTP the end of the content wants one reply for each recipient that was accepted.

What is wrong with content, or with a line of an AUTH exchange, is for the session to refuse, since it holds what came
before: it finds the refusal in `ContentEnd.fault` or `AuthResponse.fault`.

A command that stands behind STARTTLS in the same packet is refused together with it, and the connection is closed.
What stands behind ATRN or TURN is left for whoever comes next where the answer is positive; else it is taken here.

MAIL with a TRANSID may be answered by 355 (see `checkpoint`): then the recipients are known, and content may follow.
What went before counts towards the limit of size.

A peer that gets nothing but refusals is sent away with 421.
"""

from __future__ import annotations

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
from mailsuite.wire.smtp.checkpoint import offset_of
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Helo,
    Mail,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Turn,
)
from mailsuite.wire.smtp.content import ChunkReader, DotReader
from mailsuite.wire.smtp.grammar import decode_response, parse_command
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server_states import (
    LEADS,
    LEGAL,
    TRANSACTION,
    WITH_MORE,
    WITHOUT_AUTH,
    WITHOUT_TLS,
    State,
)

_FAULTS = {LineFault.TOO_LONG: replies.LINE_TOO_LONG, LineFault.BARE_LINE_END: replies.BARE_LINE_END}


class SmtpServerCore:
    """One session's grammar and order, on the server's side. See `mailsuite.wire.core` for the contract."""

    role = Role.SERVER

    def __init__(self, offer: Offer, *, greeted: bool = False) -> None:
        """`greeted`: nobody greets again after STARTTLS (RFC 3207 section 4.2)."""
        self.offer = offer
        self._absent = offer.absent
        self._max_line = offer.line_limit
        self.state = State.INITIAL if greeted else State.CONNECTED
        self._buffer = ReceiveBuffer()
        self._eof = False
        self._paused = not greeted  # the greeting is ours to say
        self._pending: type[Event] | None = None  # what waits for its answer; None is the greeting
        self._unanswered = 1  # how many answers it wants
        self._authenticated = False
        self._parameters: frozenset[str] = frozenset()  # none after HELO
        self._smtputf8 = False
        self._accepted = 0  # recipients of this transaction
        self._reader: DotReader | ChunkReader | None = None
        self._room = -1  # octets that this transaction may still bring; below 0 there is no limit
        self._resumable = False  # MAIL has a TRANSID
        self._last = False  # whether the content that flows is the last of its message
        # A chunk that no session sees: what refuses it, how many times, and where that leads.
        self._unseen: tuple[Reply, int, State] | None = None
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
        return self._buffer.peek() if self.state is State.DONE else b""

    @property
    def buffered(self) -> int:
        """How many octets wait."""
        return len(self._buffer)

    @property
    def in_transaction(self) -> bool:
        """Whether a message is under way, from MAIL to the reply to its end."""
        return self.state in TRANSACTION or self._pending is Mail

    @property
    def content_fault(self) -> Reply | None:
        """What is wrong with the content that flows, before its end comes and tells it."""
        return None if self._reader is None else self._reader.fault

    def receive_data(self, data: bytes) -> None:
        """Take what the peer sent; empty octets say that it has ended its side."""
        if data:
            self._buffer.feed(data)
        else:
            self._eof = True

    def next_event(self) -> Event | Signal:
        """The next event, or why there is none."""
        while not self._paused:
            if self.state is State.CONTENT:
                event = self._next_content()
            elif self._errors > self.offer.max_errors:
                return self._send_away(replies.TOO_MANY_ERRORS)
            else:
                event = self._next_line()
            if event is NEED_DATA and self._eof:
                return EndOfFile()
            if event is not None:
                return event
        return PAUSED

    def send(self, reply: Reply) -> bytes:
        """Answer what is pending (the greeting first of all). 421 may be said at any time and ends the session."""
        if self.state is State.DONE:
            raise LocalProtocolError(f"{reply.code} after the end")
        if reply.code == 421:
            self.state, self._paused = State.DONE, True
            return reply.encoded
        if not self._paused:
            raise LocalProtocolError(f"{reply.code}, and nothing is to be answered")
        if not self._fits(reply):
            raise LocalProtocolError(f"{reply.code} does not answer {self._pending}")
        self._unanswered -= 1
        if not self._unanswered:
            answered, self._pending = self._pending, None
            self.state = LEADS.get((answered, reply.code // 100), self.state)
            self._paused = self.state is State.DONE
            self._answered(answered, reply)
        return reply.encoded

    def _fits(self, reply: Reply) -> bool:
        """Whether such a reply can be the answer to what is pending (RFC 5321 section 4.3.2)."""
        pending, digit = self._pending, reply.code // 100
        if pending is None:
            return reply.code in {220, 554}  # section 3.1
        if digit == 3 and pending is Mail:
            return self._resumable and offset_of(reply) is not None  # RFC 1845 section 3
        # 3yz says that more is wanted, which else only DATA and an AUTH exchange have (section 4.2.1).
        return digit in {4, 5} or (digit == 2 and pending is not Data) or (digit == 3 and pending in WITH_MORE)

    def _answered(self, answered: type[Event] | None, reply: Reply) -> None:
        """What an answer changes beside the state."""
        if reply.code >= 500:
            self._errors += 1
        if answered is ContentEnd:
            self._content_answered(reply)
        elif answered is Mail and reply.code < 400:
            self._accepted = 0
            limit = self.offer.max_size
            self._room = -1 if limit is None else max(limit - (offset_of(reply) or 0), 0)
        elif reply.code < 300:
            if answered is Rcpt:
                self._accepted += 1
            elif answered is Rset and self.state is not State.INITIAL:
                self.state = State.READY
            elif answered is Auth or answered is AuthResponse:
                self._authenticated = True
        elif answered is Data and reply.code < 400:
            self._reader = DotReader(self.offer.line_ends, None if self._room < 0 else self._room)
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

    def _next_content(self) -> Event | Signal | None:
        """The next event of the content that flows; None where it has ended and nothing is said about it."""
        reader = self._reader
        assert reader is not None
        if not reader.ended:
            content = reader.read(self._buffer)
            if content:
                return Content(content, reader.altered)
            if not reader.ended:
                return NEED_DATA
        if self._unseen is not None:
            refusal, times, self.state = self._unseen
            self._unseen = self._reader = None
            return self._refuse(refusal, times) if times else None
        return self._hand_out(ContentEnd(self._last, reader.fault), self._answers_wanted(last=self._last))

    def _answers_wanted(self, *, last: bool) -> int:
        """How many replies the end of the content wants."""
        # RFC 2033 sections 4.2 and 4.3: to the last of the content, one for each recipient.
        return self._accepted if last and self.offer.lmtp else 1

    def _begin_chunk(self, chunk: Bdat) -> Event | None:
        """Let the octets of a chunk flow: they follow, whatever is said of it (RFC 3030 section 2)."""
        refusal = self._demanded(Bdat) or self._out_of_order(Bdat)
        if refusal is not None:
            self._swallow(chunk, refusal)
            return None
        fault = None
        if self._room >= 0:
            self._room -= chunk.size
            if self._room < 0:
                fault, self._room = replies.TOO_BIG, 0
        self._reader = ChunkReader(chunk.size, fault)
        self.state, self._last = State.CONTENT, chunk.last
        return chunk

    def _swallow(self, chunk: Bdat, refusal: Reply) -> None:
        """Let a chunk pass unseen, and refuse it then. What transaction there is, is lost."""
        times, behind = 1, self.state
        if self.state in TRANSACTION:
            behind = State.BROKEN
            times = self._answers_wanted(last=chunk.last)
            if not times:
                behind = State.READY  # RFC 2033 section 4.3: no recipient, no reply; and the message was whole
        self._unseen = refusal, times, behind
        self._reader = ChunkReader(chunk.size, refusal)
        self.state = State.CONTENT

    # ----------------------------------------------------------------------------------------- lines

    def _next_line(self) -> Event | Signal | None:
        in_auth = self.state is State.AUTH
        line = self._buffer.next_line(self.offer.max_response if in_auth else self._max_line)
        if line is None:
            return NEED_DATA
        if in_auth:
            return self._hand_out(_auth_response(line))
        if isinstance(line, LineFault):
            return self._refuse(_FAULTS[line])
        command = parse_command(line, self._parameters, self._absent)
        if self.state is State.REFUSING and not isinstance(command, Quit):
            return self._refuse(replies.BAD_SEQUENCE)  # RFC 5321 section 3.1
        if isinstance(command, Reply):
            return self._refuse(command)
        kind = type(command)
        if kind is Bdat:
            assert isinstance(command, Bdat)
            return self._begin_chunk(command)
        refusal = self._demanded(kind) or self._out_of_order(kind)
        return self._take(command) if refusal is None else self._refuse(refusal)

    def _take(self, command: Command) -> Event:
        """A command that is legal now, on its way to the session."""
        match command:
            case Mail():
                if command.reverse_path is not None and not command.smtputf8 and not command.reverse_path.is_ascii:
                    return self._refuse(replies.UTF8_SENDER_NOT_ANNOUNCED)
                if command.size is not None and self.offer.max_size is not None and command.size > self.offer.max_size:
                    return self._refuse(replies.TOO_BIG)  # RFC 1870 section 6.1
                self._smtputf8 = command.smtputf8
                self._resumable = command.transid is not None
            case Rcpt():
                if not self._smtputf8 and not command.address.is_ascii:
                    return self._refuse(replies.UTF8_RECIPIENT_NOT_ANNOUNCED)
            case Ehlo():
                self._parameters = self.offer.parameters
            case Helo():
                self._parameters = frozenset()
            case StartTls() if len(self._buffer):
                # RFC 3207 section 4.2: nothing that came before the handshake may count after it.
                self._buffer.take_all()
                return self._send_away(replies.BEHIND_STARTTLS)
        return self._hand_out(command)

    def _demanded(self, kind: type[Command]) -> Reply | None:
        """The refusal where TLS or authentication must come first."""
        if self.offer.require_tls and kind not in WITHOUT_TLS:
            return replies.TLS_REQUIRED
        if self._authenticated:
            return None
        # RFC 2645 section 5.2.1: "the ATRN command MUST be rejected" with 530; TURN here is the same by another name.
        if kind is Atrn or kind is Turn or (self.offer.require_auth and kind not in WITHOUT_AUTH):
            return replies.AUTH_REQUIRED
        return None

    def _out_of_order(self, kind: type[Command]) -> Reply | None:
        """The refusal of a command that may not come now."""
        if self.state in LEGAL[kind]:
            if kind is Auth and self._authenticated:
                return replies.BAD_SEQUENCE.saying("Already authenticated")  # RFC 4954 section 4
            return None
        if self.state is State.INITIAL:
            return replies.BAD_SEQUENCE.saying("Say LHLO first" if self.offer.lmtp else "Say EHLO first")
        if self.state is State.SENDER and (kind is Data or kind is Bdat) and not self.offer.lmtp:
            return replies.NO_VALID_RECIPIENTS  # RFC 5321 section 3.3; in LMTP 503 (RFC 2033 section 4.2)
        return replies.BAD_SEQUENCE

    # ---------------------------------------------------------------------------------------- giving

    def _hand_out(self, event: Event, answers: int = 1) -> Event:
        self._pending, self._unanswered, self._paused = type(event), answers, True
        return event

    def _refuse(self, reply: Reply, times: int = 1) -> Answer:
        """Answer by ourselves."""
        self._errors += 1
        return Answer(reply.encoded * times)

    def _send_away(self, reply: Reply) -> Answer:
        """Say this last thing."""
        self.state, self._paused = State.DONE, True
        return Answer(reply.encoded, closing=True)


def _auth_response(line: bytes | LineFault) -> AuthResponse:
    """A line of an AUTH exchange, or what is wrong with it (RFC 4954 section 4)."""
    if line is LineFault.TOO_LONG:
        return AuthResponse(None, replies.AUTH_LINE_TOO_LONG)
    response = replies.BARE_LINE_END if isinstance(line, LineFault) else decode_response(line)
    return AuthResponse(None, response) if isinstance(response, Reply) else AuthResponse(response)
