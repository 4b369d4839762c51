"""The header section of a message, as far as a mail server looks at it: where it ends, which fields it has.

Nothing here decodes: fields are found by name in octets (RFC 5322 section 2.2), content stays as it came.
"""

from __future__ import annotations

import re

# A message that came in BDAT chunks may have bare LFs: they are looked at as line ends, and stay as they are.
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_NOTED = re.compile(
    rb"\n(?:message-id[ \t]*:(?:[ \t]*\r?\n(?=[ \t]))?[ \t]*(<[^<>\x00-\x20\x7f]+>)"
    rb"|tls-required[ \t]*:(?:[ \t]*\r?\n(?=[ \t]))?[ \t]*(no)[ \t]*(?=\r?\n|$))",
    re.IGNORECASE,
)
_FIRST_LETTERS = (b"M", b"m", b"T", b"t")
_FIELD_NAME = re.compile(rb"^([!-9;-~]+)[ \t]*:", re.MULTILINE)


def header_length(octets: bytes, start: int = 0) -> int | None:
    """The length of the header section with the empty line that ends it; None where that has not come yet.

    `start` is where to begin looking: everything before it was looked at already.
    """
    if octets.startswith((b"\r\n", b"\n")):
        return octets.index(b"\n") + 1
    end = _EMPTY_LINE.search(octets, max(0, start - 2))
    return None if end is None else end.end()


def noted(octets: bytes, length: int) -> tuple[str | None, bool]:
    """The Message-ID with its angle brackets, and whether `TLS-Required: No` is there (RFC 8689 section 3).

    The header section stands at the beginning, and is so long. Of several Message-IDs the first counts.
    """
    # A first line has no line end before it; a copy, where that matters, is cheaper than a second pattern.
    if octets[:1] in _FIRST_LETTERS and octets[:12].lower().startswith((b"message-id", b"tls-required")):
        octets, length = b"\n" + octets[:length], length + 1
    message_id, tls_optional = None, False
    for identifier, no in _NOTED.findall(octets, 0, length):
        if no:
            tls_optional = True
        elif message_id is None:
            message_id = str(identifier, "utf-8", "replace")
    return message_id, tls_optional


def field_names(header: bytes) -> list[bytes]:
    """The names of all fields, in order, in lower case. Names repeat as fields do."""
    return [match[1].lower() for match in _FIELD_NAME.finditer(header)]


def begins_with_field(octets: bytes) -> bool:
    """Whether a header field stands at the beginning, or the empty line of a header without fields."""
    return octets.startswith((b"\r\n", b"\n")) or _FIELD_NAME.match(octets) is not None
