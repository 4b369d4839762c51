"""Addresses of peers: what Twisted says of them, as our values, and what connections are counted by."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from mailsuite.mail.session import Peer

_IPV6_COUNTED_BY: Final = 64  # bits: what one site is given


def peer_of(address: object) -> Peer:
    """A Twisted IAddress as a `Peer`; a Unix socket has an empty host.

    An IPv4 address that came over an IPv6 socket (RFC 4291 section 2.5.5.2) is given as the IPv4 address it is.
    """
    host = getattr(address, "host", None)
    if not isinstance(host, str) or not host:
        return Peer("")
    return Peer(_unmapped(host), int(getattr(address, "port", 0)))


def counting_key(host: str) -> str:
    """What connections from this address are counted by: an IPv4 address, or the /64 of an IPv6 address."""
    address = parse_address(host)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> _IPV6_COUNTED_BY << _IPV6_COUNTED_BY, _IPV6_COUNTED_BY)))
    return host


@lru_cache(maxsize=4096)
def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` spells (without its zone), IPv4 where it is mapped into IPv6; None for a name."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _unmapped(host: str) -> str:
    if not host.startswith("::ffff:"):
        return host
    address = parse_address(host)
    return str(address) if isinstance(address, IPv4Address) else host
