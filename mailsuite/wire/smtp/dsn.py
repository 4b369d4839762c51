r"""How the parameters of RFC 3461 are written: xtext, the list of NOTIFY, the original recipient, RFC 6533's addresses.

ENVID and ORCPT are held as meant: decoded, printable, so that nothing in them can end a line of a report. An address of
the type `utf-8` comes as it is, or with `\x{...}` for its characters (RFC 6533 section 3); one that fits neither form
is kept as it came, as the section wants it.

Leniency, on purpose: an address of the type `utf-8` may have characters outside ASCII whether or not MAIL has said
SMTPUTF8.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from mailsuite.mail.address import Address
from mailsuite.mail.options import Notify

KEYWORD = "DSN"
MAX_ENVID: Final = 100  # characters, as written: RFC 3461 section 4.4
MAX_ORCPT: Final = 500  # RFC 3461 section 4.2

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_XTEXT_PAIR = re.compile(rb"\+([0-9A-F]{2})")
_NO_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_PRINTABLE = re.compile(r"[ -~]*")
# RFC 822's atom, but for what no parameter may have in its value.
_ORCPT = re.compile(r"([A-Za-z0-9!#$%&'*+\-/?^_`{|}~]+);(.*)", re.DOTALL)
_UNITEXT = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-Fa-f]{2,6}\})+")
_UNITEXT_POINT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_NO_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_NO_QUCHAR = re.compile(r"[^!-*,-<>-\[\]-~\u0080-\U0010ffff]")
_ASCII_POINTS: Final = frozenset(b" +=\\")  # of those that HEXPOINT has, the printable ones

_NOTIFY: Final = {str(event.name): event for event in Notify}


def xtext(text: str) -> str:
    """Encode as xtext (RFC 3461 section 4)."""
    return _NO_XCHAR.sub(lambda octet: b"+%02X" % octet[0][0], text.encode()).decode("ascii")


def decode_xtext(text: str) -> str | None:
    """Decode xtext (RFC 3461 section 4); None where it is none."""
    if not _XTEXT.fullmatch(text):
        return None
    if "+" not in text:
        return text
    octets = _XTEXT_PAIR.sub(lambda pair: bytes([int(pair[1], 16)]), text.encode("ascii"))
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


def decode_envid(text: str) -> str | None:
    """The value of ENVID; None where RFC 3461 section 4.4 does not have it."""
    decoded = decode_xtext(text) if len(text) <= MAX_ENVID else None
    return decoded if decoded and _PRINTABLE.fullmatch(decoded) else None


@lru_cache(maxsize=64)
def decode_notify(text: str) -> Notify | None:
    """The value of NOTIFY; None where RFC 3461 section 4.1 does not have it."""
    if not text.isascii():
        return None
    text = text.upper()
    if text == "NEVER":
        return Notify(0)
    wanted = Notify(0)
    for word in text.split(","):
        event = _NOTIFY.get(word)
        if event is None:
            return None
        wanted |= event
    return wanted


def encode_notify(notify: Notify) -> str:
    """As NOTIFY has it."""
    return ",".join(name for name, event in _NOTIFY.items() if event in notify) or "NEVER"


def decode_orcpt(text: str) -> str | None:
    """The value of ORCPT: its address type and the decoded address; None where RFC 3461 section 4.2 has none such."""
    match = _ORCPT.fullmatch(text) if len(text) <= MAX_ORCPT else None
    if match is None:
        return None
    kind, written = match.groups()
    if kind.lower() == "utf-8":
        address = _decode_unitext(written)
        return f"{kind};{address}" if address.isprintable() else None
    decoded = decode_xtext(written)
    return None if decoded is None or not _PRINTABLE.fullmatch(decoded) else f"{kind};{decoded}"


def encode_orcpt(orcpt: str, *, utf8: bool) -> str | None:
    """As ORCPT has it; `utf8` says whether characters outside ASCII may stand there. None where it is too long."""
    kind, _, address = orcpt.partition(";")
    if kind.lower() == "utf-8":
        # RFC 6533 section 3: native UTF-8 where the server takes it, else only \x{...}
        written = (_NO_QUCHAR if utf8 else _NO_QCHAR).sub(lambda char: rf"\x{{{ord(char[0]):02X}}}", address)
    else:
        written = xtext(address)
    value = f"{kind};{written}"
    return value if len(value) <= MAX_ORCPT else None


def orcpt_of(address: Address) -> str:
    """What ORCPT says of a recipient who was named by this address (RFC 3461 section 4.2, RFC 6533 section 3)."""
    return f"{'rfc822' if address.is_ascii else 'utf-8'};{address}"


def _decode_unitext(written: str) -> str:
    """The address that is meant; as it was written where it is not written by RFC 6533 section 3."""
    if not _UNITEXT.fullmatch(written):
        return written
    points = [int(point, 16) for point in _UNITEXT_POINT.findall(written)]
    if not all(point in _ASCII_POINTS or 0x80 <= point < 0xD800 or 0xDFFF < point <= 0x10FFFF for point in points):
        return written
    decoded = _UNITEXT_POINT.sub(lambda point: chr(int(point[1], 16)), written)
    return decoded if decoded.isprintable() else written
