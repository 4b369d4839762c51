"""A provider of on-demand mail relay as RFC 2645 describes it, of the test's own.

    with OdmrProvider(user="ship", password="secret", domains=("ship.test",)) as provider:
        provider.hold(Message("a@b.test", ["c@ship.test"], b"..."))
        ... a customer connects to provider.port ...
        provider.turns[0].taken

It knows EHLO, AUTH CRAM-MD5, STARTTLS (where it has a certificate), ATRN and QUIT, and 502 for everything else. A
message stays in `held` until the customer has said 250 to its content.
"""

from __future__ import annotations

import base64
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.peers.certificate import Certificate
from tests.peers.lines import HungUp, Line, LineLost, Message, cram_md5, stuffed
from tests.peers.process import LOOPBACK, PeerError, Server, wait_until

HOSTNAME = "provider.test"
STAGES = ("greeting", "ehlo", "starttls", "auth", "atrn", "turned", "hello", "mail", "rcpt", "data", "content", "end")


@dataclass(slots=True)
class ProviderTurn:
    """One connection as the provider saw it.

    `end`: "quit" where either side has said QUIT, "hung up" where the script had us close, or how the line was lost.
    `asked` are the domains of the ATRN, None where there was none.
    """

    transcript: list[str] = field(default_factory=list)
    secure: bool = False
    authenticated: bool = False
    asked: tuple[str, ...] | None = None
    turned: bool = False
    offered: Mapping[str, str] = field(default_factory=dict)
    taken: list[Message] = field(default_factory=list)
    refused: list[tuple[Message, str]] = field(default_factory=list)
    end: str | None = None

    def said(self, who: str = "C") -> list[str]:
        """What one side said; "C" is the customer, "P" the provider."""
        return [line[3:] for line in self.transcript if line.startswith(f"{who}: ")]


