"""What the directory tells of accounts and aliases. Secrets stay out of every repr."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailsuite.mail.address import Address
from mailsuite.mail.customer import Customer
from mailsuite.mail.session import Identity, ScramSecret, SecretKind


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is kept of a password: the argon2id hash, and what other mechanisms need where the account asks for them.

    `known` is the password itself in the place of a hash, where the configuration holds it. All are None for an account
    that nobody can log in to.
    """

    password_hash: str | None = field(default=None, repr=False)
    shared: bytes | None = field(default=None, repr=False)
    scram: ScramSecret | None = field(default=None, repr=False)
    known: str | None = field(default=None, repr=False)

    @property
    def kinds(self) -> frozenset[SecretKind]:
        """The mechanisms' secrets that are kept besides the hash."""
        kept = {SecretKind.SHARED: self.shared, SecretKind.SCRAM_SHA_256: self.scram}
        return frozenset(kind for kind, secret in kept.items() if secret is not None)


@dataclass(frozen=True, slots=True)
class Account:
    """An account, or a customer, as the login needs it.

    `secrets` are those of an account that is disabled, too: look at `enabled`.
    """

    identity: Identity
    enabled: bool
    secrets: Secrets

    @property
    def name(self) -> str:
        """The main address, or the customer's name, as `Identity.name` says it."""
        return self.identity.name


@dataclass(frozen=True, slots=True)
class User:
    """An account as it is listed: written addresses, the main one first, and which secrets there are."""

    address: str
    further: tuple[str, ...]
    enabled: bool
    has_password: bool
    kinds: frozenset[SecretKind]


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as it is listed. `address` is as written, `@example.org` for a catch-all."""

    address: str
    targets: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """A local domain as it is listed, with how many accounts and aliases have addresses in it."""

    name: str
    users: int
    aliases: int


@dataclass(frozen=True, slots=True)
class KeptCustomer:
    """A customer as it is listed: which secrets there are, and how many recipients are on its list."""

    customer: Customer
    has_password: bool
    kinds: frozenset[SecretKind]
    recipients: int
