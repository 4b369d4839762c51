"""What a report returns of the message: all of it where that can be done, else its header section.

All of it stands in the report octet by octet, since `message/rfc822` may not be encoded (RFC 2046 section 5.2.1). An
internationalized message may be (RFC 6533 section 4.5), and is: the way back may be without SMTPUTF8. Known limit: of
content with lines that are too long, or with line ends that are none, only the header comes back.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from typing import NamedTuple

HEADER_LIMIT = 32 * 1024
"""How many octets of the header section a report returns; the caller need read no more than that."""

_MAX_LINE = 998
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


class Part(NamedTuple):
    """A part of a report: its Content-Type, Content-Transfer-Encoding, and octets with CRLF."""

    content_type: str
    encoding: str
    octets: bytes


def whole_part(content: bytes, *, smtputf8: bool) -> Part | None:
    """The message as it is; None where it cannot be returned whole."""
    if _BARE.search(content) is not None or not has_short_lines(content):
        return None
    if content.isascii():
        return Part("message/rfc822", "7bit", content)
    if smtputf8:
        return Part("message/global", "quoted-printable", _quoted(content))
    return Part("message/rfc822", "8bit", content)


def header_part(header: bytes, *, smtputf8: bool) -> Part:
    """The header section alone, in 7 bits."""
    # RFC 6533 section 4.3; and section 4.5: encoded, since the way back may be without SMTPUTF8.
    utf8 = smtputf8 and not header.isascii()
    return in_seven_bits("message/global-headers" if utf8 else "text/rfc822-headers", header)


def in_seven_bits(content_type: str, octets: bytes) -> Part:
    """A part in 7 bits, by quoted-printable where its octets need that (RFC 2045 section 6.7).

    A CR or LF alone is such an octet (section 2.7): some would take what follows it for a line.
    """
    if octets.isascii() and _BARE.search(octets) is None and has_short_lines(octets):
        return Part(content_type, "7bit", octets)
    return Part(content_type, "quoted-printable", _quoted(octets))


def header_section(content: bytes) -> bytes:
    """The header section at the head of a content, bounded by `HEADER_LIMIT`, its last CRLF included."""
    bounded = content[:HEADER_LIMIT]
    if bounded.startswith(b"\r\n"):
        return b""
    end = bounded.find(b"\r\n\r\n")
    if end < 0:
        end = bounded.rfind(b"\r\n")
    return bounded[: end + 2] if end >= 0 else b""


def has_short_lines(octets: bytes) -> bool:
    """Whether each line is one that mail may have (RFC 5321 section 4.5.3.1.6)."""
    return len(octets) <= _MAX_LINE or all(len(line) <= _MAX_LINE for line in octets.split(b"\r\n"))


def _quoted(octets: bytes) -> bytes:
    return b"\r\n".join(
        [b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") for line in octets.split(b"\r\n")],
    )
