"""What is kept of transactions that have a name, so that the peer need not send them again (RFC 1845)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailsuite.mail.envelope import Envelope
from mailsuite.mail.route import Target


@dataclass(frozen=True, slots=True)
class Partial:
    """Part of a message whose line broke.

    `draft` is an `IDraft` that holds it; `received` octets of the peer's content are in it.
    """

    draft: Any
    envelope: Envelope
    targets: Sequence[Target]
    received: int


@dataclass(frozen=True, slots=True)
class Completed:
    """A message that was committed: whoever sends it again has not heard so.

    The peer's content had `received` octets.
    """

    queue_id: str
    envelope: Envelope
    targets: Sequence[Target]
    received: int
