"""Callouts: asking the customer's server whether a recipient exists, by MAIL and RCPT without content.

The site is usually away, and then nothing is known: a recipient is only said not to exist where the server has said so
of this very recipient. Policy answers (5.7.x), full mailboxes and everything temporary say nothing about that.
A callout has no TLS and no credentials; a server that demands them tells nothing.
"""

from __future__ import annotations

from typing import Final

from mailsuite.interfaces import IConversation
from mailsuite.mail.address import Address
from mailsuite.mail.reply import Reply
from mailsuite.session.exchange import HungUp, exchange, hear
from mailsuite.session.handover import Handover
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow, RemoteProtocolError
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.client_states import LEGAL
from mailsuite.wire.smtp.commands import Ehlo, Helo, Mail, Quit, Rcpt

_LOST: Final = (ConnectionClosed, PeerTooSlow, RemoteProtocolError, HungUp)
_BAD_ADDRESS: Final = 1  # RFC 3463 section 3.2: X.1.X is about addresses


class CalloutSession:
    """Asks about one recipient. `exists` is None while it is not known, and where the server does not say.

    `answered` tells that there is a server.
    """

    def __init__(self, recipient: Address, hostname: str) -> None:
        self.answered = False
        self.exists: bool | None = None
        self._recipient = recipient
        self._hostname = hostname

    async def __call__(self, conversation: IConversation) -> Handover | None:
        """Ask, and take leave."""
        try:
            await self._ask(conversation)
            if conversation.core.state in LEGAL[Quit]:
                conversation.send(Quit())
                await conversation.receive()
        except _LOST:
            return None
        return None

    async def _ask(self, conversation: IConversation) -> None:
        greeting = (await hear(conversation)).reply
        self.answered = True
        if not greeting.is_positive:
            return
        reply = await exchange(conversation, Ehlo(self._hostname))
        if reply.is_permanent:
            reply = await exchange(conversation, Helo(self._hostname))
        if not reply.is_positive:
            return
        core: SmtpClientCore = conversation.core
        utf8 = not self._recipient.is_ascii
        if utf8 and not core.capabilities.smtputf8:
            return
        # The null reverse-path: nothing may ever come back, and every server must take it (RFC 5321 section 4.5.5).
        if (await exchange(conversation, Mail(None, smtputf8=utf8))).is_positive:
            self.exists = told_by(await exchange(conversation, Rcpt(self._recipient)))


def told_by(reply: Reply) -> bool | None:
    """What a reply to RCPT says about the recipient; None where it says nothing."""
    if reply.is_positive:
        return True
    if reply.status is not None:
        unknown = reply.is_permanent and reply.status.subject == _BAD_ADDRESS
    else:
        unknown = reply.code in (550, 551, 553)  # RFC 5321 section 4.3.2, RCPT
    return False if unknown else None
