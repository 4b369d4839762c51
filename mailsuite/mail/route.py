"""Where mail goes: destinations, and the targets that a recipient resolves to.

A destination is what deliveries are queued and grouped by. It is plain text in the spool (`agent:name`), so
that it outlives the process and can be read by people.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mailsuite.mail.address import Address
from mailsuite.mail.options import NO_WISHES, RecipientOptions

MAILDIR = "maildir"
RELAY = "relay"
HOLD = "hold"
REDISTRIBUTED = (
    "redistributed"  # a list has taken it over, and its sender wants to hear of that; the name is the domain
)
EXPIRED = "expired"  # was held, and an operator has said that its time is over; the name is the domain


class Destination(NamedTuple):
    """The delivery agent's name and what it is told.

    For `relay` the name is a domain whose MX is asked (`example.org`) or a next hop from the configuration
    (`[mx.example.org]:25`, in brackets as operators write one whose MX is not asked). For `hold` it is the
    domain that is held: such deliveries are never due by themselves. Other agents may leave it empty.
    """

    agent: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.agent}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Destination:
        """The reverse of `str()`."""
        agent, _, name = text.partition(":")
        return cls(agent, name)


@dataclass(frozen=True, slots=True)
class Target:
    """One final recipient: the address that is delivered to, and where.

    `original` is the address as the sender gave it, where an alias or a subaddress led here; reports name it.
    `reverse_path` takes the place of the envelope's for this recipient: the owner of a list, or the sender rewritten
    (SRS) where an alias forwards. `rule` says in words what chose the destination, for the history.
    """

    address: Address
    destination: Destination
    original: Address | None = None
    options: RecipientOptions = NO_WISHES
    reverse_path: Address | None = None
    rule: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NextHop:
    """A host to relay to, with what the configuration says of it.

    `host` is a name or an address; `use_mx` asks for the MX of that name; `port` is a TCP port. `tls` is one of
    "none", "opportunistic", "required" (no certificate is checked), "verified" (PKIX and the name), "dane" (RFC 7672,
    with TLSA records that DNSSEC vouches for; without them nothing is sent), or "implicit" (TLS from the first octet,
    verified).
    `username` and `password` authenticate us there, over TLS only; where there is a `password_file`, what stands there
    at the time is the password. `certificate` and `key` (PEM files) say who we are where the host asks for that;
    `source_address` is the IP address that connections leave from. `domain` is the domain whose MX has named the host;
    it is empty where the configuration did; `preference` is what the MX says.
    """

    host: str
    port: int = 25
    use_mx: bool = False
    tls: str = "opportunistic"
    username: str | None = None
    password: str | None = None
    lmtp: bool = False
    password_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    source_address: str | None = None
    domain: str = ""
    preference: int = 0

    def __repr__(self) -> str:
        return (
            f"NextHop({self.host!r}, {self.port}, use_mx={self.use_mx}, tls={self.tls!r}, username={self.username!r})"
        )
