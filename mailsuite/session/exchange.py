"""A client session's plainest step: say one command, wait for its reply."""

from __future__ import annotations

from mailsuite.interfaces import IConversation
from mailsuite.mail.reply import Reply
from mailsuite.wire.smtp.client import Closing, Greeting, Replied
from mailsuite.wire.smtp.commands import Command


class HungUp(Exception):
    """The peer has said 421: it ends the connection (RFC 5321 section 3.8)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


async def exchange(conversation: IConversation, command: Command) -> Reply:
    """Say a command while nothing else is unanswered. Raises `HungUp` on 421, and as `IConversation.receive`."""
    conversation.send(command)
    return (await hear(conversation)).reply


async def hear(conversation: IConversation) -> Replied | Greeting:
    """The next reply. Raises `HungUp` on 421, and as `IConversation.receive`."""
    event: Replied | Greeting | Closing = await conversation.receive()
    if event.reply.code == 421 or isinstance(event, Closing):
        raise HungUp(event.reply)
    return event
