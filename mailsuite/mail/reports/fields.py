"""The fields of a report: what others have said made into one line of text, and addresses in their typed forms.

Control characters become spaces and length is bounded, so that nobody writes fields of his own. Lines are folded where
there is a space; a single word that is too long stays whole, and below the 998 octets of RFC 5322 section 2.1.1.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from mailsuite.mail.address import Address, domain_key, literal_of

_MAX_TEXT = 900  # of a remote's words; a field stays below the 998 of RFC 5322 section 2.1.1 with its name
_FOLD = 78
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_XTEXT_SPECIAL = re.compile(r"[^!-*,-<>-\[\]-~]")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_ADDR_TYPE = re.compile(r"[!#-'*+\-/-9=?A-Z^-~]+")  # an atom of RFC 822


def field(name: str, value: str) -> str:
    """A header field, folded, with its CRLF. The value is one line of text already."""
    line = f"{name}: {value}"
    if len(line) <= _FOLD:
        return f"{line}\r\n"
    lines, current = [], f"{name}:"
    for word in value.split(" "):
        if len(current) + 1 + len(word) > _FOLD and not current.endswith(":"):
            lines.append(current)
            current = ""
        current += f" {word}"
    return "\r\n".join([*lines, current]) + "\r\n"


def one_line(text: str) -> str:
    """One line of printable text, bounded."""
    return _UNPRINTABLE.sub(" ", text)[:_MAX_TEXT].strip()


def ascii_line(text: str) -> str:
    """One line of printable ASCII, bounded."""
    return one_line(text).encode("ascii", "replace").decode("ascii")


def mta_name(host: str) -> str:
    """A host by its name, or by its address literal (RFC 5321 section 4.1.3)."""
    try:
        return literal_of(ip_address(host))
    except ValueError:
        return ascii_line(host)


def printable(address: Address) -> str:
    """An address as text without anything but text in it."""
    return _UNPRINTABLE.sub(" ", str(address)).encode("utf-8", "replace").decode("utf-8")


def typed_address(address: Address, *, utf8: bool) -> str:
    """A Final-Recipient, in 7 bits unless the part is in UTF-8."""
    text = printable(address)
    if text.isascii():
        return f"rfc822; {text}"
    return f"utf-8; {text if utf8 else to_xtext(text)}"


def original_recipient(orcpt: str, *, utf8: bool) -> str | None:
    """An Original-Recipient from what the parameter ORCPT has said; None where that has no address type.

    The address is copied as it came (RFC 3461 section 5.2.1), but for one of the type utf-8, whose encoding is that of
    the part (RFC 6533 section 3).
    """
    kind, separator, address = orcpt.partition(";")
    if not separator or _ADDR_TYPE.fullmatch(kind) is None:
        return None
    text = _UNPRINTABLE.sub(" ", address)[:_MAX_TEXT].strip()
    if kind.lower() != "utf-8":
        return f"{kind}; {text.encode('ascii', 'replace').decode('ascii')}"
    plain = _EMBEDDED.sub(_embedded, text).encode("utf-8", "replace").decode("utf-8")
    return f"{kind}; {plain if utf8 else to_xtext(plain)}"


def to_xtext(text: str) -> str:
    """An internationalized address in 7 bits: utf-8-addr-xtext of RFC 6533 section 3."""
    return _XTEXT_SPECIAL.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def needs_smtputf8(address: Address) -> bool:
    """Whether a report to this address must travel with SMTPUTF8: a domain alone can be said in A-labels."""
    return not (address.local_part.isascii() and domain_key(address.domain).isascii())


def _embedded(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    # What is no text, in whatever disguise, stays as it is written.
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF or _UNPRINTABLE.match(chr(code)):
        return match[0]
    return chr(code)
