"""SMTP commands as values: the server core makes them of octets, the client core makes octets of them.

Content is said the same way on both sides: `Content` in chunks, then `ContentEnd`.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import ClassVar

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body
from mailsuite.mail.options import NO_WISHES, PLAIN, MessageOptions, Notify, RecipientOptions, Return
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import Event
from mailsuite.wire.smtp.dsn import encode_notify, encode_orcpt, xtext


class Command(Event):
    """One command. `line()` is what a client says, CRLF included."""

    __slots__ = ()
    verb: ClassVar[str]

    def line(self) -> bytes:
        """The command on the wire."""
        return self.verb.encode() + b"\r\n"


@dataclass(frozen=True, slots=True)
class Ehlo(Command):
    """EHLO (RFC 5321 section 4.1.1.1), or LHLO where the dialect is LMTP (RFC 2033 section 4.1)."""

    domain: str
    lmtp: bool = False
    verb: ClassVar[str] = "EHLO"

    def line(self) -> bytes:
        """The command on the wire."""
        return f"{'LHLO' if self.lmtp else 'EHLO'} {self.domain}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Helo(Command):
    """HELO (RFC 5321 section 4.1.1.1)."""

    domain: str
    verb: ClassVar[str] = "HELO"

    def line(self) -> bytes:
        """The command on the wire."""
        return f"HELO {self.domain}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Mail(Command):
    """MAIL (RFC 5321 section 4.1.1.2) with the parameters that were given; None says that one was not."""

    reverse_path: Address | None
    size: int | None = None  # RFC 1870
    body: Body | None = None  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    auth: str | None = None  # RFC 4954 section 5: decoded; "" is AUTH=<>
    transid: str | None = None  # RFC 1845 section 2: without its angle brackets
    ret: Return | None = None  # RFC 3461 section 4.3
    envid: str | None = None  # RFC 3461 section 4.4: decoded
    require_tls: bool = False  # RFC 8689 section 2
    verb: ClassVar[str] = "MAIL"

    @property
    def options(self) -> MessageOptions:
        """What is asked for the message."""
        if self.ret is None and self.envid is None and not self.require_tls:
            return PLAIN
        return MessageOptions(self.ret, self.envid, self.require_tls)

    def line(self) -> bytes:
        """The command on the wire."""
        words = [f"MAIL FROM:<{self.reverse_path or ''}>"]
        if self.size is not None:
            words.append(f"SIZE={self.size}")
        if self.body is not None:
            words.append(f"BODY={self.body}")
        if self.smtputf8:
            words.append("SMTPUTF8")
        if self.auth is not None:
            words.append(f"AUTH={xtext(self.auth) or '<>'}")
        if self.transid is not None:
            words.append(f"TRANSID=<{self.transid}>")
        if self.ret is not None:
            words.append(f"RET={self.ret}")
        if self.envid is not None:
            words.append(f"ENVID={xtext(self.envid)}")
        if self.require_tls:
            words.append("REQUIRETLS")
        return (" ".join(words) + "\r\n").encode()


@dataclass(frozen=True, slots=True)
class Rcpt(Command):
    """RCPT (RFC 5321 section 4.1.1.3) with the parameters that were given.

    `smtputf8` is said on the client's side: whether MAIL has said so, and ORCPT may have UTF-8.
    """

    address: Address
    notify: Notify | None = None  # RFC 3461 section 4.1
    orcpt: str | None = None  # RFC 3461 section 4.2: as `wire.smtp.dsn.decode_orcpt` gives it
    smtputf8: bool = field(default=False, compare=False)
    verb: ClassVar[str] = "RCPT"

    @property
    def options(self) -> RecipientOptions:
        """What is asked for the recipient."""
        if self.notify is None and self.orcpt is None:
            return NO_WISHES
        return RecipientOptions(self.notify, self.orcpt)

    def line(self) -> bytes:
        """The command on the wire; an ORCPT that would be too long is left out."""
        line = f"RCPT TO:<{self.address}>"
        if self.notify is not None:
            line += f" NOTIFY={encode_notify(self.notify)}"
        if self.orcpt is not None and (orcpt := encode_orcpt(self.orcpt, utf8=self.smtputf8)) is not None:
            line += f" ORCPT={orcpt}"
        return line.encode() + b"\r\n"


@dataclass(frozen=True, slots=True)
class Data(Command):
    """DATA (RFC 5321 section 4.1.1.4)."""

    verb: ClassVar[str] = "DATA"


@dataclass(frozen=True, slots=True)
class Bdat(Command):
    """BDAT (RFC 3030 section 2): `size` octets of content follow at once."""

    size: int
    last: bool
    verb: ClassVar[str] = "BDAT"

    def line(self) -> bytes:
        """The command on the wire."""
        return f"BDAT {self.size}{' LAST' if self.last else ''}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Rset(Command):
    """RSET (RFC 5321 section 4.1.1.5)."""

    verb: ClassVar[str] = "RSET"


@dataclass(frozen=True, slots=True)
class Noop(Command):
    """NOOP (RFC 5321 section 4.1.1.9)."""

    verb: ClassVar[str] = "NOOP"


@dataclass(frozen=True, slots=True)
class Quit(Command):
    """QUIT (RFC 5321 section 4.1.1.10)."""

    verb: ClassVar[str] = "QUIT"


@dataclass(frozen=True, slots=True)
class Help(Command):
    """HELP (RFC 5321 section 4.1.1.8)."""

    topic: str = ""
    verb: ClassVar[str] = "HELP"


@dataclass(frozen=True, slots=True)
class Vrfy(Command):
    """VRFY (RFC 5321 section 4.1.1.6)."""

    text: str
    verb: ClassVar[str] = "VRFY"

    def line(self) -> bytes:
        """The command on the wire."""
        return f"VRFY {self.text}\r\n".encode()


@dataclass(frozen=True, slots=True)
class StartTls(Command):
    """STARTTLS (RFC 3207)."""

    verb: ClassVar[str] = "STARTTLS"


@dataclass(frozen=True, slots=True)
class Auth(Command):
    """AUTH (RFC 4954 section 4). `initial` is the decoded initial response; None where there is none."""

    mechanism: bytes
    initial: bytes | None = field(default=None, repr=False)
    verb: ClassVar[str] = "AUTH"

    def line(self) -> bytes:
        """The command on the wire; an empty initial response is `=`."""
        words = [b"AUTH", self.mechanism]
        if self.initial is not None:
            words.append(b64encode(self.initial) or b"=")
        return b" ".join(words) + b"\r\n"


@dataclass(frozen=True, slots=True)
class AuthResponse(Command):
    """A line of an AUTH exchange, decoded; None cancels the exchange (RFC 4954 section 4).

    On the server's side `fault` is the refusal that must end the exchange (too long a line, bad base64).
    """

    response: bytes | None = field(repr=False)
    fault: Reply | None = None
    verb: ClassVar[str] = "AUTH"

    def line(self) -> bytes:
        """The response on the wire."""
        return (b"*" if self.response is None else b64encode(self.response)) + b"\r\n"


@dataclass(frozen=True, slots=True)
class Etrn(Command):
    """ETRN (RFC 1985 section 5). `node` is a domain, `@domain` for its sub-domains too, or `#queue`.

    A node that was received has its domain in lower case and in A-labels.
    """

    node: str
    verb: ClassVar[str] = "ETRN"

    def line(self) -> bytes:
        """The command on the wire."""
        return f"ETRN {self.node}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Atrn(Command):
    """ATRN (RFC 2645 section 5.2.1): the domains, as domain keys; none of them asks for all of the customer's."""

    domains: tuple[str, ...] = ()
    verb: ClassVar[str] = "ATRN"

    def line(self) -> bytes:
        """The command on the wire."""
        return f"ATRN {','.join(self.domains)}".rstrip(" ").encode() + b"\r\n"


@dataclass(frozen=True, slots=True)
class Turn(Command):
    """TURN (RFC 821 section 3.8)."""

    verb: ClassVar[str] = "TURN"


@dataclass(frozen=True, slots=True)
class Content(Event):
    """Some octets of the content, as meant: dots unstuffed, frames taken off, line ends by the configured rule.

    `altered`: that rule has changed something, here or before, so that octets cannot be counted any more.
    """

    data: bytes
    altered: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ContentEnd(Event):
    """The content is whole (`last`), or a BDAT chunk is.

    On the server's side `fault` is the refusal that must be answered instead of what the session would say
    (too big, a bare CR): the content that came was dropped.
    """

    last: bool = True
    fault: Reply | None = None
