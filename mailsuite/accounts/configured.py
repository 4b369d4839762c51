"""Customers that stand in the configuration, as the rest of the room takes them.

Their names and domains are theirs alone: who edits the directory is told of them (`Configured`), and a server does not
start over a directory that has one of them, too. Their passwords are known, so they serve every mechanism.

A password file that has changed is read anew when somebody logs in. One that cannot be read, or holds what cannot be a
password, is logged, and the password that was there before stays in force.

Known limits: a password that changes in the configuration is in force after a restart, as everything there is.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from twisted.logger import Logger

from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import Key, certificate_name, customer_key, customer_name, login_key
from mailsuite.accounts.passwords import checked, scram_of
from mailsuite.accounts.recipients import Stamp
from mailsuite.accounts.records import Account, Secrets
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.mail.password_file import PasswordUnreadable, read_password
from mailsuite.mail.scram import SALT_LENGTH
from mailsuite.mail.session import Identity

_log = Logger()


@dataclass(frozen=True, slots=True)
class ConfiguredCustomer:
    """One of them. `recipients_file` has a recipient in each line, for `RecipientRule.LIST`.

    `password` is what stood in `password_file`, where there is one.

    Raises `DirectoryError` where its name or its password cannot be one, or the list is missing.
    """

    customer: Customer
    password: str | None = field(default=None, repr=False)
    recipients_file: Path | None = None
    password_file: Path | None = None

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
        self._names = {
            customer_key(one.customer.certificate): customer_key(one.customer.name)
            for one in configured
            if one.customer.certificate is not None
        }
        self._files = {customer_key(one.customer.name): one for one in configured if one.password_file is not None}
        self._stamps: dict[str, Stamp | None] = {}
        self._salt_key = b""
        self._is_ready = False

    def prepare(self, salt_key: Callable[[], bytes]) -> None:
        """Derive what must be derived, the first time. Blocks: some 5 ms for each customer."""
        with self._lock:
            if self._is_ready:
                return
            key = self._salt_key = salt_key()
            self._accounts = {customer_key(one.customer.name): _account(one, key) for one in self._configured}
            self._is_ready = True

    def account(self, name: str, *, external: bool) -> Account | None:
        """The account of a name (a customer key), or where it is `external` that of the name in a certificate.

        Blocks. There is none before `prepare`.
        """
        key = self._names.get(name) if external else name
        if key in self._files:
            with self._lock:
                self._keep_up(key)
        return None if key is None else self._accounts.get(key)

    def _keep_up(self, key: str) -> None:
        """Read a customer's password file, if that has changed since the last look."""
        one = self._files[key]
        assert one.password_file is not None
        stamp: Stamp | None = None
        with suppress(OSError):
            stamp = Stamp.of(one.password_file)
        if key in self._stamps and stamp == self._stamps[key]:
            return
        self._stamps[key] = stamp
        try:
            changed = replace(one, password=read_password(one.password_file))
        except (PasswordUnreadable, DirectoryError) as error:
            _log.error(
                "customer {name}: {error}; the password from before stays in force",
                name=one.customer.name,
                error=str(error),
            )
            return
        if changed.password != one.password:
            self._files[key] = changed
            self._accounts[key] = _account(changed, self._salt_key)


def _account(configured: ConfiguredCustomer, salt_key: bytes) -> Account:
    password = configured.password
    if password is None:
        secrets = Secrets()
    else:
        name = customer_key(configured.customer.name).encode("utf-8")
        salt = hmac.digest(salt_key, name, "sha256")[:SALT_LENGTH]
        secrets = Secrets(shared=password.encode("utf-8"), scram=scram_of(password, salt), known=password)
    return Account(identity_of(configured.customer), enabled=True, secrets=secrets)
