"""A file of hosts, /etc/hosts: read when it has changed, not for each question.

Such a file may name a hundred thousand hosts (those of advertisers, that nobody is to reach). What it says is kept in
memory; whether it has changed is asked of the file system each time, which costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DomainError

from mailsuite.net.addresses import parse_address

_Known = Mapping[bytes, tuple[bytes, ...]]
_NOTHING: Final[_Known] = {}


class HostsFile(ResolverBase):
    """Answers from a file of hosts. A name that stands there has the addresses that stand there, and no others.

    So the DNS is not asked for the IPv6 address of a host that has an IPv4 address here, as the C library has it. An
    answer holds for `ttl` seconds. A name that does not stand there fails with a plain `DomainError`.
    """

    def __init__(self, file: Path = Path("/etc/hosts"), *, ttl: int = 3600) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._file = file
        self._ttl = ttl
        self._stamp: tuple[int, ...] | None = None
        self._known: _Known = _NOTHING

    def lookupAddress(self, name: str, timeout: object = None) -> Deferred[Any]:
        del timeout
        return self._answer(name, 4, dns.A, dns.Record_A)

    def lookupIPV6Address(self, name: str, timeout: object = None) -> Deferred[Any]:
        del timeout
        return self._answer(name, 6, dns.AAAA, dns.Record_AAAA)

    def _answer(self, name: str, version: int, kind: int, record: Callable[..., Any]) -> Deferred[Any]:
        key = dns.domainString(name)
        addresses = list(filter(None, map(_address, self._read().get(key.lower(), ()))))
        if not addresses:
            return fail(DomainError(name))
        ttl = self._ttl
        found = tuple(
            dns.RRHeader(key, kind, dns.IN, ttl, record(str(one), ttl)) for one in addresses if one.version == version
        )
        return succeed((found, (), ()))

    def _read(self) -> _Known:
        """What stands in the file now: nothing where it cannot be read."""
        try:
            seen = self._file.stat()
            stamp = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
            if stamp != self._stamp:
                self._known = _parsed(self._file.read_bytes())
                self._stamp = stamp
        except OSError:
            self._known, self._stamp = _NOTHING, None
        return self._known


def _parsed(text: bytes) -> _Known:
    known: dict[bytes, tuple[bytes, ...]] = {}
    alone: dict[bytes, tuple[bytes, ...]] = {}  # most names share an address
    for line in text.lower().splitlines():
        address, *names = line.partition(b"#")[0].split() or (b"",)
        for name in names:
            before = known.get(name)
            if before is None:
                known[name] = alone.setdefault(address, (address,))
            elif address not in before:
                known[name] = (*before, address)
    return known


def _address(text: bytes) -> IPv4Address | IPv6Address | None:
    return parse_address(text.decode("ascii", "replace"))
