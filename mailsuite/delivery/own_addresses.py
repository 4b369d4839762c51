"""Our own addresses: a host never relays to itself, whatever name it goes by (RFC 5321 section 5.1).

Only what strangers say of us is held against this: MX records, domains that are their own host, address literals. A
next hop of the configuration may well be another port of this machine, and so may a host that an MX record names, on a
port where we do not listen.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mailsuite.net.addresses import parse_address

Address = IPv4Address | IPv6Address

_ANY_PORT: Final = 25


def is_of_this_machine(address: Address) -> bool:
    """Whether an interface of this machine has the address now. Nothing is sent: the kernel is asked for a route."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _ANY_PORT))
            # What is sent to an address of our own goes out from that very address.
            return parse_address(probe.getsockname()[0]) == address
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """Where we ourselves answer.

    `ports` are those that we listen on, at the `addresses`, or at `all_interfaces` of the machine. Without ports there
    is nothing that could be a loop.
    """

    ports: frozenset[int] = frozenset()
    addresses: frozenset[Address] = frozenset()
    all_interfaces: frozenset[int] = frozenset()
    is_of_this_machine: Callable[[Address], bool] = is_of_this_machine

    def answer(self, address: str, port: int) -> bool:
        """Whether whoever connects to this address reaches us."""
        if port not in self.ports:
            return False
        parsed = parse_address(address)
        if parsed is None:
            return False
        if parsed.is_loopback or parsed.is_unspecified or parsed in self.addresses:
            return True
        return port in self.all_interfaces and self.is_of_this_machine(parsed)


NOWHERE: Final = OwnAddresses()
