"""The letter to a customer's contact about held mail that is about to be returned. A function of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from email.generator import BytesGenerator
from email.message import Message as Part
from email.policy import compat32
from io import BytesIO
from typing import Final

from mailsuite.mail.address import Address, domain_key
from mailsuite.mail.plain import plain
from mailsuite.mail.queue import Message
from mailsuite.mail.trace import date_time

MOST_LISTED: Final = 50
_POLICY: Final = compat32.clone(linesep="\r\n")
_WIDEST: Final = 200


def digest(
    contact: Address, name: str, messages: Sequence[tuple[Message, float]], count: int, *, hostname: str, now: float
) -> bytes:
    """Compose the letter, as octets with CRLF.

    `messages` are some of the `count` that it is about, each with the time when it will be returned. The contact's
    local part is in ASCII.
    """
    letter = Part(policy=_POLICY)
    letter["From"] = f"Mail delivery at {hostname} <MAILER-DAEMON@{hostname}>"
    letter["To"] = f"<{Address(contact.local_part, domain_key(contact.domain))}>"
    what = "1 message" if count == 1 else f"{count} messages"
    letter["Subject"] = f"{what} for {_clean(name)} will be returned soon".encode("ascii", "replace").decode()
    letter["Date"] = date_time(now)
    letter["Message-ID"] = f"<held.{int(now)}.{messages[0][0].queue_id}@{hostname}>"
    letter["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5
    letter["MIME-Version"] = "1.0"
    letter["Content-Type"] = "text/plain; charset=utf-8"
    lines = [
        f"{hostname} holds {what} for {_clean(name)} that nobody has collected.",
        "Unless they are collected in time, they go back to their senders.",
        "",
    ]
    for message, until in messages[:MOST_LISTED]:
        sender = _clean(str(message.envelope.reverse_path or "<>"))
        lines.append(f"{message.queue_id}: from {sender}, {message.size} octets")
        lines.append(f"    came on {date_time(message.arrived)}, is held until {date_time(until)}")
    if count > MOST_LISTED:
        lines.append(f"and {count - MOST_LISTED} more")
    text = "\r\n".join([*lines, ""])
    letter["Content-Transfer-Encoding"] = "7bit" if text.isascii() else "8bit"
    # Octets in disguise: the generator writes surrogates as the octets they stand for.
    letter.set_payload(text.encode("utf-8", "replace").decode("ascii", "surrogateescape"))
    octets = BytesIO()
    BytesGenerator(octets, mangle_from_=False).flatten(letter)
    return octets.getvalue()


def _clean(text: str) -> str:
    return plain(text)[:_WIDEST]
