"""The router: where a recipient's mail goes, or why it is refused (RFC 5321 section 3.6).

Local mailboxes and aliases come from the directory, domains that are held from the customers, everything else from the
routes; a route that names its recipient comes before them all. An address is refused here, at RCPT, if it can be: what
was accepted and cannot be delivered would have to be bounced to somebody who may never have sent it.

Routes look at the sender that the mail leaves under: behind an alias that is its owner, or the rewritten sender. It is
proven where the peer is authenticated or trusted, or where it is one of these two; who is not may be anybody, and gets
no route that lends a sender credentials of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.aliases import Aliases, Leaf
from mailsuite.delivery.routes import Route, Routes, account_of
from mailsuite.delivery.srs import Forged, Rewriting
from mailsuite.interfaces import IDirectory, IRouter, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address, domain_key
from mailsuite.mail.route import HOLD, MAILDIR, REDISTRIBUTED, RELAY, Destination, Target
from mailsuite.mail.session import Identity

_EXPIRED = "expired"  # the agent of what an operator has given up
_GUARDED = "that route has credentials of ours: it counts only for senders who are authenticated or trusted"


class HoldsMail(Protocol):
    """What is asked about customers' domains: see `mailsuite.delivery.on_demand.admission.Admission`."""

    def is_held(self, domain: str) -> bool:
        """Whether mail for a domain (a domain key) is held for a customer."""

    async def admit(self, address: Address, *, is_report: bool = False) -> None:
        """Let mail for an address of a held domain in. Raises `Refused`."""


