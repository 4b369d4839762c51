"""The name that a transaction has for the next hop: TRANSID (RFC 1845 section 2).

It "must be constructed to insure both uniqueness and the ability to reidentify interrupted transactions", so it is made
of nothing but what outlasts a restart: the message, where it goes, to whom, and how it is said. Other recipients of the
same message are another transaction, by another name: a server that resumes one keeps the recipients of that one.

Known limits: where one of several recipients was refused and the line broke before the content was answered, the next
attempt is for the others only, and resumes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from mailsuite.mail.queue import Delivery
from mailsuite.wire.smtp.checkpoint import is_transid

_PLAIN: Final = re.compile(r"[0-9A-Za-z-]{1,32}")


def transid_of(delivery: Delivery, recipients: Iterable[int], hostname: str, *, chunking: bool, serial: int = 0) -> str:
    """The TRANSID, without its brackets, for some recipients of a delivery, by their positions in it.

    `chunking` says whether the content is said by BDAT: in DATA it may have other octets. `serial` counts how often the
    transaction was begun anew because it could not be resumed.
    """
    message = delivery.message
    told = [
        message.queue_id,
        repr(message.arrived),
        str(message.size),
        str(delivery.destination),
        "BDAT" if chunking else "DATA",
        str(serial),
        *sorted(str(delivery.recipients[index].address) for index in recipients),
    ]
    name = message.queue_id if _PLAIN.fullmatch(message.queue_id) else _digest(message.queue_id)
    transid = f"{name}.{_digest(*told)}@{hostname}"
    # An address literal is no domain for a TRANSID, and a long name leaves it no room.
    return transid if is_transid(transid) else f"{name}.{_digest(*told)}@{_digest(hostname)}"


def _digest(*texts: str) -> str:
    hashed = blake2b(digest_size=8)
    for text in texts:
        octets = text.encode()
        hashed.update(b"%d:" % len(octets) + octets)
    return hashed.hexdigest()
