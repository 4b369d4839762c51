"""One connection as a server's session sees it: what the peer has told and proved, and its message."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailsuite.interfaces import IConversation, SpoolError
from mailsuite.mail.session import Identity, RefusedLogin
from mailsuite.session.door import DoorSettings
from mailsuite.session.reception import Reception
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow
from mailsuite.wire.smtp.commands import Ehlo, Helo

_log = Logger()

# What ends a session from outside, wherever it waits: never answered.
ENDINGS = (ConnectionClosed, PeerTooSlow, CancelledError)
_MOST_NAMES: Final = 10_000  # of transactions that one connection has completed; older ones go by time


@dataclass(slots=True, eq=False)
class Visit:
    """What the answers to one command leave for the next: `trusted` is by address, `identity` by AUTH.

    `reception` is the transaction under way, from MAIL to the answer to its end. `completed` are the names of those
    that had one and have been completed, while it is not certain that the answer leaves before the peer says anything
    more.
    """

    door: DoorSettings
    conversation: IConversation
    trusted: bool = False
    hello: Ehlo | Helo | None = None
    identity: Identity | None = None
    reception: Reception | None = None
    completed: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_NAMES))
    _refused_logins: dict[str, set[str]] = field(default_factory=dict)
    _answered: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_NAMES))

    @property
    def peer_name(self) -> str:
        """Who is there, for the log."""
        return self.door.peer_name or self.conversation.peer.host or "a local socket"

    def name_of(self, transid: str) -> str:
        """The name of a transaction in the spool: nobody else can say one that begins so and ends with this peer.

        RFC 1845 section 2 has the name of EHLO beside TRANSID; anybody can say that, but not from this address.
        """
        identity, hello = self.identity, self.hello
        if identity is not None:
            return f"{transid} {'account' if identity.customer is None else 'customer'} {identity.name}"
        if self.door.peer_name:
            return f"{transid} peer {self.door.peer_name}"
        assert hello is not None
        return f"{transid} host {self.conversation.peer.host} {hello.domain.lower()}"

    def refuse_login(self, refused: RefusedLogin) -> None:
        """Tell of a login that has failed: once where a client tries one mechanism after the other with one name."""
        tried = self._refused_logins.setdefault(refused.login, set())
        is_same = bool(tried) and refused.mechanism not in tried
        if not is_same:
            tried.clear()
        tried.add(refused.mechanism)
        if not is_same:
            self.door.refused_login(refused)

    def forget(self) -> None:
        """Give up the transaction under way, if there is one; a message that was committed stays."""
        reception, self.reception = self.reception, None
        if reception is not None:
            reception.abort()

    def break_off(self) -> None:
        """The line has broken: what came of a transaction that has a name is kept (RFC 1845 section 3)."""
        reception, self.reception = self.reception, None
        if reception is None:
            return
        if self.conversation.core.content_fault is not None:
            reception.abort()  # it would be refused
        else:
            self.keep(reception)

    def keep(self, reception: Reception) -> None:
        """Give a transaction up, and keep what is worth it. Nobody waits for that."""
        remainder = reception.leave(self.door.checkpoints.worth_keeping)
        if remainder is None:
            return
        draft, name, received, size = remainder
        self.door.log(
            f"{draft.queue_id}: from=<{reception.envelope.reverse_path or ''}> of {self.peer_name}: "
            f"the line broke behind {received} octets, which are kept"
        )
        keeping = self.door.spool.keep(draft, name, reception.envelope, reception.targets, received, size=size)
        _detach(keeping, "keep a part")

    def note_written(self) -> None:
        """The next event is about to be asked for: where none of it is here yet, what was answered is written first."""
        if not self.conversation.core.buffered:
            self._answered.extend(self.completed)
            self.completed.clear()

    def part(self) -> None:
        """The peer says farewell: it has heard what became of its transactions (RFC 1845 section 3).

        What came in one piece with the farewell had no answer yet when that was said, and is not forgotten.
        """
        if self._answered:
            _detach(self.door.spool.heard(tuple(self._answered)), "forget completed transactions")
            self._answered.clear()


def _detach(work: Awaitable[None], what: str) -> None:
    """See to work that goes on behind the session."""

    async def do() -> None:
        try:
            await work
        except SpoolError as error:
            _log.error("the spool cannot {what}: {error}", what=what, error=error)

    Deferred.fromCoroutine(do()).addErrback(lambda failure: _log.failure("the spool cannot {what}", failure, what=what))
