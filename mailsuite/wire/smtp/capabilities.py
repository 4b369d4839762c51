"""What a server offers: its answer to EHLO or LHLO, as a value (RFC 5321 section 4.1.1.1).

Rules: keywords know no case. A keyword that is said twice counts once, the first time, except AUTH, whose lists are
joined; `AUTH=LOGIN PLAIN`, which some servers say beside or instead of `AUTH LOGIN PLAIN`, is the same. A parameter
that makes no sense is as if it were not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from mailsuite.mail.reply import Reply

_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*")
_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}")  # RFC 4422 section 3.1
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 section 5


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The service extensions of one server, as of its last positive answer to EHLO; none before it and after HELO.

    `domain` is what the server calls itself. `keywords` maps every keyword, in upper case, to its parameters as they
    were written. `mechanisms` are the names that AUTH lists, in upper case. `max_size` is the SIZE limit in octets;
    None where there is none or none is told (RFC 1870 section 7).
    """

    domain: str = ""
    keywords: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    mechanisms: tuple[bytes, ...] = ()
    max_size: int | None = None

    @classmethod
    def of_reply(cls, reply: Reply) -> Capabilities:
        """Read the answer to EHLO or LHLO, which must be positive."""
        # Most connections go to a few hosts, which always offer the same.
        return _of_lines(reply.lines)

    @classmethod
    def of_lines(cls, lines: tuple[str, ...]) -> Capabilities:
        """Read the lines of that answer."""
        domain = lines[0].partition(" ")[0]
        keywords: dict[str, tuple[str, ...]] = {}
        mechanisms: dict[bytes, None] = {}
        for line in lines[1:]:
            words = line.split()
            if not words:
                continue
            name, equals, rest = words[0].upper().partition("=")
            parameters = words[1:]
            if name == "AUTH":
                listed = [rest, *parameters] if equals else parameters
                mechanisms.update((m.upper().encode(), None) for m in listed if _MECHANISM.fullmatch(m.upper()))
            elif equals:
                continue
            if _KEYWORD.fullmatch(name):
                keywords.setdefault(name, tuple(parameters))
        return cls(domain, MappingProxyType(keywords), tuple(mechanisms), _max_size(keywords.get("SIZE", ())))

    def offers(self, keyword: str) -> bool:
        """Whether a keyword, given in upper case, was said."""
        return keyword in self.keywords

    @property
    def pipelining(self) -> bool:
        """RFC 2920: commands may be sent in groups."""
        return "PIPELINING" in self.keywords

    @property
    def chunking(self) -> bool:
        """RFC 3030: BDAT."""
        return "CHUNKING" in self.keywords

    @property
    def binarymime(self) -> bool:
        """RFC 3030 section 3: BODY=BINARYMIME, which needs BDAT."""
        return "BINARYMIME" in self.keywords and self.chunking

    @property
    def eightbitmime(self) -> bool:
        """RFC 6152: BODY=8BITMIME."""
        return "8BITMIME" in self.keywords

    @property
    def smtputf8(self) -> bool:
        """RFC 6531: addresses and headers in UTF-8."""
        return "SMTPUTF8" in self.keywords

    @property
    def size(self) -> bool:
        """RFC 1870: MAIL may declare the size."""
        return "SIZE" in self.keywords

    @property
    def starttls(self) -> bool:
        """RFC 3207."""
        return "STARTTLS" in self.keywords

    @property
    def auth(self) -> bool:
        """RFC 4954: AUTH, the command and the parameter of MAIL."""
        return "AUTH" in self.keywords

    @property
    def enhancedstatuscodes(self) -> bool:
        """RFC 2034."""
        return "ENHANCEDSTATUSCODES" in self.keywords

    @property
    def dsn(self) -> bool:
        """RFC 3461."""
        return "DSN" in self.keywords

    @property
    def requiretls(self) -> bool:
        """RFC 8689: MAIL may have REQUIRETLS."""
        return "REQUIRETLS" in self.keywords

    @property
    def etrn(self) -> bool:
        """RFC 1985."""
        return "ETRN" in self.keywords

    @property
    def atrn(self) -> bool:
        """RFC 2645."""
        return "ATRN" in self.keywords

    @property
    def checkpoint(self) -> bool:
        """RFC 1845: MAIL may have a TRANSID."""
        return "CHECKPOINT" in self.keywords


@lru_cache(maxsize=256)
def _of_lines(lines: tuple[str, ...]) -> Capabilities:
    return Capabilities.of_lines(lines)


def _max_size(parameters: tuple[str, ...]) -> int | None:
    if not parameters or not _SIZE.fullmatch(parameters[0]):
        return None
    # RFC 1870 section 4: zero says that there is no fixed limit.
    return int(parameters[0]) or None
