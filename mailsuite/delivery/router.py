"""The router: where a recipient's mail goes, or why it is refused (RFC 5321 section 3.6).

Local mailboxes and aliases come from the directory, domains that are held from the customers, everything else from the
routes. An address is refused here, at RCPT, if it can be: what was accepted and cannot be delivered would have to be
bounced to somebody who may never have sent it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import IDirectory, IRouter, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address, domain_key
from mailsuite.mail.route import HOLD, MAILDIR, RELAY, Destination, Target
from mailsuite.mail.session import Identity

_MAX_TARGETS = 10_000  # of one recipient, aliases expanded
_MAX_DEPTH = 20  # aliases behind aliases


class HoldsMail(Protocol):
    """What is asked about customers' domains: see `mailsuite.delivery.on_demand.admission.Admission`."""

    def is_held(self, domain: str) -> bool:
        """Whether mail for a domain (a domain key) is held for a customer."""

    async def admit(self, address: Address) -> None:
        """Let mail for an address of a held domain in. Raises `Refused`."""


@implementer(IRouter)
class Router:
    """Answers from the directory and the routes; `local_agent` delivers to local mailboxes.

    Mail for what `held` holds is taken from strangers too, as far as it is admitted there.

    `literals` are the address literals by which we are reached (`[192.0.2.1]`): nobody but the postmaster has a mailbox
    at one.
    """

    _log = Logger()

    def __init__(
        self,
        directory: IDirectory,
        routes: Routes,
        *,
        local_agent: str = MAILDIR,
        literals: Iterable[str] = (),
        held: HoldsMail | None = None,
    ) -> None:
        self._directory = directory
        self._routes = routes
        self._held = held
        self._local = Destination(local_agent)
        self._literals = frozenset(map(domain_key, literals))

    async def resolve(self, recipient: Address, submitter: Identity | None, *, trusted: bool) -> Sequence[Target]:
        target = self._target(recipient, recipient)
        if target is None:
            return await self._admitted(self._expand(recipient))
        if self._is_held(target.address):
            await self._admit(target.address)
            return (target,)
        permitted = trusted or submitter is not None or self._is_local(recipient)
        if not (permitted or self._routes.may_relay(recipient.domain)):
            raise Refused(replies.RELAYING_DENIED)
        return (target,)

    def destination(self, address: Address) -> Destination:
        return self._local if self._is_local(address) else self._elsewhere(address)

    def rerouted(self, address: Address, present: Destination) -> Destination:
        """Where mail that waits under the destination `present` goes by the configuration of now; never refuses.

        What is held leaves only for a mailbox, or for a next hop that the configuration names for its domain. That it
        is held for nobody any more is no reason to send it to the MX of the domain, which may well be ourselves.
        """
        destination = self.destination(address)
        if present.agent != HOLD or destination.agent != RELAY or self._routes.has_next_hop(address.domain):
            return destination
        return present

    def _elsewhere(self, address: Address) -> Destination:
        if self._is_held(address):
            return Destination(HOLD, address.domain_key)
        return self._routes.destination(address.domain)

    def _is_held(self, address: Address) -> bool:
        return self._held is not None and not self._is_local(address) and self._held.is_held(address.domain_key)

    async def _admit(self, address: Address) -> None:
        assert self._held is not None
        await self._held.admit(address)

    async def _admitted(self, targets: Mapping[Address, Target]) -> Sequence[Target]:
        """Those of an alias' targets that are taken. Raises `Refused` where none is, or where one may be later."""
        admitted: list[Target] = []
        refusal: Refused | None = None
        for address, target in targets.items():
            try:
                if self._is_held(address):
                    await self._admit(address)
            except Refused as refused:
                if refused.reply.is_transient:
                    raise
                self._log.warn("an alias leads to {address}: {reply}", address=str(address), reply=str(refused.reply))
                refusal = refused
            else:
                admitted.append(target)
        if refusal is not None and not admitted:
            raise refusal
        return tuple(admitted)

    def _is_local(self, address: Address) -> bool:
        key = address.domain_key
        return self._directory.is_local_domain(key) or key in self._literals

    def _plain(self, address: Address) -> Address:
        """What to ask the directory for: a mailbox at one of our own literals is one without a domain."""
        return Address(address.local_part, "") if address.domain_key in self._literals else address

    def _target(self, address: Address, recipient: Address) -> Target | None:
        """The target that an address is by itself, reached from `recipient`; None for an alias, and for nobody."""
        original = None if address == recipient else recipient
        if not self._is_local(address):
            return Target(address, self._elsewhere(address), original)
        mailbox = self._directory.mailbox(self._plain(address))
        return None if mailbox is None else Target(mailbox, self._local, None if mailbox == recipient else recipient)

    def _expand(self, recipient: Address) -> dict[Address, Target]:
        """Follow aliases to their ends. An alias may lead anywhere, also to where strangers may not send.

        A branch that leads nowhere, or back into itself, is left out where others lead to somebody.
        """
        found: dict[Address, Target] = {}
        seen = {recipient}
        # Each address with those that led to it.
        level: list[tuple[Address, tuple[Address, ...]]] = [(recipient, ())]
        looped = False
        for _depth in range(_MAX_DEPTH):
            following: list[tuple[Address, tuple[Address, ...]]] = []
            for address, path in level:
                target = self._target(address, recipient)
                if target is not None:
                    found.setdefault(target.address, target)
                    continue
                for member in self._members(address, recipient):
                    if member not in seen:
                        seen.add(member)
                        following.append((member, (*path, address)))
                    elif member == address or member in path:
                        looped = True
            if len(found) + len(following) > _MAX_TARGETS:
                raise Refused(replies.ALIAS_TOO_LARGE)
            level = following
        if not found:
            raise Refused(replies.ALIAS_LOOP if looped or level else replies.NO_SUCH_USER)
        return found

    def _members(self, address: Address, recipient: Address) -> Sequence[Address]:
        members = self._directory.alias(self._plain(address))
        if members is None and address != recipient:
            self._log.warn(
                "alias {alias} names {address}, which nobody has", alias=str(recipient), address=str(address)
            )
        return members or ()
