"""One connection as a server's session sees it: what the peer has told and proved, and its message."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import CancelledError

from mailsuite.interfaces import IConversation
from mailsuite.mail.session import Identity
from mailsuite.session.door import DoorSettings
from mailsuite.session.reception import Reception
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow
from mailsuite.wire.smtp.commands import Ehlo, Helo

# What ends a session from outside, wherever it waits: never answered.
ENDINGS = (ConnectionClosed, PeerTooSlow, CancelledError)


@dataclass(slots=True, eq=False)
class Visit:
    """What the answers to one command leave for the next: `trusted` is by address, `identity` by AUTH.

    `reception` is the transaction under way, from MAIL to the answer to its end.
    """

    door: DoorSettings
    conversation: IConversation
    trusted: bool = False
    hello: Ehlo | Helo | None = None
    identity: Identity | None = None
    reception: Reception | None = None

    @property
    def peer_name(self) -> str:
        """Who is there, for the log."""
        return self.door.peer_name or self.conversation.peer.host or "a local socket"

    def forget(self) -> None:
        """Give up the transaction under way, if there is one; a message that was committed stays."""
        reception, self.reception = self.reception, None
        if reception is not None:
            reception.abort()
