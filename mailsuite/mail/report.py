"""Delivery status notifications: the report that goes to a sender whose mail failed (RFC 3464, RFC 6522).

Three parts: a text for people, a message/delivery-status for programs, and the header section of the message.
Everything is a function of the arguments: time, Message-ID and host name are handed in, and the boundary follows
from the Message-ID. The report is 7-bit whatever it reports on, but for the one line that names its reader: an
internationalized reverse-path stands in UTF-8 in `To`, and `needs_smtputf8` says so beforehand.

What a remote host said is quoted, never trusted: control characters become spaces, length is bounded.
Known limit: the body of the message is not returned (RFC 3461 RET=FULL).

The older policy of `email` is used on purpose: it folds header fields four times as fast as the newer ones, and a
queue that expires holds thousands of reports.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Sequence
from email.generator import BytesGenerator
from email.message import Message as Part
from email.policy import compat32
from hashlib import sha256
from io import BytesIO
from ipaddress import ip_address

from mailsuite.mail.address import Address, domain_key, literal_of
from mailsuite.mail.queue import Message, Outcome, Recipient
from mailsuite.mail.trace import date_time

HEADER_LIMIT = 32 * 1024
"""How many octets of the header section a report returns; the caller need read no more than that."""

_MAX_TEXT = 900  # of a remote's words; a field stays below the 998 of RFC 5322 section 2.1.1 with its name
_MAX_LINE = 998
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]+")
_MESSAGE_ID = re.compile(rb"(?im)^message-id:[ \t\r\n]*(<[!-;=?-~]{1,900}>)")
_XTEXT_SPECIAL = re.compile(r"[^!-*,-<>-\[\]-~]")

_POLICY = compat32.clone(linesep="\r\n")

Failures = Sequence[tuple[Recipient, Outcome]]


def failure_report(
    message: Message,
    failures: Failures,
    header: bytes,
    *,
    hostname: str,
    now: float,
    message_id: str,
) -> bytes:
    """Compose the report on recipients that failed for good, as octets with CRLF.

    `header` is the head of the message as far as it was read: what follows its first empty line is ignored.
    `message_id` has its angle brackets. Raises `ValueError` for a message with the null reverse-path, to which
    nothing is ever reported (RFC 5321 section 4.5.5).
    """
    reader = message.envelope.reverse_path
    if reader is None:
        raise ValueError("nothing is reported to the null reverse-path")
    header = header_section(header)
    # RFC 6522 section 3: report-type is the subtype of the second part.
    report = _part("multipart/report; report-type=delivery-status")
    report["From"] = f"Mail delivery at {hostname} <MAILER-DAEMON@{hostname}>"
    report["To"] = _reader_text(reader)
    report["Subject"] = "Your message could not be delivered"
    report["Date"] = date_time(now)
    report["Message-ID"] = message_id
    original = _MESSAGE_ID.search(header)
    if original is not None:  # RFC 3834 section 3.1.6
        report["In-Reply-To"] = report["References"] = original[1].decode("ascii")
    report["Auto-Submitted"] = "auto-replied"  # RFC 3834 section 3.1.7
    report["MIME-Version"] = "1.0"
    report.set_boundary("=_" + sha256(message_id.encode()).hexdigest()[:32])
    report.set_payload(
        [
            _text_part(message, failures, hostname),
            _status_part(message, failures, hostname, now),
            _header_part(header, smtputf8=message.envelope.smtputf8),
        ]
    )
    octets = BytesIO()
    BytesGenerator(octets, mangle_from_=False).flatten(report)
    return octets.getvalue()


def needs_smtputf8(address: Address) -> bool:
    """Whether a report to this address must travel with SMTPUTF8: a domain alone can be said in A-labels."""
    return not (address.local_part.isascii() and domain_key(address.domain).isascii())


def header_section(content: bytes) -> bytes:
    """The header section at the head of a content, bounded by `HEADER_LIMIT`, its last CRLF included."""
    bounded = content[:HEADER_LIMIT]
    if bounded.startswith(b"\r\n"):
        return b""
    end = bounded.find(b"\r\n\r\n")
    if end < 0:
        end = bounded.rfind(b"\r\n")
    return bounded[: end + 2] if end >= 0 else b""


def _text_part(message: Message, failures: Failures, hostname: str) -> Part:
    lines = [
        f"This is the mail server at {hostname}.",
        "",
        f"Your message of {date_time(message.arrived)} could not be delivered to",
        "the recipients below, and will not be tried again.",
    ]
    for recipient, outcome in failures:
        asked = "" if recipient.original is None else f" (you wrote to <{_printable(recipient.original)}>)"
        said = outcome.text if outcome.reply is None else str(outcome.reply)
        who = "" if outcome.remote is None else f"{_clean(outcome.remote)} said: "
        lines += ["", f"<{_printable(recipient.address)}>{asked}", f"    {who}{_clean(said)}"]
        if outcome.reply is not None and outcome.text != outcome.reply.text:
            lines.append(f"    {_clean(outcome.text)}")
    lines += ["", "The header of your message is attached.", ""]
    part = _part("text/plain; charset=utf-8")
    _set_octets(part, "\r\n".join(lines).encode("utf-8", "replace"))
    return part


def _status_part(message: Message, failures: Failures, hostname: str, now: float) -> Part:
    # RFC 3464 section 2.2: fields of the message, then a group of fields for each recipient.
    first = Part(policy=_POLICY)
    first["Reporting-MTA"] = f"dns; {hostname}"
    first["X-Queue-Id"] = _clean(message.queue_id)
    first["Arrival-Date"] = date_time(message.arrived)
    groups: list[Part | str] = [first]
    for recipient, outcome in failures:
        group = Part(policy=_POLICY)
        if recipient.original is not None:
            group["Original-Recipient"] = _typed_address(recipient.original)
        group["Final-Recipient"] = _typed_address(recipient.address)
        group["Action"] = "failed"
        group["Status"] = str(outcome.status)
        if outcome.remote is not None:  # RFC 3464 section 2.3.5: only where a remote host was involved
            group["Remote-MTA"] = f"dns; {_mta_name(outcome.remote)}"
        if outcome.reply is not None:
            group["Diagnostic-Code"] = f"smtp; {_clean(str(outcome.reply))}"
        group["Last-Attempt-Date"] = date_time(now)
        groups.append(group)
    part = _part("message/delivery-status")
    part.set_payload(groups)
    return part


def _header_part(header: bytes, *, smtputf8: bool) -> Part:
    # RFC 6533 section 4.3; and section 4.5: encoded, since the way back may be without SMTPUTF8.
    utf8 = smtputf8 and not header.isascii()
    part = _part("message/global-headers" if utf8 else "text/rfc822-headers")
    _set_octets(part, header)
    return part


def _part(content_type: str) -> Part:
    part = Part(policy=_POLICY)
    part["Content-Type"] = content_type
    return part


def _set_octets(part: Part, octets: bytes) -> None:
    """Give a part its octets in 7 bit, by quoted-printable where they need it (RFC 2045 section 6.7)."""
    lines = octets.split(b"\r\n")
    if octets.isascii() and b"\0" not in octets and all(len(line) <= _MAX_LINE for line in lines):
        part["Content-Transfer-Encoding"] = "7bit"
        part.set_payload(octets.decode("ascii"))
        return
    part["Content-Transfer-Encoding"] = "quoted-printable"
    part.set_payload("\r\n".join(b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n").decode() for line in lines))


def _reader_text(address: Address) -> str:
    if needs_smtputf8(address):
        # Octets in disguise: the policy writes surrogates as the octets they stand for, without encoded words.
        return f"<{_printable(address)}>".encode("utf-8", "replace").decode("ascii", "surrogateescape")
    return f"<{_printable(Address(address.local_part, domain_key(address.domain)))}>"


def _typed_address(address: Address) -> str:
    text = _printable(address)
    if text.isascii():
        return f"rfc822; {text}"
    # RFC 6533 section 3: in a 7-bit field the utf-8 type is written as utf-8-addr-xtext.
    return "utf-8; " + _XTEXT_SPECIAL.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def _mta_name(host: str) -> str:
    """A host by its name, or by its address literal (RFC 5321 section 4.1.3)."""
    try:
        return literal_of(ip_address(host))
    except ValueError:
        return _clean(host)


def _printable(address: Address) -> str:
    return _UNPRINTABLE.sub(" ", str(address))


def _clean(text: str) -> str:
    """One line of printable ASCII, bounded."""
    return _UNPRINTABLE.sub(" ", text)[:_MAX_TEXT].strip().encode("ascii", "replace").decode("ascii")
