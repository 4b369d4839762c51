"""Between sessions and the network: a connection as a session sees it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from zope.interface import Attribute, Interface


class IConversation(Interface):
    """A session's end of a connection: events of the core come in, messages to the core go out."""

    peer = Attribute("mailsuite.mail.session.Peer")
    local = Attribute("mailsuite.mail.session.Peer: our own end")
    tls = Attribute("mailsuite.mail.session.TLSFacts, or None while the connection is in plaintext")
    core = Attribute("the protocol core that this conversation is held through")
    line_by_line = Attribute(
        "bool, to be set: under TLS every line is a record of its own, for peers that read one line for each"
    )

    def receive() -> Awaitable[Any]:
        """The core's next event.

        Output is written before the wait begins, never earlier: replies to a pipelined group leave in one write.
        Raises `RemoteProtocolError` where the peer breaks the protocol beyond repair, `ConnectionClosed` when the
        connection has ended or was lost, `PeerTooSlow` when the limit of the core's phase has passed. A session that
        waits for something else when the connection is lost is cancelled (`CancelledError` at its await).
        """

    def send(message: Any) -> None:
        """Give the core a reply (server core) or a command (client core); the octets leave at the next wait."""

    def drain() -> Awaitable[None]:
        """Write what is there, and wait until the transport wants more. For content that is sent in chunks.

        Raises as `receive`.
        """
