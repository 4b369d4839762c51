"""What a listener is for, as its sessions are told: settings, and those whom a session asks.

The door of a turn is one of these too: behind ATRN a customer serves, and takes mail for the domains that it has asked
for from whoever is at the other end (RFC 2645 section 5.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from mailsuite.interfaces import IAuthenticator, ICustomers, IOnDemand, IQuota, IRouter, ISpool
from mailsuite.mail.address import Address
from mailsuite.mail.networks import is_within
from mailsuite.mail.session import Identity, RefusedLogin
from mailsuite.session.authentication import log_refused
from mailsuite.session.checkpoints import Checkpoints
from mailsuite.session.loglines import LogLines
from mailsuite.wire.sasl import ServerParameters
from mailsuite.wire.smtp.offer import Offer


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """What one listener is for, and whom a session asks.

    `offer` is what is offered in plaintext, `secure_offer` under TLS. `tls` is what STARTTLS hands over to.
    `submission` demands authentication, binds senders to the account and completes messages (RFC 6409).
    `trusted` are networks whose peers may relay without authentication. `now` gives POSIX seconds. `log` takes a line
    for each message that was queued.

    `on_demand` serves ETRN and ATRN where the offer has them; `turn_allowed` takes TURN from customers as well.
    `domains` (domain keys), where set, are the only ones whose recipients are accepted, and relaying onward is
    permitted for them. `peer_name` is what the peer is called where that is known beforehand: Received lines and the
    log name it. `checkpoints` has the named transactions that are under way, where CHECKPOINT is offered; doors to one
    spool share it.

    `customers` tell from where a customer may log in; without them, from anywhere. `quota` says how much may be held
    for each. `refused_login` is told of each login that fails; by default it is logged, without a name. `service` is
    what the history calls this door.
    """

    hostname: str
    offer: Offer
    secure_offer: Offer
    router: IRouter
    spool: ISpool
    now: Callable[[], float]
    authenticator: IAuthenticator | None = None
    sasl: ServerParameters = field(default_factory=ServerParameters)
    tls: Callable[[], Any] | None = None
    submission: bool = False
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    max_recipients: int = 1000  # RFC 5321 section 4.5.3.1.8 asks for 100 at least
    log: Callable[[str], None] = field(default_factory=LogLines)
    on_demand: IOnDemand | None = None
    turn_allowed: bool = False
    domains: frozenset[str] | None = None
    peer_name: str = ""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    customers: ICustomers | None = None
    quota: IQuota | None = None
    refused_login: Callable[[RefusedLogin], object] = log_refused
    service: str = ""

    def trusts(self, host: str) -> bool:
        """Whether a peer at this address may relay."""
        return is_within(host, self.trusted)

    def admits(self, identity: Identity, host: str) -> bool:
        """Whether somebody may log in from this address. Raises `DirectoryUnavailable`."""
        if identity.customer is None or self.customers is None:
            return True
        customer = self.customers.customer(identity.customer)
        return customer is not None and customer.is_at_home(host)

    def serves(self, recipient: Address) -> bool:
        """Whether mail for this recipient's domain is taken at all."""
        return self.domains is None or recipient.domain_key in self.domains
