"""What a server offers in one session, and how it says so in its answer to EHLO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.wire.smtp.checkpoint import KEYWORD as CHECKPOINT
from mailsuite.wire.smtp.checkpoint import LINE_ROOM
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.dsn import KEYWORD as DSN


@dataclass(frozen=True, slots=True)
class Offer:
    """The extensions, the limits and the demands of one SMTP or LMTP session.

    After STARTTLS and after AUTH the offer is another one: the session that follows gets a core with its own.
    `max_size` is in octets, None for no limit; `max_line` counts the CR LF. `mechanisms` that are not empty offer
    AUTH; `usable` says of each whether somebody can log in by it now, and EHLO tells of these alone, unless none is
    left in the profile of on-demand mail relay. `require_tls` refuses all that must not pass in plaintext with 530
    (RFC 3207 section 4), `require_auth` all mail before AUTH (RFC 4954 section 6). `max_errors` is how many refusals
    (5yz) a session survives without a message between them; the next one is followed by 421.

    `etrn`, `atrn` and `turn` offer these commands; ATRN and TURN are for those who have logged in, whatever else is
    (RFC 2645 section 5.2.1). `checkpoint` offers RFC 1845, but not in LMTP, where nobody could tell how many replies a
    resumed transaction wants. `dsn` offers RFC 3461, for those who see to it that reports are made; `requiretls`
    RFC 8689, where the connection is under TLS. `odmr` is the profile of on-demand mail relay (RFC 2645): ATRN is
    always offered, and what has to do with mail is not there.
    """

    hostname: str
    lmtp: bool = False
    max_size: int | None = 50 * 1024 * 1024
    starttls: bool = False
    mechanisms: tuple[bytes, ...] = ()
    usable: Callable[[bytes], bool] | None = None
    require_tls: bool = False
    require_auth: bool = False
    chunking: bool = True
    smtputf8: bool = True
    etrn: bool = False
    atrn: bool = False
    turn: bool = False
    checkpoint: bool = False
    dsn: bool = False
    requiretls: bool = False
    odmr: bool = False
    line_ends: LineEndRule = LineEndRule.NORMALIZE
    max_line: int = 2048  # RFC 5321 section 4.5.3.1.4 asks for 512; extensions add to it
    max_response: int = 12288  # RFC 4954 section 4
    max_errors: int = 20

    @property
    def parameters(self) -> frozenset[str]:
        """The parameters that MAIL and RCPT may have after EHLO; REQUIRETLS, of these, under TLS alone."""
        names = {"SIZE", "BODY"}
        if self.smtputf8:
            names.add("SMTPUTF8")
        if self.mechanisms or self.require_auth:
            names.add("AUTH")
        if self.checkpoint and not self.lmtp:
            names.add("TRANSID")
        if self.dsn:
            names |= {"RET", "ENVID", "NOTIFY", "ORCPT"}
        if self.requiretls:
            names.add("REQUIRETLS")
        return frozenset(names)

    @property
    def line_limit(self) -> int:
        """How long a command line may be, with what extensions add to `max_line`."""
        return self.max_line + (LINE_ROOM if self.checkpoint else 0)

    @property
    def absent(self) -> Mapping[str, Reply]:
        """The commands that are known and not offered here, and what refuses each."""
        return _absent(self)

    def ehlo_reply(self, domain: str, *, secure: bool = False) -> Reply:
        """The answer to EHLO or LHLO (RFC 5321 section 4.1.1.1); `secure` says that the connection is under TLS."""
        lines = [f"{self.hostname} greets {domain}", "PIPELINING"]  # RFC 2920
        if not self.odmr:
            lines += self._mail_keywords(secure=secure)
        lines.append("ENHANCEDSTATUSCODES")  # RFC 2034
        if self.starttls:
            lines.append("STARTTLS")  # RFC 3207
        if mechanisms := self._told:
            lines.append("AUTH " + b" ".join(mechanisms).decode("ascii"))  # RFC 4954
        if self.etrn and not self.odmr:
            lines.append("ETRN")  # RFC 1985
        if self.atrn or self.odmr:
            lines.append("ATRN")  # RFC 2645 section 5.1.1
        lines.append("HELP")
        return Reply(250, None, tuple(lines))

    @property
    def _told(self) -> tuple[bytes, ...]:
        """The mechanisms that EHLO tells of."""
        if self.usable is None:
            return self.mechanisms
        told = tuple(filter(self.usable, self.mechanisms))
        # RFC 2645 section 5.1.1: the EHLO response MUST include AUTH, whatever is kept.
        return told or (self.mechanisms if self.odmr else ())

    def _mail_keywords(self, *, secure: bool) -> list[str]:
        """The extensions of mail itself."""
        lines = [f"SIZE {self.max_size or 0}"]  # RFC 1870: 0 says that there is no fixed limit
        lines.append("8BITMIME")  # RFC 6152
        if self.smtputf8:
            lines.append("SMTPUTF8")  # RFC 6531
        if self.chunking:
            lines.append("CHUNKING")  # RFC 3030
        if self.checkpoint and not self.lmtp:
            lines.append(CHECKPOINT)  # RFC 1845
        if self.dsn:
            lines.append(DSN)  # RFC 3461
        if self.requiretls and secure:
            lines.append("REQUIRETLS")  # RFC 8689 section 2: in the EHLO response behind STARTTLS
        return lines


@lru_cache(maxsize=64)
def _absent(offer: Offer) -> Mapping[str, Reply]:
    """Many connections have the same few offers: this is worked out once for each."""
    # RFC 2033 section 4.1: LHLO instead of HELO and EHLO, and the other way round.
    absent = dict.fromkeys(("EHLO", "HELO") if offer.lmtp else ("LHLO",), replies.UNRECOGNIZED)
    # RFC 1985 section 5.1 has 500 for those who do not know ETRN, and no 502.
    etrn = replies.NOT_IMPLEMENTED if offer.odmr else replies.UNRECOGNIZED
    there = {
        "STARTTLS": offer.starttls,
        "AUTH": bool(offer.mechanisms) or offer.require_auth,
        "BDAT": offer.chunking,
        "ATRN": offer.atrn or offer.odmr,
        "TURN": offer.turn,  # RFC 821 section 3.8: 502
        "EXPN": False,
    }
    if offer.odmr:
        # RFC 2645 section 5.4. NOOP, RSET and HELP do no harm, nor does HELO.
        there |= dict.fromkeys(("MAIL", "RCPT", "DATA", "BDAT", "VRFY"), False)
    absent |= {verb: replies.NOT_IMPLEMENTED for verb, offered in there.items() if not offered}
    if offer.odmr or not offer.etrn:
        absent["ETRN"] = etrn
    return MappingProxyType(absent)
