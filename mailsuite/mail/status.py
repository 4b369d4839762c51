"""Enhanced mail system status codes (RFC 3463, RFC 5248).

A status is class, subject and detail. The class follows the reply code it travels with; subject and detail
say what happened. `MEANINGS` names every pair that mailsuite knows; an unknown one is still a status.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)", re.ASCII)


class EnhancedStatus(NamedTuple):
    """One status, as in `5.1.1` (RFC 3463 section 2)."""

    class_: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.class_}.{self.subject}.{self.detail}"

    @property
    def meaning(self) -> str:
        """The registered meaning of subject and detail, or an empty string."""
        return MEANINGS.get((self.subject, self.detail), "")

    def of_class(self, class_: int) -> EnhancedStatus:
        """The same subject and detail under another class (2, 4 or 5)."""
        return self if self.class_ == class_ else EnhancedStatus(class_, self.subject, self.detail)

    @classmethod
    def parse(cls, text: str) -> EnhancedStatus | None:
        """The status at the head of a reply's text, or None where there is none (RFC 2034 section 4)."""
        match = _FORM.match(text)
        return None if match is None else cls(int(match[1]), int(match[2]), int(match[3]))


MEANINGS: dict[tuple[int, int], str] = {
    # RFC 3463 section 3.1
    (0, 0): "Other undefined status",
    # RFC 3463 section 3.2
    (1, 0): "Other address status",
    (1, 1): "Bad destination mailbox address",
    (1, 2): "Bad destination system address",
    (1, 3): "Bad destination mailbox address syntax",
    (1, 4): "Destination mailbox address ambiguous",
    (1, 5): "Destination mailbox address valid",
    (1, 6): "Mailbox has moved",
    (1, 7): "Bad sender's mailbox address syntax",
    (1, 8): "Bad sender's system address",
    (1, 9): "Message relayed to non-compliant mailer",  # RFC 3886
    (1, 10): "Recipient address has null MX",  # RFC 7505
    # RFC 3463 section 3.3
    (2, 0): "Other or undefined mailbox status",
    (2, 1): "Mailbox disabled, not accepting messages",
    (2, 2): "Mailbox full",
    (2, 3): "Message length exceeds administrative limit",
    (2, 4): "Mailing list expansion problem",
    # RFC 3463 section 3.4
    (3, 0): "Other or undefined mail system status",
    (3, 1): "Mail system full",
    (3, 2): "System not accepting network messages",
    (3, 3): "System not capable of selected features",
    (3, 4): "Message too big for system",
    (3, 5): "System incorrectly configured",
    # RFC 3463 section 3.5
    (4, 0): "Other or undefined network or routing status",
    (4, 1): "No answer from host",
    (4, 2): "Bad connection",
    (4, 3): "Directory server failure",
    (4, 4): "Unable to route",
    (4, 5): "Mail system congestion",
    (4, 6): "Routing loop detected",
    (4, 7): "Delivery time expired",
    # RFC 3463 section 3.6
    (5, 0): "Other or undefined protocol status",
    (5, 1): "Invalid command",
    (5, 2): "Syntax error",
    (5, 3): "Too many recipients",
    (5, 4): "Invalid command arguments",
    (5, 5): "Wrong protocol version",
    (5, 6): "Authentication exchange line is too long",  # RFC 4954
    # RFC 3463 section 3.7, RFC 6531
    (6, 0): "Other or undefined media error",
    (6, 1): "Media not supported",
    (6, 2): "Conversion required and prohibited",
    (6, 3): "Conversion required but not supported",
    (6, 4): "Conversion with loss performed",
    (6, 5): "Conversion failed",
    (6, 7): "Non-ASCII addresses not permitted for that sender or recipient",
    (6, 9): "UTF-8 header message cannot be transferred to one or more recipients",
    # RFC 3463 section 3.8, RFC 4954
    (7, 0): "Other or undefined security status",
    (7, 1): "Delivery not authorized, message refused",
    (7, 2): "Mailing list expansion prohibited",
    (7, 3): "Security conversion required but not possible",
    (7, 4): "Security features not supported",
    (7, 5): "Cryptographic failure",
    (7, 6): "Cryptographic algorithm not supported",
    (7, 7): "Message integrity failure",
    (7, 8): "Authentication credentials invalid",
    (7, 9): "Authentication mechanism is too weak",
    (7, 10): "Encryption needed",
    (7, 11): "Encryption required for requested authentication mechanism",
    (7, 12): "A password transition is needed",
}
