"""What Twisted's endpoint strings say of a listener, before it listens.

Only the text is looked at: `tcp:25:interface=192.0.2.1`. Where an interface has a name instead of an address, or where
systemd opens the socket, nothing is known here.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

_ARGUMENT: Final = re.compile(r"((?:[^:\\]|\\.)*)(?::|\Z)", re.DOTALL)
_QUOTED: Final = re.compile(r"\\(.)", re.DOTALL)
_UNSPECIFIED: Final = {"tcp": "0.0.0.0", "tcp6": "::"}  # noqa: S104 - what Twisted takes where nothing is said


class Place(NamedTuple):
    """Where an endpoint listens: `kind` is its first word, `name` the port, path or whatever else comes next."""

    kind: str
    name: str
    interface: str

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address of the interface; None where it has none, or is not named by one."""
        try:
            return ip_address(self.interface.partition("%")[0])
        except ValueError:
            return None

    def collides(self, other: Place, *, dual_stack: bool) -> bool:
        """Whether both cannot be had at once. Port 0 stands for any that is free.

        `dual_stack` says that whoever listens on all of IPv6 has the port of IPv4 too, as is usual on Linux.
        """
        if self.name != other.name:
            return False
        ends = (self.interface, other.interface)
        if self.kind != other.kind:
            return dual_stack and {self.kind, other.kind} == {"tcp", "tcp6"} and self.name != "0" and "::" in ends
        if self.kind not in _UNSPECIFIED:
            return self.kind in {"unix", "systemd"}
        return self.name != "0" and (self.interface == other.interface or _UNSPECIFIED[self.kind] in ends)


def place_of(endpoint: str) -> Place:
    """Where an endpoint listens, by its string."""
    words: list[str] = []
    named: dict[str, str] = {}
    for argument in _ARGUMENT.findall(endpoint):
        key, equals, value = argument.partition("=")
        if equals:
            named[key] = _QUOTED.sub(r"\1", value)
        else:
            words.append(_QUOTED.sub(r"\1", argument))
    kind = words[0] if words else ""
    # A keyword may stand for what is usually told by its place.
    names = [*words[1:2], named.get("port", ""), named.get("address", "")]
    if kind == "systemd":
        names = [",".join(f"{key}={named[key]}" for key in ("domain", "index", "name") if key in named)]
    name = next(filter(None, names), "")
    return Place(kind, name, named.get("interface") or _UNSPECIFIED.get(kind, ""))


def is_on_loopback(endpoint: str) -> bool:
    """Whether an endpoint can be reached from this machine only."""
    place = place_of(endpoint)
    return place.kind == "unix" or (place.address is not None and place.address.is_loopback)
