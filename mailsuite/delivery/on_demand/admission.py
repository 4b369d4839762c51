"""Admission: whose mail is held, and which of it is taken in: recipients that exist, within the customer's quota."""

from __future__ import annotations

from mailsuite.delivery.on_demand.quota import Quota
from mailsuite.delivery.on_demand.recipients import Recipients
from mailsuite.interfaces import ICustomers
from mailsuite.mail.address import Address


class Admission:
    """Knows by the customers of now; the router asks it (`mailsuite.delivery.router.HoldsMail`)."""

    def __init__(self, customers: ICustomers, quota: Quota, recipients: Recipients) -> None:
        self._customers = customers
        self._quota = quota
        self._recipients = recipients

    def is_held(self, domain: str) -> bool:
        """Whether mail for a domain (a domain key) is held for a customer."""
        return self._customers.customer_of(domain) is not None

    async def admit(self, address: Address, *, is_report: bool = False) -> None:
        """Let mail for an address of a held domain in; reports of our own by lists and quotas alone, without delay.

        Raises `Refused`: 550 5.1.1 for nobody, 452 4.2.2 where the quota is used up, 450 or 451 where either cannot be
        told now. Room for the message is kept by the session's `IReservation`.
        """
        customer = self._customers.customer_of(address.domain_key)
        if customer is not None:
            await self._recipients.check(customer, address, at_once=is_report)
            await self._quota.check(customer)
