"""Runs a dialogue, a text with lines `S: ...` and `C: ...`, against the client's core.

Each `C:` line is turned into the command that it spells, and what the core makes of that must be the line again. `S:`
lines are fed to the core, cut as the caller likes. Behind a 354 or a BDAT, `C:` lines are content. `#` begins a
comment. Behind a turn the core says and reads nothing more: what the server says there must be left over.
"""

from base64 import b64decode
from collections.abc import Callable, Iterable
from pathlib import Path

from mailsuite.mail.address import parse_path
from mailsuite.mail.envelope import Body
from mailsuite.mail.options import Return
from mailsuite.wire.core import PAUSED, Event, Signal
from mailsuite.wire.smtp.client import Greeting, Replied, SmtpClientCore
from mailsuite.wire.smtp.client_states import State
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
    Etrn,
    Helo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Turn,
    Vrfy,
)
from mailsuite.wire.smtp.dsn import decode_notify, decode_orcpt, decode_xtext

DIALOGUES = sorted((Path(__file__).parents[2] / "dialogues" / "client").glob("*.txt"))

Cut = Callable[[bytes], Iterable[bytes]]
Step = tuple[str, bytes]

_BARE = {"DATA": Data, "RSET": Rset, "NOOP": Noop, "QUIT": Quit, "STARTTLS": StartTls, "TURN": Turn}


def whole(octets: bytes) -> Iterable[bytes]:
    return [octets] if octets else []


def one_by_one(octets: bytes) -> Iterable[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def read_steps(text: str) -> list[Step]:
    """Who says what, in order; lines come with their CR LF."""
    steps = []
    for line in text.splitlines():
        side, _, said = line.partition(":")
        if side in ("S", "C"):
            steps.append((side, said.removeprefix(" ").encode() + b"\r\n"))
        elif line and not line.startswith("#"):
            raise ValueError(f"neither S: nor C: {line!r}")
    return steps


def spell(line: bytes) -> Command:
    """The command that a line spells."""
    verb, _, rest = line.decode().removesuffix("\r\n").partition(" ")
    if verb in _BARE:
        return _BARE[verb]()
    if verb in ("EHLO", "LHLO"):
        return Ehlo(rest, lmtp=verb == "LHLO")
    if verb == "BDAT":
        size, _, last = rest.partition(" ")
        return Bdat(int(size), last == "LAST")
    if verb == "AUTH":
        mechanism, _, initial = rest.partition(" ")
        return Auth(mechanism.encode(), b64decode(initial) if initial else None)
    if verb == "ATRN":
        return Atrn(tuple(rest.split(",")) if rest else ())
    if verb in ("MAIL", "RCPT"):
        parsed = parse_path(rest.partition(":")[2])
        assert parsed is not None
        address, words = parsed
        values = dict(word.partition("=")[::2] for word in words.split())
        if verb == "RCPT":
            assert address is not None
            notify = decode_notify(values["NOTIFY"]) if "NOTIFY" in values else None
            orcpt = decode_orcpt(values["ORCPT"]) if "ORCPT" in values else None
            return Rcpt(address, notify, orcpt, smtputf8=not words.isascii())
        return Mail(
            address,
            size=int(values["SIZE"]) if "SIZE" in values else None,
            body=Body(values["BODY"]) if "BODY" in values else None,
            smtputf8="SMTPUTF8" in values,
            transid=values["TRANSID"].strip("<>") if "TRANSID" in values else None,
            ret=Return(values["RET"]) if "RET" in values else None,
            envid=decode_xtext(values["ENVID"]) if "ENVID" in values else None,
            require_tls="REQUIRETLS" in values,
        )
    return {"HELO": Helo, "VRFY": Vrfy, "ETRN": Etrn}[verb](rest)


class Dialogue:
    """One run; `heard` are the events, `said` the commands and ends of content in order."""

    def __init__(self, steps: list[Step], cut: Cut) -> None:
        self.heard: list[Event] = []
        self.said: list[Command | ContentEnd] = []
        self._cut = cut
        self._left = 0  # octets of a chunk that are still to be said
        self._end: ContentEnd | None = None  # of that chunk
        self._in_data = False  # a 354 has come
        self.core = SmtpClientCore(lmtp=any(line.startswith(b"LHLO") for side, line in steps if side == "C"))
        replies = b""
        for side, line in steps:
            if side == "S":
                replies += line
                continue
            self._hear(replies)
            replies = b""
            assert not self.turned
            assert self._say(line) == line
        self._hear(replies)

    @property
    def turned(self) -> bool:
        """Whether the client has become a server."""
        return self.core.state is State.DONE and isinstance(self.said[-1], Atrn | Turn)

    @property
    def replies(self) -> list[int]:
        """The codes heard, the greeting's first."""
        return [event.reply.code for event in self.heard]

    def _hear(self, octets: bytes) -> None:
        for part in self._cut(octets):
            self.core.receive_data(part)
            while not isinstance(event := self.core.next_event(), Signal):
                assert isinstance(event, Greeting | Replied), event
                self.heard.append(event)
                self._in_data = event.reply.code == 354
        if octets and self.core.state is State.DONE and not self.turned:
            assert self.core.next_event() is PAUSED
            assert self.core.trailing_data == b""
            self.core = SmtpClientCore(lmtp=self.core.lmtp, greeted=True)

    def _say(self, line: bytes) -> bytes:
        if self._left:
            self._left -= len(line)
            return self.core.send(Content(line)) + self._maybe_end_chunk()
        if self._in_data:
            if line == b".\r\n":
                self._in_data = False
                self.said.append(ContentEnd())
                return self.core.send(ContentEnd())
            return self.core.send(Content(line.removeprefix(b".")))
        if self.core.state is State.AUTH:
            command: Command = AuthResponse(None if line == b"*\r\n" else b64decode(line))
        else:
            command = spell(line)
        octets = self.core.send(command)
        if isinstance(command, Bdat):
            self._left, self._end = command.size, ContentEnd(command.last)
            return octets + self._maybe_end_chunk()
        self.said.append(command)
        return octets

    def _maybe_end_chunk(self) -> bytes:
        if self._left:
            return b""
        assert self._end is not None
        self.said.append(self._end)
        return self.core.send(self._end)
