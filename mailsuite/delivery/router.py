"""The router: where a recipient's mail goes, or why it is refused (RFC 5321 section 3.6).

Local mailboxes and aliases come from the directory, everything else from the routes. An address is refused here, at
RCPT, if it can be: what was accepted and cannot be delivered would have to be bounced to somebody who may never have
sent it.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import IDirectory, IRouter, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.route import MAILDIR, Destination, Target
from mailsuite.mail.session import Identity

_MAX_TARGETS = 10_000  # of one recipient, aliases expanded
_MAX_DEPTH = 20  # aliases behind aliases


@implementer(IRouter)
class Router:
    """Answers from the directory and the routes; `local_agent` delivers to local mailboxes."""

    _log = Logger()

    def __init__(self, directory: IDirectory, routes: Routes, *, local_agent: str = MAILDIR) -> None:
        self._directory = directory
        self._routes = routes
        self._local = Destination(local_agent)

    async def resolve(self, recipient: Address, submitter: Identity | None, *, trusted: bool) -> Sequence[Target]:
        if not self._directory.is_local_domain(recipient.domain_key):
            if not (trusted or submitter is not None or self._routes.may_relay(recipient.domain)):
                raise Refused(replies.RELAYING_DENIED)
            return (Target(recipient, self._routes.destination(recipient.domain)),)
        mailbox = self._directory.mailbox(recipient)
        if mailbox is not None:
            return (Target(mailbox, self._local, None if mailbox == recipient else recipient),)
        return tuple(self._expand(recipient).values())

    def destination(self, address: Address) -> Destination:
        if self._directory.is_local_domain(address.domain_key):
            return self._local
        return self._routes.destination(address.domain)

    def _expand(self, recipient: Address) -> dict[Address, Target]:
        """Follow aliases to their ends. An alias may lead anywhere, also to where strangers may not send."""
        found: dict[Address, Target] = {}
        seen = {recipient}
        level = [recipient]
        looped = False
        for _depth in range(_MAX_DEPTH):
            following: list[Address] = []
            for address in level:
                end = self._end(address, recipient)
                if end is not None:
                    found.setdefault(end.address, end)
                    continue
                targets = self._targets(address, recipient)
                looped = looped or address in targets or recipient in targets
                following.extend(target for target in dict.fromkeys(targets) if target not in seen)
                seen.update(targets)
            if len(found) + len(following) > _MAX_TARGETS:
                raise Refused(replies.TOO_MANY_RECIPIENTS)
            if not following:
                break
            level = following
        else:
            raise Refused(replies.ALIAS_LOOP)
        if not found:
            raise Refused(replies.ALIAS_LOOP if looped else replies.NO_SUCH_USER)
        return found

    def _end(self, address: Address, recipient: Address) -> Target | None:
        """The target that an address is; None where it is an alias, or nothing."""
        if not self._directory.is_local_domain(address.domain_key):
            return Target(address, self._routes.destination(address.domain), recipient)
        mailbox = self._directory.mailbox(address)
        return None if mailbox is None else Target(mailbox, self._local, recipient)

    def _targets(self, address: Address, recipient: Address) -> Sequence[Address]:
        targets = self._directory.alias(address)
        if targets is None and address != recipient:
            self._log.warn("alias {alias} leads to {address}, which nobody has", alias=recipient, address=address)
        return targets or ()
