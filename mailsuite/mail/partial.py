"""Part of a message whose line broke, kept so that the peer need not send it again (RFC 1845)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailsuite.mail.envelope import Envelope
from mailsuite.mail.route import Target


@dataclass(frozen=True, slots=True)
class Partial:
    """What was kept. `draft` is an `IDraft` that holds it; `received` octets of the peer's content are in it."""

    draft: Any
    envelope: Envelope
    targets: Sequence[Target]
    received: int
