"""One end of a conversation in lines over a socket, for the peers that are written here from the RFCs alone.

Nothing of mailsuite is used below this: what speaks here knows nothing of our cores. Every call has a time limit.
"""

from __future__ import annotations

import hashlib
import hmac
import select
import socket
import ssl
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

CRLF = b"\r\n"
_SHOWN = 200  # octets of a line that are written down


class LineLost(Exception):
    """The other side closed the connection, or was silent for too long."""


class HungUp(Exception):
    """The script told us to close the connection here."""


@dataclass(slots=True)
class Message:
    """A message as it crosses the wire: envelope, and content with CR LF line ends and without dot-stuffing."""

    sender: str
    recipients: list[str]
    content: bytes
    options: str = ""  # behind MAIL FROM:<...>

    @property
    def domains(self) -> set[str]:
        return {recipient.rpartition("@")[2].lower() for recipient in self.recipients}


@dataclass(slots=True)
class Line:
    """A connection. `transcript` gets everything that is said, theirs and ours, after `them` and `us`."""

    connection: socket.socket
    us: str
    them: str
    transcript: list[str]
    buffer: bytearray = field(default_factory=bytearray)

    def read(self) -> bytes:
        """The next line without its CR LF. Raises `LineLost`."""
        while CRLF not in self.buffer:
            self._more()
        line, _, rest = bytes(self.buffer).partition(CRLF)
        self.buffer[:] = rest
        self._note(self.them, line)
        return line

    def read_octets(self, count: int) -> bytes:
        """So many octets. Raises `LineLost`."""
        while len(self.buffer) < count:
            self._more()
        octets = bytes(self.buffer[:count])
        del self.buffer[:count]
        return octets

    def read_content(self) -> bytes:
        """What DATA carries, up to the line with the dot (RFC 5321 section 4.5.2). Raises `LineLost`."""
        lines = []
        while True:
            while CRLF not in self.buffer:
                self._more()
            end = self.buffer.index(CRLF)
            line = bytes(self.buffer[:end])
            del self.buffer[: end + 2]
            if line == b".":
                return b"".join(line + CRLF for line in lines)
            lines.append(line[1:] if line.startswith(b".") else line)

    def read_reply(self) -> Reply:
        """A reply with all its lines (RFC 5321 section 4.2.1). Raises `LineLost`."""
        lines = [self.read()]
        while lines[-1][3:4] == b"-":
            lines.append(self.read())
        return Reply(int(lines[-1][:3]), [line[4:].decode("utf-8", "replace") for line in lines])

    def write(self, *lines: str) -> None:
        """Send lines, in one write. Raises `LineLost`."""
        for line in lines:
            self._note(self.us, line.encode())
        self.write_octets(b"".join(line.encode() + CRLF for line in lines))

    def write_octets(self, octets: bytes) -> None:
        try:
            self.connection.sendall(octets)
        except OSError as problem:
            raise LineLost(str(problem)) from None

    def heard_within(self, seconds: float) -> bytes:
        """What they say within some seconds although it is not their turn; it stays to be read."""
        if not self.buffer and select.select([self.connection], [], [], seconds)[0]:
            self._more()
        return bytes(self.buffer)

    def start_tls(self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None) -> None:
        """Go on under TLS. Raises `LineLost`."""
        if self.buffer:
            raise LineLost(f"there is plain text behind STARTTLS: {bytes(self.buffer)!r}")
        try:
            self.connection = context.wrap_socket(self.connection, server_side=server_side, server_hostname=name)
        except OSError as problem:
            raise LineLost(f"TLS: {problem}") from None

    def close(self, *, abruptly: bool = False) -> None:
        """Close it; with a reset where it is to be abrupt."""
        if abruptly:
            with suppress(OSError):
                reset_on_close(self.connection)
        with suppress(OSError):
            self.connection.close()

    def _more(self) -> None:
        try:
            octets = self.connection.recv(65536)
        except OSError as problem:
            raise LineLost(str(problem)) from None
        if not octets:
            raise LineLost("they closed the connection")
        self.buffer += octets

    def _note(self, who: str, line: bytes) -> None:
        self.transcript.append(f"{who}: {line[:_SHOWN].decode('utf-8', 'replace')}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its code, and the text of each line."""

    code: int
    lines: Sequence[str]

    @property
    def keywords(self) -> dict[str, str]:
        """As the answer to EHLO: what is offered, with its arguments. The first line is a greeting."""
        pairs = (line.partition(" ") for line in self.lines[1:])
        return {keyword.upper(): arguments for keyword, _, arguments in pairs}

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(self.lines)}"


def cram_md5(user: str, password: str, challenge: bytes) -> bytes:
    """The response to a challenge (RFC 2195 section 2), both without their Base64."""
    return f"{user} {hmac.new(password.encode(), challenge, hashlib.md5).hexdigest()}".encode()


def stuffed(content: bytes) -> bytes:
    """A content as DATA carries it, with the final dot (RFC 5321 section 4.5.2)."""
    lines = content.removesuffix(CRLF).split(CRLF)
    return b"".join((b"." + line if line.startswith(b".") else line) + CRLF for line in lines) + b".\r\n"


def reset_on_close(connection: socket.socket) -> None:
    """Have the closing of a connection send a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
