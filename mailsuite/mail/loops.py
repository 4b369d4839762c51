"""Loops of mail that aliases pass on: a message that comes back to an alias has that alias' name in it.

What an alias passes on to other servers gets a Delivered-To line (RFC 9228) with the alias; what has that line already
went this way before. With several recipients in one transaction there is no line, for each would learn of the others
(RFC 5321 section 7.2): such a loop ends a round later, or with the hundredth Received line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.route import HOLD, RELAY, Target

_DELIVERED_TO = re.compile(rb"^delivered-to[ \t]*:[ \t]*([^\r\n]{1,1000})", re.IGNORECASE | re.MULTILINE)
_MOST = 200  # lines that are looked at; more of them are a loop anyway


def passed_on(recipient: Address | None, targets: Sequence[Target], *, smtputf8: bool) -> Address | None:
    """The alias that passes a message on to other servers, where it is the only `recipient`."""
    if recipient is None or not (smtputf8 or recipient.is_ascii):
        return None
    leaves = any(target.original is not None and target.destination.agent in (RELAY, HOLD) for target in targets)
    return recipient if leaves else None


def went_to(header: bytes, address: Address) -> bool:
    """Whether a message went to this address before, whatever the case of letters; its header comes as octets."""
    key = (address.local_part.casefold(), address.domain_key)
    for number, match in enumerate(_DELIVERED_TO.finditer(header)):
        if number == _MOST:
            return True
        found = parse_mailbox(match[1].decode("utf-8", "replace").strip())
        if found is not None and (found.local_part.casefold(), found.domain_key) == key:
            return True
    return False
