"""A report as a message: its header, and its three parts (RFC 6522 section 3).

It is in 7 bits whatever it tells of, with two exceptions. A reader with an internationalized address gets it by
SMTPUTF8, and what programs read is then in UTF-8 too (RFC 6533 section 4.1). And a message in 8 bits is returned as it
is, where all of it is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import decode_header, make_header
from hashlib import sha256

from mailsuite.mail.address import Address, domain_key
from mailsuite.mail.envelope import Body
from mailsuite.mail.queue import Message
from mailsuite.mail.reports.fields import field, needs_smtputf8, one_line, printable
from mailsuite.mail.reports.returned import (
    Part,
    has_short_lines,
    header_part,
    header_section,
    in_seven_bits,
    whole_part,
)
from mailsuite.mail.reports.status import Reported, status_fields
from mailsuite.mail.reports.words import subject, words
from mailsuite.mail.trace import date_time

_MAX_ADDRESS = 900  # octets: more do not fit into a line (RFC 5322 section 2.1.1)
_MAX_SUBJECT = 200  # characters
_SUBJECT = re.compile(rb"(?im)^subject[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)")
_MESSAGE_ID = re.compile(rb"(?im)^message-id:[ \t\r\n]*(<[!-;=?-~]{1,900}>)")


@dataclass(frozen=True, slots=True)
class Composed:
    """A report, as octets with CRLF, and what it must travel with."""

    octets: bytes
    body: Body
    smtputf8: bool


def compose(  # noqa: PLR0913 - what a report consists of
    message: Message,
    reader: Address,
    reported: Sequence[Reported],
    content: bytes,
    *,
    whole: bool = False,
    hostname: str,
    now: float,
    message_id: str,
    others: int = 0,
) -> Composed:
    """Compose the report on some recipients of a message.

    `content` is the message as far as it was read, at least its header section; with `whole` it is all of the message
    and is returned. `reader` is the reverse-path, or whoever reads what happens to messages that have none.
    `message_id` has its angle brackets. `others` is how many recipients the message still waits for.
    """
    utf8 = needs_smtputf8(reader)
    smtputf8 = message.envelope.smtputf8
    returned = whole_part(content, smtputf8=smtputf8) if whole else None
    header = header_section(content)
    attached = "message" if returned is not None else "header of the message" if header else ""
    if returned is None:
        returned = header_part(header, smtputf8=smtputf8)
    without_sender = message.envelope.reverse_path is None
    text = words(
        message,
        reported,
        hostname,
        attached,
        without_sender=without_sender,
        about=_subject_of(header),
        others=others,
    )
    status = _status(message, reported, hostname, utf8=utf8)
    parts = (in_seven_bits("text/plain; charset=utf-8", text.encode("utf-8", "replace")), status, returned)
    # RFC 6522 section 3: report-type is the subtype of the second part.
    kind = parts[1].content_type.partition("/")[2]
    fields = [
        field("From", f'"Mail delivery at {hostname}" <MAILER-DAEMON@{hostname}>'),
        field("To", _readable(reader, hostname)),
        field("Subject", subject(reported, without_sender=without_sender)),
        field("Date", date_time(now)),
        field("Message-ID", message_id),
        *_thread(header),
        field("Auto-Submitted", "auto-replied"),  # RFC 3834 section 3.1.7
        field("MIME-Version", "1.0"),
        f"Content-Type: multipart/report; report-type={kind};\r\n",
    ]
    octets = _multipart("".join(fields), parts, sha256(message_id.encode()).hexdigest()[:32])
    eight_bit = utf8 or any(part.encoding == "8bit" for part in parts)
    return Composed(octets, Body.EIGHT_BIT if eight_bit else Body.SEVEN_BIT, utf8)


def _status(message: Message, reported: Sequence[Reported], hostname: str, *, utf8: bool) -> Part:
    octets = status_fields(message, reported, hostname, utf8=utf8).encode("utf-8", "replace")
    if has_short_lines(octets):
        # RFC 6533 section 4.4: where nothing is lost by it, the form that every program knows.
        if octets.isascii():
            return Part("message/delivery-status", "7bit", octets)
        return Part("message/global-delivery-status", "8bit", octets)
    # An address may be too long for a line, and cannot be folded; but this form may be encoded (same section).
    octets = status_fields(message, reported, hostname, utf8=True).encode("utf-8", "replace")
    return in_seven_bits("message/global-delivery-status", octets)


def _thread(header: bytes) -> Sequence[str]:
    original = _MESSAGE_ID.search(header)
    if original is None:
        return ()
    text = original[1].decode("ascii")
    return (field("In-Reply-To", text), field("References", text))  # RFC 3834 section 3.1.6


def _subject_of(header: bytes) -> str:
    """The message's own subject as one line of text; empty where it has none, or none that can be read."""
    found = _SUBJECT.search(header)
    if found is None:
        return ""
    raw = " ".join(found[1].decode("utf-8", "replace").split())[:_MAX_SUBJECT]
    try:
        text = str(make_header(decode_header(raw)))  # RFC 2047
    except (ValueError, LookupError):  # its encoding is broken or unknown: as it is written
        text = raw
    return one_line(text)[:_MAX_SUBJECT]


def _readable(reader: Address, hostname: str) -> str:
    if needs_smtputf8(reader):
        text = printable(reader)
    else:
        # The postmaster needs no domain in an envelope, but in a header.
        text = printable(Address(reader.local_part, domain_key(reader.domain or hostname)))
    return f"<{text}>" if len(text.encode()) <= _MAX_ADDRESS else "undisclosed-recipients:;"


def _multipart(header: str, parts: Sequence[Part], unique: str) -> bytes:
    boundary = f"=_{unique}".encode()
    while any(boundary in part.octets for part in parts):  # somebody returns what we have sent
        boundary += b"_"
    chunks = [header.encode("utf-8", "replace"), b' boundary="%b"\r\n\r\n' % boundary]
    for part in parts:
        chunks.append(b"--%b\r\n" % boundary)
        chunks.append(f"Content-Type: {part.content_type}\r\n".encode())
        chunks.append(f"Content-Transfer-Encoding: {part.encoding}\r\n\r\n".encode())
        chunks.append(part.octets if part.octets.endswith(b"\r\n") else part.octets + b"\r\n")
        chunks.append(b"\r\n")
    chunks.append(b"--%b--\r\n" % boundary)
    return b"".join(chunks)
