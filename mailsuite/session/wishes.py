"""What becomes of a sender's wishes (RFC 3461, RFC 8689) between the recipient that was named and the next hop.

Rules
- A list is redistributed by its owner: nothing that was asked goes on from there (RFC 3461 section 5.2.7.1). Where the
  sender wants to hear of the success, and no copy goes on under his own name, a target for the list itself tells it.
- An alias passes everything on, but only one of several copies tells of its success: the sender has asked to hear of
  one recipient (between (b) and (c) of section 5.2.7.3; a failure of any copy is told as was asked).
- Who was named is told to the next hop where an alias led to the recipient, and the sender has not said it (section
  5.2.1 (d)).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mailsuite.mail.address import Address
from mailsuite.mail.options import NO_WISHES, Notify, RecipientOptions
from mailsuite.mail.queue import Delivery, Recipient
from mailsuite.mail.route import REDISTRIBUTED, Destination, Target
from mailsuite.wire.smtp.commands import Mail, Rcpt
from mailsuite.wire.smtp.dsn import orcpt_of

_REWRITTEN: Final = re.compile(r"SRS[01][=+-]", re.IGNORECASE)


def inherited(wishes: RecipientOptions, targets: Sequence[Target], named: Address) -> Sequence[Target]:
    """The targets of one recipient, as the sender has `named` it, with what was asked for that one."""
    if wishes is NO_WISHES:
        return targets
    others = wishes
    if len(targets) > 1 and wishes.notify is not None:
        others = replace(wishes, notify=wishes.notify & ~Notify.SUCCESS)
    heirs = []
    for target in targets:
        if _is_new_sender(target.reverse_path):
            heirs.append(target)
        else:
            heirs.append(replace(target, options=wishes))
            wishes = others
    tells = wishes.notify is not None and Notify.SUCCESS in wishes.notify
    if tells and all(_is_new_sender(target.reverse_path) for target in targets):
        # RFC 3461 section 5.2.7.1: the sender MUST hear that the list has it.
        rule = "a list has taken it over"
        told = replace(wishes, notify=Notify.SUCCESS)
        heirs.append(Target(named, Destination(REDISTRIBUTED, named.domain_key), options=told, rule=rule))
    return heirs


def is_redistributed(delivery: Delivery) -> bool:
    """Whether this is a copy that a list sends, for which nothing counts that was asked of the list."""
    return _is_new_sender(delivery.recipients[0].reverse_path)


def rcpt(address: Address, recipient: Recipient, mail: Mail, *, dsn: bool) -> Rcpt:
    """RCPT for a recipient, whose address is said as `address`; `dsn` says whether the next hop knows RFC 3461."""
    if not dsn:
        return Rcpt(address)
    options = recipient.options
    orcpt = options.orcpt
    if orcpt is None:
        if recipient.original is None or _is_new_sender(recipient.reverse_path):
            return Rcpt(address, options.notify)
        orcpt = orcpt_of(recipient.original)
    return Rcpt(address, options.notify, orcpt, smtputf8=mail.smtputf8)


def _is_new_sender(reverse_path: Address | None) -> bool:
    """Whether the sender is somebody else now. SRS has the old one say the same in other words."""
    return reverse_path is not None and _REWRITTEN.match(reverse_path.local_part) is None
