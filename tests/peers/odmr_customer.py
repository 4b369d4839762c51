"""A customer of on-demand mail relay as RFC 2645 describes it, of the test's own.

    turn = OdmrCustomer(port, user="ship", password="secret").pull("ship.test")
    turn.answer, turn.messages, turn.end

First a client (EHLO, STARTTLS, AUTH CRAM-MD5, ATRN); after the 250 a small SMTP server that keeps what it gets.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.peers.lines import HungUp, Line, LineLost, Message, Reply, cram_md5
from tests.peers.process import LOOPBACK

HOSTNAME = "customer.test"


@dataclass(slots=True)
class CustomerTurn:
    """One connection as the customer saw it.

    `answer` is the reply to ATRN, or to whatever was refused before it. `early`: what the provider said before our
    greeting; it must wait. `end`: "quit", "hung up" where the script had us close, or how the line was lost.
    """

    transcript: list[str] = field(default_factory=list)
    offered: Mapping[str, str] = field(default_factory=dict)
    answer: Reply | None = None
    early: bytes = b""
    messages: list[Message] = field(default_factory=list)
    refused: int = 0
    end: str = ""

    @property
    def code(self) -> int:
        assert self.answer is not None, self.transcript
        return self.answer.code

    def said(self, who: str = "P") -> list[str]:
        """What one side said; "C" is the customer, "P" the provider."""
        return [line[3:] for line in self.transcript if line.startswith(f"{who}: ")]


@dataclass(slots=True)
class OdmrCustomer:
    """How it connects and what its server says.

    `tls` is "none", "starttls" or "implicit"; `context` checks the provider's certificate or does not. `extensions` are
    offered after the turn (CHUNKING is known); `old`: EHLO is answered by 502, so that HELO has to do.
    `replies` are replies in the place of ours, by command ("MAIL", "RCPT", "DATA", "." for the content), from the
    message with the number `from_message` on (0 is the first). `close_at`: "greeting", "auth", "atrn" (before them),
    "turned" (right after the 250), "EHLO", "MAIL", "RCPT", "DATA", "." (before the answer to these), of message
    `from_message`. For `quiet` seconds it does not greet after the 250, and sees whether the provider waits.
    """

    port: int
    user: str = "customer"
    password: str = "open sesame"
    tls: str = "none"
    context: ssl.SSLContext | None = None
    mechanism: str | None = "CRAM-MD5"
    extensions: Sequence[str] = ("PIPELINING", "8BITMIME", "SIZE 10000000")
    old: bool = False
    replies: Mapping[str, str] = field(default_factory=dict)
    from_message: int = 0
    close_at: str | None = None
    abruptly: bool = False
    quiet: float = 0.2
    timeout: float = 20.0

    def pull(self, *domains: str) -> CustomerTurn:
        """Connect and take what there is. Never raises on what the provider does: see the turn's `end`."""
        turn = CustomerTurn()
        try:
            connection = socket.create_connection((LOOPBACK, self.port), timeout=self.timeout)
        except ConnectionResetError as problem:  # the provider was faster than our own system
            turn.end = f"lost: {problem}"
            return turn
        with suppress(OSError):  # it may be gone already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = Line(connection, "C", "P", turn.transcript)
        abruptly = False
        try:
            if self._ask(line, turn, domains):
                self._take(line, turn)
            turn.end = "quit"
        except LineLost as problem:
            turn.end = f"lost: {problem}"
        except HungUp:
            turn.end, abruptly = "hung up", self.abruptly
        line.close(abruptly=abruptly)
        return turn

    # ------------------------------------------------------------------------------------------ client

    def _ask(self, line: Line, turn: CustomerTurn, domains: Sequence[str]) -> bool:
        """Up to the answer to ATRN; whether it is 250. A refusal ends with QUIT."""
        if self.tls == "implicit":
            self._secure(line)
        self._reach("greeting", turn)
        turn.answer = line.read_reply()
        if turn.code == 220 and self._hello(line, turn) and self._authenticate(line, turn):
            self._reach("atrn", turn)
            turn.answer = self._command(line, f"ATRN {','.join(domains)}" if domains else "ATRN")
            if turn.code == 250:
                return True
        self._command(line, "QUIT")
        return False

    def _hello(self, line: Line, turn: CustomerTurn) -> bool:
        turn.answer = self._command(line, f"EHLO {HOSTNAME}")
        turn.offered = turn.answer.keywords
        if turn.code == 250 and self.tls == "starttls":
            turn.answer = self._command(line, "STARTTLS")
            if turn.code != 220:
                return False
            self._secure(line)
            turn.answer = self._command(line, f"EHLO {HOSTNAME}")
            turn.offered = turn.answer.keywords
        return turn.code == 250

    def _authenticate(self, line: Line, turn: CustomerTurn) -> bool:
        self._reach("auth", turn)
        if self.mechanism is None:
            return True
        assert self.mechanism == "CRAM-MD5"
        turn.answer = self._command(line, "AUTH CRAM-MD5")
        if turn.code != 334:
            return False
        response = cram_md5(self.user, self.password, base64.b64decode(turn.answer.lines[0]))
        turn.answer = self._command(line, base64.b64encode(response).decode())
        return turn.code == 235

    def _secure(self, line: Line) -> None:
        context = self.context
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        line.start_tls(context, server_side=False, name="localhost")

    def _command(self, line: Line, command: str) -> Reply:
        line.write(command)
        return line.read_reply()

    def _reach(self, stage: str, turn: CustomerTurn) -> None:
        if stage == self.close_at and len(turn.messages) + turn.refused >= self.from_message:
            raise HungUp

    # ------------------------------------------------------------------------------------------ server

    def _take(self, line: Line, turn: CustomerTurn) -> None:
        """RFC 2645 section 5.3: we greet, and normal SMTP follows. Returns after QUIT."""
        self._reach("turned", turn)
        turn.early = line.heard_within(self.quiet)
        line.write(f"220 {HOSTNAME} ready to receive email")
        command, message = "", None
        while command != "QUIT":
            command, _, argument = line.read().decode("utf-8", "replace").partition(" ")
            command = command.upper()
            self._reach(command, turn)
            scripted = self._scripted(command, turn)
            if command in ("MAIL", "RCPT", "DATA") and scripted is not None:
                turn.refused += command == "MAIL"
                line.write(scripted)
            elif command in ("MAIL", "RCPT", "DATA", "BDAT"):
                message = self._transact(line, turn, message, command, argument)
            else:
                if command == "RSET":
                    message = None
                line.write(*self._answer(command))

    def _answer(self, command: str) -> list[str]:
        offers = [HOSTNAME, *self.extensions]
        answers = {
            "EHLO": [*(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}"],
            "HELO": [f"250 {HOSTNAME}"],
            "RSET": ["250 OK"],
            "NOOP": ["250 OK"],
            "QUIT": ["221 Bye"],
        }
        # RFC 2645 section 5.3 turns once: nobody needs AUTH, STARTTLS, ATRN here.
        not_here = ["502 Not here"]
        return not_here if command == "EHLO" and self.old else answers.get(command, not_here)

    def _transact(
        self, line: Line, turn: CustomerTurn, message: Message | None, command: str, argument: str
    ) -> Message | None:
        """Answer a command of a transaction, and return the message that it is about then."""
        if command == "MAIL" and message is None:
            sender, _, options = argument.partition(":")[2].strip().removeprefix("<").partition(">")
            message = Message(sender, [], b"", options)
        elif command == "RCPT" and message is not None:
            message.recipients.append(argument.partition("<")[2].partition(">")[0])
        elif command == "DATA" and message is not None and message.recipients:
            line.write("354 Go ahead")
            message.content = line.read_content()
            return self._finish(line, turn, message)
        elif command == "BDAT" and message is not None and message.recipients:
            # RFC 3030 section 2
            size, _, last = argument.partition(" ")
            message.content += line.read_octets(int(size))
            if last.upper() == "LAST":
                return self._finish(line, turn, message)
        else:
            line.write("503 Not now")
            return message
        line.write("250 OK")
        return message

    def _finish(self, line: Line, turn: CustomerTurn, message: Message) -> None:
        self._reach(".", turn)
        scripted = self._scripted(".", turn)
        if scripted is None:
            turn.messages.append(message)
        else:
            turn.refused += 1
        line.write(scripted or "250 OK, it is mine now")

    def _scripted(self, command: str, turn: CustomerTurn) -> str | None:
        return self.replies.get(command) if len(turn.messages) >= self.from_message else None
