"""What was said on a connection and has no reply yet, and whose it is.

Replies come in the order of the commands (RFC 2920 section 3.1), so the next one is for whoever has waited longest.
Replies that nobody has asked for never come this far: to the core they are a violation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from mailsuite.interfaces import IConversation
from mailsuite.session.exchange import hear
from mailsuite.wire.core import RemoteProtocolError
from mailsuite.wire.smtp.client import Replied, SmtpClientCore
from mailsuite.wire.smtp.commands import Command, Quit


class Speaker(Protocol):
    """Whoever has said something and waits for replies."""

    def take(self, event: Replied) -> None:
        """The next reply to what it has said. Raises `RemoteProtocolError`."""


class Pipeline:
    """The client's end of a connection, shared by transactions that overlap.

    `heard` is called behind each reply, `has_quit` says that QUIT was said: nothing may follow.
    """

    def __init__(self, conversation: IConversation) -> None:
        self.conversation = conversation
        self.core: SmtpClientCore = conversation.core
        self.heard: Callable[[], object] = _nothing
        self.has_quit = False
        self._waiting: deque[Speaker] = deque()

    def say(self, command: Command, speaker: Speaker) -> None:
        """Say a command that has one reply."""
        self.conversation.send(command)
        self.expect(speaker)

    def quit(self) -> None:
        """Say that nothing more will be said, whatever the replies that are still to come (RFC 2920 section 3.1)."""
        self.conversation.send(Quit())
        self.has_quit = True

    def expect(self, speaker: Speaker, replies: int = 1) -> None:
        """Note what will be answered."""
        self._waiting.extend([speaker] * replies)

    @property
    def unanswered(self) -> int:
        """How many replies are still to come."""
        return len(self._waiting)

    async def hear(self) -> None:
        """Take the next reply. Raises as `exchange.hear`."""
        event = await hear(self.conversation)
        assert isinstance(event, Replied)  # it was greeted before
        self._give(event)

    def hear_last_words(self) -> None:
        """Take the replies that have come already: the connection has ended, and nobody will wait for them."""
        while self._waiting and isinstance(event := self.core.next_event(), Replied) and event.reply.code != 421:
            try:
                self._give(event)
            except RemoteProtocolError:
                return

    def _give(self, event: Replied) -> None:
        self._waiting.popleft().take(event)
        self.heard()


def _nothing() -> None:
    """Nobody wants to know."""
