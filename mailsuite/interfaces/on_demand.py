"""Between sessions and the mail that is held for customers."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from mailsuite.mail.address import Address
from mailsuite.mail.customer import Customer
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Identity, Peer


class ITurn(Interface):
    """A customer's turn: its mail on the connection it came by, the roles reversed (RFC 2645 section 5.3)."""

    customer = Attribute("mailsuite.mail.customer.Customer")
    run = Attribute("IQueueRun over everything held for the domains that were asked for, what arrives meanwhile too")

    def ended(error: str | None) -> None:
        """The connection has ended: None when all was sent. Gives back what is under lease, writes the event.

        Must be called once, whatever happened.
        """


class IOnDemand(Interface):
    """Serves ATRN and ETRN; joins sessions with the queue."""

    def begin_turn(identity: Identity, domains: Sequence[str], peer: Peer) -> Awaitable[Any]:
        """Begin an `ITurn` for these domains (domain keys), for all of the customer's where there are none.

        Raises `Refused`: 450 for a domain that is not the customer's, for a second turn at once, for one too soon; 453
        where there is no mail; 451 where that cannot be told now (RFC 2645 section 5.2.1).
        """

    def start_queue(node: str, identity: Identity | None, peer: Peer) -> Awaitable[Reply]:
        """Start the queue for a node of ETRN, and tell the reply: 250 to 253 (RFC 1985 section 5.3).

        `node` is as it came: a domain, `@domain` for its sub-domains too, `#name` for a queue. Raises `Refused`: 458
        where the queue cannot be started, 459 for a node that is not for this peer.
        """


class ICustomers(Interface):
    """The customers, as they are now. Look-ups answer from memory and never block."""

    def customer(name: str) -> Customer | None:
        """The customer of that name, whatever the case."""

    def customer_of(domain: str) -> Customer | None:
        """Whose mail for a domain (a domain key) is held."""

    def customers() -> Sequence[Customer]:
        """All of them, by name."""

    def is_listed(customer: Customer, address: Address) -> bool:
        """Whether a recipient is on the customer's list, under `RecipientRule.LIST`."""
