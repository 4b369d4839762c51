"""Addresses and the grammar of paths (RFC 5321 section 4.1.2, RFC 6531 section 3.3).

An address is held as meant, not as written: quotes and backslashes of a quoted local part are gone and come
back when it is written. The null reverse-path `<>` is None wherever a reverse-path is expected.

Leniency, on purpose: underscores in domains, which real peers use; and spaces between a command's colon and the path.
Strictness, on purpose: of RFC 6531's UTF8-non-ascii, characters that some software takes for a line end or a control
(U+0080 to U+009F, U+2028, U+2029) are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

import idna

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_UTF8 = r"\u00a0-\u2027\u202a-\U0010ffff"
_DOT_STRING = re.compile(rf"[{_ATEXT}{_UTF8}]+(?:\.[{_ATEXT}{_UTF8}]+)*")
_QUOTED_STRING = re.compile(rf'"((?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_LABEL = rf"[A-Za-z0-9_{_UTF8}](?:[A-Za-z0-9_\-{_UTF8}]*[A-Za-z0-9_{_UTF8}])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LITERAL = re.compile(r"\[[!-Z^-~]{1,255}\]")
_SOURCE_ROUTE = re.compile(rf"@{_LABEL}(?:\.{_LABEL})*(?:,@{_LABEL}(?:\.{_LABEL})*)*:")
_PLAIN_PATH = re.compile(rf"<({_DOT_STRING.pattern})@({_DOMAIN.pattern})>")  # what nearly every path is
_NEEDS_QUOTES = re.compile(r'["\\]')

# RFC 5321 section 4.5.3.1.2; the limit of 64 octets for a local part is not enforced, as the section permits:
# rewritten senders (SRS, VERP) exceed it every day.
_MAX_DOMAIN = 255


@dataclass(frozen=True)
class Address:
    """A mailbox: local part and domain, as meant.

    `domain` is as the peer wrote it; it is empty for the one mailbox that needs none, `postmaster`
    (RFC 5321 section 4.1.1.3). Compare domains by `domain_key`.
    """

    local_part: str
    domain: str

    @cached_property
    def domain_key(self) -> str:
        """The domain in lower case and in A-labels, the form for comparing and for look-ups."""
        return domain_key(self.domain)

    @property
    def is_ascii(self) -> bool:
        """Whether the address can be said without SMTPUTF8."""
        return self.local_part.isascii() and self.domain.isascii()

    def __str__(self) -> str:
        local = self.local_part
        if not _DOT_STRING.fullmatch(local):
            local = '"' + _NEEDS_QUOTES.sub(r"\\\g<0>", local) + '"'
        return f"{local}@{self.domain}" if self.domain else local


def domain_key(domain: str) -> str:
    """A domain in lower case and in A-labels (RFC 5890); one that has no A-labels stays as it is, in lower case."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return domain.lower()


def parse_mailbox(text: str) -> Address | None:
    """`local-part@domain` without angle brackets; None where it does not fit the grammar."""
    end = _local_part_end(text)
    if end is None or text[end : end + 1] != "@":
        return None
    local, domain = text[:end], text[end + 1 :]
    if not is_domain(domain) and not is_address_literal(domain):
        return None
    return Address(_unquote(local), domain)


def parse_path(text: str) -> tuple[Address | None, str] | None:
    """The path at the head of an argument, and what follows it.

    Returns None where no path stands there. The null path `<>` gives None as its address. Source routes are
    accepted and ignored (RFC 5321 section 4.1.1.3 and appendix C). `<postmaster>` needs no domain.
    """
    plain = _PLAIN_PATH.match(text)
    if plain is not None and _is_short(plain[2]):
        return Address(plain[1], plain[2]), text[plain.end() :]
    if not text.startswith("<"):
        return None
    if text.startswith("<>"):
        return None, text[2:]
    route = _SOURCE_ROUTE.match(text, 1)
    start = 1 if route is None else route.end()
    length = _local_part_end(text[start:])
    if length is None:
        return None
    end = start + length
    close = text.find(">", end)
    if close < 0:
        return None
    if close == end and text[start:end].lower() == "postmaster":
        return Address(text[start:end], ""), text[close + 1 :]
    address = parse_mailbox(text[start:close])
    return None if address is None else (address, text[close + 1 :])


def is_domain(text: str) -> bool:
    """Whether the text is a Domain (RFC 5321 section 4.1.2, with U-labels of RFC 6531)."""
    return _is_short(text) and _DOMAIN.fullmatch(text) is not None


def is_address_literal(text: str) -> bool:
    """Whether the text is an address literal (RFC 5321 section 4.1.3) of IPv4 or IPv6."""
    return _LITERAL.fullmatch(text) is not None and parse_literal(text) is not None


def parse_literal(text: str) -> IPv4Address | IPv6Address | None:
    """The address within `[192.0.2.1]` or `[IPv6:2001:db8::1]`; None where it is none."""
    inner = text[1:-1]
    if "%" in inner:
        return None  # a zone is known to Python, and to no grammar of mail
    try:
        if inner[:5].lower() == "ipv6:":
            return IPv6Address(inner[5:])
        return IPv4Address(inner)
    except ValueError:
        return None


def literal_of(address: IPv4Address | IPv6Address) -> str:
    """The address literal of an IP address; a zone, which means nothing to anybody else, is left out."""
    text = str(address).partition("%")[0]
    return f"[IPv6:{text}]" if address.version == 6 else f"[{text}]"


def _is_short(domain: str) -> bool:
    return (len(domain) if domain.isascii() else len(domain.encode("utf-8"))) <= _MAX_DOMAIN


def _local_part_end(text: str) -> int | None:
    match = _QUOTED_STRING.match(text) or _DOT_STRING.match(text)
    return None if match is None else match.end()


def _unquote(local: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", local[1:-1]) if local.startswith('"') else local
