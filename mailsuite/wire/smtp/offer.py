"""What a server offers in one session, and how it says so in its answer to EHLO."""

from __future__ import annotations

from dataclasses import dataclass

from mailsuite.mail.reply import Reply
from mailsuite.wire.smtp.content import LineEndRule


@dataclass(frozen=True, slots=True)
class Offer:
    """The extensions, the limits and the demands of one SMTP or LMTP session.

    After STARTTLS and after AUTH the offer is another one: the session that follows gets a core with its own.
    `max_size` is in octets, None for no limit; `max_line` counts the CR LF. `mechanisms` that are not empty offer
    AUTH. `require_tls` refuses all that must not pass in plaintext with 530 (RFC 3207 section 4), `require_auth` all
    mail before AUTH (RFC 4954 section 6). `max_errors` is how many refusals (5yz) a session survives without a
    message between them; the next one is followed by 421.
    """

    hostname: str
    lmtp: bool = False
    max_size: int | None = 50 * 1024 * 1024
    starttls: bool = False
    mechanisms: tuple[bytes, ...] = ()
    require_tls: bool = False
    require_auth: bool = False
    chunking: bool = True
    smtputf8: bool = True
    line_ends: LineEndRule = LineEndRule.NORMALIZE
    max_line: int = 2048  # RFC 5321 section 4.5.3.1.4 asks for 512; extensions add to it
    max_response: int = 12288  # RFC 4954 section 4
    max_errors: int = 20

    @property
    def mail_parameters(self) -> frozenset[str]:
        """The parameters that MAIL may have after EHLO."""
        names = {"SIZE", "BODY"}
        if self.smtputf8:
            names.add("SMTPUTF8")
        if self.mechanisms or self.require_auth:
            names.add("AUTH")
        return frozenset(names)

    def ehlo_reply(self, domain: str) -> Reply:
        """The answer to EHLO or LHLO (RFC 5321 section 4.1.1.1)."""
        lines = [f"{self.hostname} greets {domain}", "PIPELINING"]  # RFC 2920
        lines.append(f"SIZE {self.max_size or 0}")  # RFC 1870: 0 says that there is no fixed limit
        lines.append("8BITMIME")  # RFC 6152
        if self.smtputf8:
            lines.append("SMTPUTF8")  # RFC 6531
        if self.chunking:
            lines.append("CHUNKING")  # RFC 3030
        lines.append("ENHANCEDSTATUSCODES")  # RFC 2034
        if self.starttls:
            lines.append("STARTTLS")  # RFC 3207
        if self.mechanisms:
            lines.append("AUTH " + b" ".join(self.mechanisms).decode("ascii"))  # RFC 4954
        lines.append("HELP")
        return Reply(250, None, tuple(lines))
