"""Networks, and whether an address is within one of them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


def is_within(host: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether a peer's address is in one of these networks; as IPv4, where that is mapped into IPv6.

    `host` is an address, with or without a zone, or empty where the peer has none: then it is in no network.
    """
    if not host:
        return False
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in networks)
