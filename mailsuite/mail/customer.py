"""A customer of on-demand mail relay: for whom mail is held, and on what terms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from mailsuite.mail.address import Address
from mailsuite.mail.networks import is_within

HOLD_TIME: Final = 21 * 86400.0
"""How long mail is held where nothing else is said; what is held for no customer, too."""

WARNING_TIME: Final = 3 * 86400.0


class RecipientRule(StrEnum):
    """How it is known which recipients of a held domain exist."""

    ANY = "any"
    LIST = "list"
    COMMAND = "command"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer. Times are seconds, sizes octets; None is no limit.

    `domains` are domain keys (lower case, A-labels). `certificate` is the name in a client certificate by which it may
    log in. `networks` are where it may log in from, empty for anywhere. `next_hop` is `host` or `host:port`, where ETRN
    sends its mail; without it the MX of each domain. Its credentials are kept by the directory.
    """

    name: str
    domains: tuple[str, ...]
    certificate: str | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    contact: Address | None = None
    hold_time: float = HOLD_TIME
    warning_time: float = WARNING_TIME
    max_messages: int | None = None
    max_octets: int | None = None
    pipelining: bool = True
    turn_interval: float = 0.0
    shared_turns: bool = False
    next_hop: str | None = None
    recipients: RecipientRule = RecipientRule.ANY
    recipients_command: tuple[str, ...] = ()

    def is_at_home(self, host: str) -> bool:
        """Whether a peer at this address is within its networks; where it has none, everybody is."""
        return not self.networks or self.has_network_of(host)

    def has_network_of(self, host: str) -> bool:
        """Whether a peer at this address is within one of its networks."""
        return is_within(host, self.networks)

    @property
    def is_warned_too_early(self) -> bool:
        """Whether it is to be warned before there is anything to be warned of.

        The time that nobody has set does not count where there is nobody to warn.
        """
        return self.warning_time > self.hold_time and (self.contact is not None or self.warning_time != WARNING_TIME)
