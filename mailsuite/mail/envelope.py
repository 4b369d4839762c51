"""The envelope: who sends, and how the content may travel (RFC 5321 section 2.3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mailsuite.mail.address import Address
from mailsuite.mail.options import PLAIN, MessageOptions


class Body(StrEnum):
    """What the content is made of (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a MAIL command opens; recipients join it one by one and are kept apart, as `mail.route.Target`.

    `reverse_path` is None for the null sender, to whom nothing is ever reported. `submitter` is the account
    that handed the message in, if any. `options` is what else MAIL has asked for.
    """

    reverse_path: Address | None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    submitter: str | None = None
    options: MessageOptions = PLAIN
