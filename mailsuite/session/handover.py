"""What becomes of a connection when a session ends: nothing (it is closed), or a handover."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from mailsuite.wire.core import Core

Session = Callable[[Any], Coroutine[Any, Any, "Handover | None"]]
"""A session: a callable that takes an `IConversation` and returns a coroutine."""


@dataclass(frozen=True, slots=True)
class Handover:
    """A fresh core and session for the same transport.

    `tls` is what Twisted's `startTLS` takes (an OpenSSL connection creator, for the server's or for the client's
    side), or None to go on as the connection is. The new session begins when the handshake is done. Octets that the
    old core left in `trailing_data` go to the new core; with `tls` there must be none, they would be plaintext injected
    before the handshake, and the connection is dropped (RFC 3207 section 4.2).
    """

    core: Core
    session: Session
    tls: Any = None
