"""What is known of a peer: its address, its TLS, who it has proved to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mailsuite.mail.address import Address


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """What a TLS handshake settled on. `peer_name` is the subject of a client certificate that was verified."""

    version: str
    cipher: str
    bits: int
    peer_name: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection. `host` is an IP address, or empty for a Unix socket."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.is_local_socket:
            return "a local socket"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local_socket(self) -> bool:
        """Whether the peer came over a Unix socket."""
        return not self.host


@dataclass(frozen=True, slots=True)
class Identity:
    """An account that has been authenticated.

    `addresses` are those it may send as, each a whole address in lower case with its domain in A-labels;
    an entry that begins with `@` allows every address of that domain. `customer` says that it is the customer of that
    name who has logged in, not an account.
    """

    name: str
    addresses: frozenset[str] = frozenset()
    customer: str | None = None

    def may_send_as(self, address: Address) -> bool:
        """Whether the account owns this sender address."""
        whole = f"{address.local_part.lower()}@{address.domain_key}"
        return whole in self.addresses or f"@{address.domain_key}" in self.addresses


@dataclass(frozen=True, slots=True)
class RefusedLogin:
    """A login that has failed. `login` is the name as the peer gave it, which may be anything, a password too.

    `external` says that it stands in a client certificate. `reason` is there where the name and the proof were right.
    """

    login: str = field(repr=False)
    host: str
    mechanism: str
    code: int
    external: bool = False
    reason: str = ""


class SecretKind(StrEnum):
    """What a mechanism needs the directory to have kept."""

    SHARED = "shared"  # the password itself: CRAM-MD5
    SCRAM_SHA_256 = "scram-sha-256"


@dataclass(frozen=True)
class ScramSecret:
    """What a server keeps to verify SCRAM (RFC 5802 section 3): it cannot be turned back into the password."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "ScramSecret(...)"