class OdmrProvider(Server):
    """Serves any number of customers' connections, each in a thread, one customer's account.

    `tls` is "none", "starttls" or "implicit". `pipelining`: send MAIL, RCPT and DATA in one write where the customer
    offers it; else one command at a time. `helo`: say HELO, as IndiMail does, instead of EHLO. `by_line`: write each
    line of a content by itself, as fetchmail needs it under TLS. `empty_turn`: a turn without mail instead of 453.
    `answers` are replies in the place of ours, by command ("ATRN": "451 Not now"). `close_at` is a stage of `STAGES` at
    which we close (at "content", in the midst of it), `abruptly` by a reset.
    """

    def __init__(
        self,
        messages: Iterable[Message] = (),
        *,
        user: str = "customer",
        password: str = "open sesame",
        domains: Sequence[str] = ("home.test",),
        certificate: Certificate | None = None,
        tls: str = "none",
        pipelining: bool = False,
        helo: bool = False,
        by_line: bool = False,
        empty_turn: bool = False,
        answers: Mapping[str, str] | None = None,
        close_at: str | None = None,
        abruptly: bool = False,
        timeout: float = 20.0,
    ) -> None:
        self.user, self.password, self.domains = user, password, tuple(domains)
        self.tls, self.pipelining, self.helo = tls, pipelining, helo
        self.by_line, self.empty_turn = by_line, empty_turn
        self.answers = dict(answers or {})
        self.close_at, self.abruptly = close_at, abruptly
        self.held = list(messages)
        self.turns: list[ProviderTurn] = []
        self._timeout = timeout
        self._context: ssl.SSLContext | None = None
        if tls != "none":
            assert certificate is not None
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate.chain, certificate.key)
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def hold(self, *messages: Message) -> None:
        """Have more mail for the customer."""
        with self._lock:
            self.held += messages

    def start(self) -> None:
        self._run(self._accept)

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(self._timeout + 5.0)
        self._listener.close()
        if any(thread.is_alive() for thread in self._threads):
            raise PeerError("the provider does not end")

    def wait_for_turn(self, count: int = 1, *, timeout: float = 20.0) -> ProviderTurn:
        """The latest connection, when so many have ended. Raises `AssertionError`."""

        def ended() -> list[ProviderTurn]:
            return [turn for turn in self.turns if turn.end is not None]

        wait_until(lambda: len(ended()) >= count, timeout=timeout, why=lambda: str(self.turns))
        return ended()[-1]

    # ----------------------------------------------------------------------------------- its connections

    def _run(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending.is_set():
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(self._timeout)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                turn = ProviderTurn()
                self.turns.append(turn)
                self._run(self._serve, Line(connection, "P", "C", turn.transcript), turn)

    def _serve(self, line: Line, turn: ProviderTurn) -> None:
        abruptly = False
        try:
            if self.tls == "implicit":
                self._secure(line, turn)
            self._converse(line, turn)
            end = "quit"
        except LineLost as problem:
            end = f"lost: {problem}"
        except HungUp:
            end, abruptly = "hung up", self.abruptly
        line.close(abruptly=abruptly)
        turn.end = end

    def _reach(self, stage: str) -> None:
        if stage == self.close_at:
            raise HungUp

    def _secure(self, line: Line, turn: ProviderTurn) -> None:
        assert self._context is not None
        line.start_tls(self._context, server_side=True)
        turn.secure = True

    def _converse(self, line: Line, turn: ProviderTurn) -> None:
        """RFC 2645 section 5: initial and authenticated state; returns after QUIT, of either side."""
        self._reach("greeting")
        line.write(self.answers.get("", f"220 {HOSTNAME} on-demand mail relay"))
        while True:
            command, _, argument = line.read().decode().partition(" ")
            command = command.upper()
            if command in ("STARTTLS", "AUTH", "ATRN", "EHLO"):
                self._reach(command.lower())
            if command in self.answers:
                line.write(self.answers[command])
            elif command == "EHLO":
                self._greet(line, turn)
            elif command == "STARTTLS" and self.tls == "starttls" and not turn.secure:
                line.write("220 Go ahead")
                self._secure(line, turn)
            elif command == "AUTH":
                self._authenticate(line, turn, argument)
            elif command == "ATRN":
                if self._may_turn(line, turn, argument):
                    turn.turned = True
                    self._send_all(line, turn)
                    return
            elif command == "QUIT":
                line.write("221 Bye")
                return
            else:
                line.write("502 Only EHLO, AUTH, ATRN and QUIT here")  # RFC 2645 section 5.4

    def _greet(self, line: Line, turn: ProviderTurn) -> None:
        more = ["250-STARTTLS"] if self.tls == "starttls" and not turn.secure else []
        line.write(f"250-{HOSTNAME}", *more, "250-AUTH CRAM-MD5", "250 ATRN")  # RFC 2645 section 5.1.1

    def _authenticate(self, line: Line, turn: ProviderTurn, argument: str) -> None:
        if argument.upper() != "CRAM-MD5":
            line.write("504 CRAM-MD5 only")
            return
        challenge = f"<{secrets.token_hex(8)}.{int(time.time())}@{HOSTNAME}>".encode()
        line.write(f"334 {base64.b64encode(challenge).decode()}")
        response = base64.b64decode(line.read())
        turn.authenticated = response == cram_md5(self.user, self.password, challenge)
        line.write("235 Authenticated" if turn.authenticated else "535 Wrong user or password")

    def _may_turn(self, line: Line, turn: ProviderTurn, argument: str) -> bool:
        """RFC 2645 section 5.2.1, with the reply."""
        turn.asked = tuple(argument.lower().split(",")) if argument else ()
        waits = bool(self._waiting(turn.asked or self.domains))
        if not turn.authenticated:
            line.write("530 Authentication required")
        elif not set(turn.asked) <= set(self.domains):
            line.write("450 ATRN request refused: not your domain")
        elif not waits and not self.empty_turn:
            line.write("453 You have no mail")
        else:
            line.write("250 OK now reversing the connection")
            return True
        return False

    def _waiting(self, domains: Iterable[str]) -> list[Message]:
        with self._lock:
            return [message for message in self.held if message.domains & set(domains)]

    # ----------------------------------------------------------------------------------- reversed state

    def _send_all(self, line: Line, turn: ProviderTurn) -> None:
        """RFC 2645 section 5.3."""
        self._reach("turned")
        self._expect(line, 220)
        self._reach("hello")
        line.write(f"{'HELO' if self.helo else 'EHLO'} {HOSTNAME}")
        turn.offered = self._expect(line, 250).keywords
        pipelining = self.pipelining and "PIPELINING" in turn.offered
        for message in self._waiting(turn.asked or self.domains):
            refusal = self._send(line, message, pipelining=pipelining)
            if refusal is None:
                turn.taken.append(message)
                with self._lock:
                    self.held.remove(message)
            else:
                turn.refused.append((message, refusal))
        line.write("QUIT")
        self._expect(line, 221)

    def _send(self, line: Line, message: Message, *, pipelining: bool) -> str | None:
        """One transaction; returns the refusal, if there is one."""
        commands = {
            "mail": [f"MAIL FROM:<{message.sender}>{message.options}"],
            "rcpt": [f"RCPT TO:<{recipient}>" for recipient in message.recipients],
            "data": ["DATA"],
        }
        if pipelining:
            line.write(*(command for group in commands.values() for command in group))
        for stage, group in commands.items():
            self._reach(stage)
            for command in group:
                if not pipelining:
                    line.write(command)
                reply = line.read_reply()
                if reply.code >= 400:
                    self._drain(line, commands, command, pipelining=pipelining)
                    return str(reply)
        content = stuffed(message.content)
        if self.close_at == "content":
            line.write_octets(content[: len(content) // 2])
            raise HungUp
        for octets in content.splitlines(keepends=True) if self.by_line else [content]:
            line.write_octets(octets)
        self._reach("end")
        reply = line.read_reply()
        return None if reply.code == 250 else str(reply)

    def _drain(self, line: Line, commands: Mapping[str, Sequence[str]], refused: str, *, pipelining: bool) -> None:
        """Go on to a state in which the next MAIL is right."""
        every = [command for group in commands.values() for command in group]
        if pipelining:
            replies = [line.read_reply() for _ in every[every.index(refused) + 1 :]]
            if replies and replies[-1].code == 354:
                line.write(".")
                line.read_reply()
        line.write("RSET")
        self._expect(line, 250)

    def _expect(self, line: Line, code: int) -> object:
        reply = line.read_reply()
        if reply.code != code:
            raise LineLost(f"{reply} instead of {code}")
        return reply
