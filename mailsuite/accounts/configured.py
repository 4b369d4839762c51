"""Customers that stand in the configuration, as the rest of the room takes them.

Their names and domains are theirs alone: who edits the directory is told of them (`Configured`), and a server does not
start over a directory that has one of them, too. Their passwords are known, so they serve every mechanism.

Known limits: a password that changes in the configuration is in force after a restart, as everything there is.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import Key, certificate_name, customer_key, customer_name, login_key
from mailsuite.accounts.passwords import checked, scram_of
from mailsuite.accounts.records import Account, Secrets
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.mail.scram import SALT_LENGTH
from mailsuite.mail.session import Identity


@dataclass(frozen=True, slots=True)
class ConfiguredCustomer:
    """One of them. `recipients_file` has a recipient in each line, for `RecipientRule.LIST`.

    Raises `DirectoryError` where its name or its password cannot be one, or the list is missing.
    """

    customer: Customer
    password: str | None = field(default=None, repr=False)
    recipients_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            customer_name(self.customer.name)
            if self.customer.certificate is not None:
                certificate_name(self.customer.certificate)
            if self.password is not None:
                checked(self.password)
        except DirectoryError as error:
            raise DirectoryError(f"customer {self.customer.name!r}: {error}") from None
        if self.customer.recipients is RecipientRule.LIST and self.recipients_file is None:
            raise DirectoryError(
                f'customer {self.customer.name!r}: recipients = "list" needs recipients_file; name the file'
            )


@dataclass(frozen=True, slots=True)
class Configured:
    """What the configuration settles for those who edit the directory.

    `default_domain` (a domain key) is that of accounts that log in by a bare local part.
    """

    customers: Sequence[Customer] = ()
    default_domain: str | None = None

    def named(self, name: str) -> Customer | None:
        """The customer of a name, whatever the case."""
        key = customer_key(name)
        return next((one for one in self.customers if customer_key(one.name) == key), None)

    def holder(self, domain: str) -> Customer | None:
        """The customer for whom a domain (a domain key) is held."""
        return next((one for one in self.customers if domain in one.domains), None)

    def logins(self) -> list[tuple[str, str | None]]:
        """Name and certificate of each."""
        return [(one.name, one.certificate) for one in self.customers]

    def account_key(self, name: str | None) -> Key | None:
        """The address that a name would log in as, were it an account's."""
        return None if name is None else login_key(name, self.default_domain)


def identity_of(customer: Customer) -> Identity:
    """Who it is that has logged in as a customer: it may send as any address of its domains."""
    return Identity(customer.name, frozenset(f"@{domain}" for domain in customer.domains), customer.name)


class ConfiguredLogins:
    """The accounts of configured customers, by name or by certificate. Safe for any thread.

    Their SCRAM salts are derived from a key that the directory keeps: one that changed with each restart would tell
    such a customer from a name that does not exist.
    """

    def __init__(self, configured: Sequence[ConfiguredCustomer]) -> None:
        self._configured = configured
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._by_certificate: dict[str, Account] = {}
        self._is_ready = False

    def prepare(self, salt_key: Callable[[], bytes]) -> None:
        """Derive what must be derived, the first time. Blocks: some 5 ms for each customer."""
        with self._lock:
            if self._is_ready:
                return
            key = salt_key()
            accounts = {customer_key(one.customer.name): _account(one, key) for one in self._configured}
            self._by_certificate = {
                customer_key(one.customer.certificate): accounts[customer_key(one.customer.name)]
                for one in self._configured
                if one.customer.certificate is not None
            }
            self._accounts = accounts
            self._is_ready = True

    def account(self, name: str, *, external: bool) -> Account | None:
        """The account of a name (a customer key), or where it is `external` that of the name in a certificate."""
        return (self._by_certificate if external else self._accounts).get(name)


def _account(configured: ConfiguredCustomer, salt_key: bytes) -> Account:
    password = configured.password
    if password is None:
        secrets = Secrets()
    else:
        name = customer_key(configured.customer.name).encode("utf-8")
        salt = hmac.digest(salt_key, name, "sha256")[:SALT_LENGTH]
        secrets = Secrets(shared=password.encode("utf-8"), scram=scram_of(password, salt), known=password)
    return Account(identity_of(configured.customer), enabled=True, secrets=secrets)
