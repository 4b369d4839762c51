"""Where a message came from: what the history keeps of its reception."""

from __future__ import annotations

from dataclasses import dataclass

from mailsuite.mail.session import Peer, TLSFacts


@dataclass(frozen=True, slots=True)
class Origin:
    """Who handed a message in, and how. `helo` is what the peer called itself, `service` the door it came by.

    `protocol` is that of the Received line (RFC 3848), `account` who has logged in. `message_id` is the header field's,
    with its angle brackets.
    """

    peer: Peer | None = None
    helo: str = ""
    protocol: str = ""
    service: str = ""
    account: str | None = None
    tls: TLSFacts | None = None
    message_id: str | None = None
