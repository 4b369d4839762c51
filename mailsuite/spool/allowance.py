"""How many parts of messages are kept for whom, and which go when there are too many.

Whose a part is stands in its name (see `session.visit.Visit.name_of`): an account's, a customer's, a provider's, or
some host's, by its address; all of an IPv6 /64 is one host. Each owner has an allowance, beyond which its own oldest
parts go: nobody can switch CHECKPOINT off for others. Where there is too much in all, the oldest part goes of whoever
uses the most of its allowance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

_PROVEN: Final = ("account", "customer", "peer")


class Allowance(NamedTuple):
    """So many parts, of so many octets in all."""

    parts: int
    octets: int


class Bounds(NamedTuple):
    """What may be kept: so many parts, of so many octets in all, each for so many seconds.

    `stranger` is the allowance of a host; `known` that of whoever has logged in, or was dialled by us.
    """

    parts: int
    octets: int
    time: float
    stranger: Allowance = Allowance(20, 64 * 1024**2)
    known: Allowance = Allowance(200, 512 * 1024**2)

    def allowance(self, owner: str) -> Allowance:
        """What one owner may have."""
        return self.known if owner.partition(" ")[0] in _PROVEN else self.stranger


class _Owned:
    """The parts of one owner, the oldest first."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.parts: deque[tuple[int, int]] = deque()  # place and octets
        self.count = 0  # the new one included
        self.octets = 0

    def share(self, *, of_octets: bool) -> float:
        """How much of its allowance it uses."""
        return self.octets / self.allowance.octets if of_octets else self.count / self.allowance.parts

    def is_over(self) -> bool:
        return self.count > self.allowance.parts or self.octets > self.allowance.octets


@lru_cache(2048)  # they are asked for again with each part that comes
def owner_of(name: str) -> str:
    """Whose a part is."""
    scope = name.partition(" ")[2]
    kind, _, rest = scope.partition(" ")
    if kind != "host":
        return scope
    host = rest.partition(" ")[0]
    with suppress(ValueError):
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
            return f"host {IPv6Network((int(address) >> 64 << 64, 64))}"
    return f"host {host}"


def to_go(kept: Sequence[tuple[str, int]], name: str, octets: int, bounds: Bounds) -> Sequence[int] | None:
    """Which of the parts that are kept, names and octets, the oldest first, make room for one more: their places.

    None where that one is itself the one to go; then nothing else does.
    """
    owners: dict[str, _Owned] = {}

    def owned_by(owner: str) -> _Owned:
        if owner not in owners:
            owners[owner] = _Owned(bounds.allowance(owner))
        return owners[owner]

    for place, (other, size) in enumerate(kept):
        owned = owned_by(owner_of(other))
        owned.parts.append((place, size))
        owned.count += 1
        owned.octets += size
    new = owned_by(owner_of(name))
    new.count += 1
    new.octets += octets
    count = len(kept) + 1
    total = sum(owned.octets for owned in owners.values())
    gone: list[int] = []
    while True:
        too_large = total > bounds.octets
        if new.is_over():
            biggest = new
        elif too_large or count > bounds.parts:
            most = max(owned.share(of_octets=too_large) for owned in owners.values())
            equals = [owned for owned in owners.values() if owned.share(of_octets=too_large) == most]
            biggest = min(equals, key=lambda owned: owned.parts[0][0] if owned.parts else len(kept))
        else:
            return gone
        if not biggest.parts:
            return None
        place, size = biggest.parts.popleft()
        gone.append(place)
        biggest.count -= 1
        biggest.octets -= size
        count -= 1
        total -= size
