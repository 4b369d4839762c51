"""A conversation, watched: what a session says and hears is told on the way.

The session is the relay's own and does not know. Credentials and content are not shown.

Where nothing is to be sent after all (`Trial`), what begins the content is held back: when all before it has been
answered, leave is taken, and the session finds the connection closed.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailsuite.admin.send.certificates import Handshake
from mailsuite.admin.send.steps import Mark, Teller
from mailsuite.interfaces import IConversation
from mailsuite.mail.reply import Reply
from mailsuite.session.handover import Handover, Session
from mailsuite.wire.core import ConnectionClosed
from mailsuite.wire.smtp.client import Closing, Greeting, Replied
from mailsuite.wire.smtp.client_states import LEGAL
from mailsuite.wire.smtp.commands import Auth, AuthResponse, Bdat, Command, Content, ContentEnd, Data, Quit, Rcpt


class Trial:
    """Whether the content is held back; `answer` is what was said to the recipient."""

    def __init__(self, *, holds_back: bool) -> None:
        self.holds_back = holds_back
        self.answer: Reply | None = None
        self.is_over = False


def watched(session: Session, teller: Teller, trial: Trial, handshake: Handshake) -> Session:
    """The same session, watched, behind STARTTLS too."""

    async def talk(conversation: IConversation) -> Handover | None:
        if conversation.tls is not None:
            handshake.succeeded(conversation.tls)
        handover = await session(WatchedConversation(conversation, teller, trial))
        if handover is None:
            return None
        tls = None if handover.tls is None else handshake.creator(handover.tls)
        return Handover(handover.core, watched(handover.session, teller, trial, handshake), tls)

    return talk


@implementer(IConversation)
class WatchedConversation:
    """Passes on what it tells of."""

    def __init__(self, conversation: IConversation, teller: Teller, trial: Trial) -> None:
        self._conversation = conversation
        self._teller = teller
        self._trial = trial
        self._unanswered = 0
        self._octets = 0
        self._is_held_back = False

    @property
    def peer(self) -> Any:  # noqa: ANN401 - as in the interface
        return self._conversation.peer

    @property
    def local(self) -> Any:  # noqa: ANN401 - as in the interface
        return self._conversation.local

    @property
    def tls(self) -> Any:  # noqa: ANN401 - as in the interface
        return self._conversation.tls

    @property
    def core(self) -> Any:  # noqa: ANN401 - as in the interface
        return self._conversation.core

    @property
    def line_by_line(self) -> bool:
        return bool(self._conversation.line_by_line)

    @line_by_line.setter
    def line_by_line(self, value: bool) -> None:
        self._conversation.line_by_line = value

    async def receive(self) -> Any:  # noqa: ANN401 - as in the interface
        if self._is_held_back and not self._unanswered:
            await self._leave()
        event = await self._conversation.receive()
        if isinstance(event, (Replied, Greeting, Closing)):
            if isinstance(event, Replied):
                self._unanswered -= 1
                if isinstance(event.command, Rcpt):
                    self._trial.answer = event.reply
            self._hear(event.reply)
        return event

    def send(self, message: object) -> None:
        if self._trial.holds_back and isinstance(message, (Data, Bdat)):
            self._is_held_back = True
        if self._is_held_back:
            return
        if isinstance(message, Content):
            self._octets += len(message.data)
        elif isinstance(message, ContentEnd):
            self._teller.tell("smtp", Mark.SAID, f"({self._octets} octets of content)")
            self._unanswered += 1
        elif isinstance(message, Command):
            self._teller.tell("smtp", Mark.SAID, _shown(message))
            # Behind DATA comes a 354, behind a chunk the answer to its end.
            self._unanswered += not isinstance(message, Bdat)
        self._conversation.send(message)

    async def drain(self) -> None:
        if not self._is_held_back:
            await self._conversation.drain()

    def _hear(self, reply: Reply) -> None:
        status = "" if reply.status is None else f"{reply.status} "
        lines = [f"{reply.code}-{status}{line}" for line in reply.lines[:-1]]
        lines.append(f"{reply.code} {status}{reply.lines[-1]}".rstrip())
        self._teller.tell("smtp", Mark.HEARD, "\n".join(lines))

    async def _leave(self) -> None:
        self._trial.is_over = True
        if self.core.state in LEGAL[Quit]:
            self._teller.tell("smtp", Mark.SAID, "QUIT")
            self._conversation.send(Quit())
            event = await self._conversation.receive()
            self._hear(event.reply)
        raise ConnectionClosed("nothing was to be sent")


def _shown(command: Command) -> str:
    """A command without what is secret in it."""
    if isinstance(command, AuthResponse):
        return "(credentials)"
    if isinstance(command, Auth):
        return f"AUTH {command.mechanism.decode('ascii', 'replace')}" + (" (credentials)" if command.initial else "")
    return command.line().decode("utf-8", "replace").rstrip("\r\n")