@implementer(IRouter)
class Router:
    """Answers from the directory and the routes; `local_agent` delivers to local mailboxes.

    Mail for what `held` holds is taken from strangers too, as far as it is admitted there.

    `literals` are the address literals by which we are reached (`[192.0.2.1]`): nobody but the postmaster has a mailbox
    at one. `rewriting` rewrites the senders of what an alias passes on.
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
        rewriting: Rewriting | None = None,
    ) -> None:
        self._directory = directory
        self._routes = routes
        self._held = held
        self._local = Destination(local_agent)
        self._literals = frozenset(map(domain_key, literals))
        self._rewriting = rewriting
        self._aliases = Aliases(directory, self._plain)

    async def resolve(
        self,
        recipient: Address,
        submitter: Identity | None,
        *,
        trusted: bool,
        sender: Address | None = None,
        is_report: bool = False,
    ) -> Sequence[Target]:
        known = trusted or submitter is not None
        return await self._resolved(recipient, sender, permitted=known, proven=known, is_report=is_report)

    async def resolve_for_provider(self, recipient: Address, sender: Address | None = None) -> Sequence[Target]:
        """`resolve` for a provider that has held the mail: it may relay, and its senders may be anybody."""
        return await self._resolved(recipient, sender, permitted=True, proven=False)

    def destination(self, address: Address, sender: Address | None = None) -> Destination:
        return self._destination(address, sender, proven=True)

    def explain(self, address: Address, sender: Address | None = None) -> Sequence[str]:
        return tuple(self._explained(address, sender))

    def rerouted(self, address: Address, present: Destination, sender: Address | None = None) -> Destination:
        """Where mail that waits under the destination `present` goes by the configuration of now; never refuses.

        What is held leaves only for a mailbox, or for where a route says of its domain. That it is held for nobody any
        more is no reason to send it to the MX of the domain, which may well be ourselves.
        """
        if present.agent in (_EXPIRED, REDISTRIBUTED):
            return present
        destination = self.destination(address, sender)
        if not self._may_use_account(destination, present, sender):
            destination = self._destination(address, sender, proven=False)
        if present.agent != HOLD or destination.agent in (self._local.agent, HOLD):
            return destination
        route = self._routes.route(address, sender)
        return destination if route is not None and route.is_specific and route.leads else present

    # ------------------------------------------------------------------------------------------- one address

    async def _resolved(
        self, recipient: Address, sender: Address | None, *, permitted: bool, proven: bool, is_report: bool = False
    ) -> Sequence[Target]:
        if self._rewriting is not None and self._rewriting.is_rewritten(recipient):
            return await self._returned(self._rewriting, recipient, sender, proven=proven, is_report=is_report)
        target = self._target(recipient, sender, proven=proven)
        if target is None:
            return await self._admitted(self._behind_alias(recipient, sender, proven=proven), is_report=is_report)
        if target.destination.agent == HOLD and self._is_held(target.address):
            await self._admit(target.address, is_report=is_report)
            return (target,)
        if not (permitted or self._is_local(recipient) or self._routes.may_relay(recipient, sender)):
            raise Refused(replies.RELAYING_DENIED)
        return (target,)

    def _destination(self, address: Address, sender: Address | None, *, proven: bool) -> Destination:
        if self._is_local(address):
            route = self._routes.route_of_recipient(address, sender, proven=proven)
            return self._local if route is None else self._routes.destination_by(route, address)
        if self._is_held(address):
            return Destination(HOLD, address.domain_key)
        return self._routes.destination_by(self._routes.route(address, sender, proven=proven), address)

    def _may_use_account(self, destination: Destination, present: Destination, sender: Address | None) -> bool:
        """Whether mail that waits may leave by an account of ours: that its sender was proven, if so, is not on record.

        What waits under the same account had been let there.
        """
        account = account_of(destination)
        if account is None or account == account_of(present):
            return True
        return sender is not None and self._was_rewritten(sender)

    def _was_rewritten(self, sender: Address) -> bool:
        if self._rewriting is None or not self._rewriting.is_rewritten(sender):
            return False
        try:
            self._rewriting.reverse(sender)
        except Forged:
            return False
        return True

    def _target(
        self, address: Address, sender: Address | None, recipient: Address | None = None, *, proven: bool
    ) -> Target | None:
        """The target that an address is by itself, reached from `recipient`; None for an alias, and for nobody."""
        if not self._is_local(address):
            if self._is_held(address):
                return Target(address, Destination(HOLD, address.domain_key), recipient, rule="held for a customer")
            return self._routed(address, self._routes.route(address, sender, proven=proven), recipient)
        route = self._routes.route_of_recipient(address, sender, proven=proven)
        if route is not None:
            return self._routed(address, route, recipient)
        mailbox = self._directory.mailbox(self._plain(address))
        if mailbox is None:
            return None
        # A subaddress is remembered, too.
        original = recipient or (None if mailbox == address else address)
        return Target(mailbox, self._local, original, rule="local mailbox")

    def _routed(self, address: Address, route: Route | None, recipient: Address | None) -> Target:
        rule = "MX of the domain" if route is None else route.rule
        return Target(address, self._routes.destination_by(route, address), recipient, rule=rule)

    def _is_local(self, address: Address) -> bool:
        key = address.domain_key
        return self._directory.is_local_domain(key) or key in self._literals

    def _plain(self, address: Address) -> Address:
        """What to ask the directory for: a mailbox at one of our own literals is one without a domain."""
        return Address(address.local_part, "") if address.domain_key in self._literals else address

    # ----------------------------------------------------------------------------------------- what is held

    def _is_held(self, address: Address) -> bool:
        return self._held is not None and not self._is_local(address) and self._held.is_held(address.domain_key)

    async def _admit(self, address: Address, *, is_report: bool) -> None:
        assert self._held is not None
        await self._held.admit(address, is_report=is_report)

    async def _admitted(self, targets: Mapping[Address, Target], *, is_report: bool) -> Sequence[Target]:
        """Those of an alias' targets that are taken. Raises `Refused` where none is, or where one may be later."""
        admitted: list[Target] = []
        refusal: Refused | None = None
        for address, target in targets.items():
            try:
                if target.destination.agent == HOLD and self._is_held(address):
                    await self._admit(address, is_report=is_report)
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

    # --------------------------------------------------------------------------- aliases, and the way back

    def _behind_alias(self, recipient: Address, sender: Address | None, *, proven: bool) -> dict[Address, Target]:
        """What an alias stands for in the end. It may lead anywhere, also to where strangers may not send."""

        def target_of(address: Address, owner: Address | None) -> Target | None:
            if address == recipient:
                return None  # it has been looked at
            reverse_path = self._reverse_path(address, sender, owner)
            return self._passed_on(address, reverse_path, sender, recipient, proven=proven)

        return self._aliases.expand(recipient, target_of)

    def _passed_on(
        self,
        address: Address,
        reverse_path: Address | None,
        sender: Address | None,
        recipient: Address,
        *,
        proven: bool,
    ) -> Target | None:
        # What differs is of our own making: nobody else has said it.
        target = self._target(address, reverse_path, recipient, proven=proven or reverse_path != sender)
        if target is None:
            return None
        target = replace(target, rule=f"alias {recipient}; {target.rule}")
        return target if reverse_path == sender else replace(target, reverse_path=reverse_path)

    def _reverse_path(self, address: Address, sender: Address | None, owner: Address | None) -> Address | None:
        """Who is named as the sender to somebody behind an alias."""
        if sender is None:
            return None  # RFC 5321 section 4.5.5: what has none is answered by nobody, and stays so
        if owner is not None:
            return owner  # RFC 5321 section 3.9.2
        if self._rewriting is None or self._is_local(address) or self._is_local(sender):
            return sender
        return self._rewriting.forward(sender)

    async def _returned(
        self, rewriting: Rewriting, recipient: Address, sender: Address | None, *, proven: bool, is_report: bool
    ) -> Sequence[Target]:
        """The targets of an address that we have rewritten: whoever has one got it from us, and may send there."""
        try:
            whose = rewriting.reverse(recipient)
        except Forged as forged:
            self._log.info("{why}", why=str(forged))
            raise Refused(replies.NO_SUCH_USER) from None
        if rewriting.is_rewritten(whose):
            raise Refused(replies.ALIAS_LOOP)
        found = await self._resolved(whose, sender, permitted=True, proven=proven, is_report=is_report)
        return tuple(replace(target, original=recipient, rule=f"SRS; {target.rule}") for target in found)

    # --------------------------------------------------------------------------------------------- in words

    def _explained(self, address: Address, sender: Address | None) -> Iterator[str]:
        if self._rewriting is not None and self._rewriting.is_rewritten(address):
            try:
                whose = self._rewriting.reverse(address)
            except Forged as forged:
                yield f"{forged}: refused"
                return
            yield f"{address} is a rewritten sender (SRS) of ours: it stands for {whose}"
            address = whose
        target = self._target(address, sender, proven=True)
        if target is not None:
            yield self._in_words(target, address)
            if target.destination != self._destination(address, sender, proven=False):
                yield _GUARDED
            if not self._is_local(address) and not self._is_held(address):
                may = self._routes.may_relay(address, sender)
                who = "strangers may send there through us" if may else "only those who may relay can send there"
                yield f"{address.domain} is not ours: {who}"
            return
        leaves: list[Leaf] = []
        try:
            found = self._aliases.expand(address, lambda one, owner: self._leaf(one, owner, address, sender), leaves)
        except Refused as refused:
            yield f"{address}: refused, {refused.reply}"
            return
        for leaf in leaves:
            owner = "" if leaf.owner is None or sender is None else f", sent under {leaf.owner}, its owner"
            yield f"{leaf.alias} is an alias of {', '.join(map(str, leaf.members))}{owner}"
        for target in found.values():
            yield from self._passed_on_in_words(target, sender)

    def _passed_on_in_words(self, target: Target, sender: Address | None) -> Iterator[str]:
        yield self._in_words(target, target.address)
        if target.reverse_path is not None:
            yield f"{target.address} gets it under the sender {target.reverse_path}"
        elif target.destination != self._destination(target.address, sender, proven=False):
            yield _GUARDED

    def _leaf(self, one: Address, owner: Address | None, recipient: Address, sender: Address | None) -> Target | None:
        if one == recipient:
            return None
        target = self._passed_on(one, self._reverse_path(one, sender, owner), sender, recipient, proven=True)
        return target and replace(target, rule=target.rule.partition("; ")[2])

    def _in_words(self, target: Target, address: Address) -> str:
        destination = target.destination
        if destination == self._local:
            return f"{address}: the mailbox {target.address} takes it, by the agent {destination.agent}"
        if destination.agent == HOLD:
            return f"{address}: {target.rule}; it is held until it is asked for"
        if destination.agent == RELAY:
            way = "the MX is asked" if destination.name == address.domain_key else f"it goes to {destination.name}"
            return f"{address}: {target.rule}; {way}"
        return f"{address}: {target.rule}; the agent {destination.agent} takes it"
