"""The message that `mailsuite send` sends: composed here, or read from a file."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import Final

from mailsuite import __version__
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_TEXT: Final = """\
This is a test message of `mailsuite send` on {hostname}. It was sent to see whether mail arrives;
nobody need answer it.
"""


def compose(sender: Address | None, recipient: Address, subject: str, hostname: str, now: float) -> bytes:
    """A test message."""
    message = EmailMessage(SMTP.clone(utf8=not (recipient.is_ascii and (sender is None or sender.is_ascii))))
    message["From"] = _mailbox(sender or Address("postmaster", hostname))
    message["To"] = _mailbox(recipient)
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Message-ID"] = make_msgid("test", domain=hostname)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5
    message["User-Agent"] = f"mailsuite/{__version__}"
    message.set_content(_TEXT.format(hostname=hostname))
    return message.as_bytes()


def with_line_ends(octets: bytes) -> bytes:
    """A message from a file, with the line ends of mail."""
    return _LINE_END.sub(b"\r\n", octets)


def body_of(octets: bytes) -> Body:
    """How the content may travel."""
    return Body.SEVEN_BIT if octets.isascii() else Body.EIGHT_BIT


def _mailbox(address: Address) -> Mailbox:
    return Mailbox(username=address.local_part, domain=address.domain)
