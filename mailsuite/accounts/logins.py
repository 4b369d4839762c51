"""Who a login name is: an account of the directory, or a customer of the directory or of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from mailsuite.accounts.configured import ConfiguredCustomer, ConfiguredLogins
from mailsuite.accounts.names import Key, customer_key, login_key, plain, written
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.accounts.records import Account
from mailsuite.accounts.threads import InThread
from mailsuite.mail.session import Identity

_NOBODYS_KEY = ("", "")
_MAX_NAME = 255  # characters of a name that no account has; peers choose its length


class Accounts:
    """Finds accounts and customers by login name, off the reactor's thread.

    A login name is any address of an account or, with a `default_domain` (a domain key), a bare local part of
    that domain; or a customer's name, whatever the case.
    """

    def __init__(
        self,
        reader: DirectoryReader,
        in_thread: InThread,
        default_domain: str | None = None,
        configured: Sequence[ConfiguredCustomer] = (),
    ) -> None:
        self._reader = reader
        self._in_thread = in_thread
        self._default_domain = default_domain
        self._configured = ConfiguredLogins(configured)

    async def find(self, login: str, *, external: bool = False) -> tuple[str, Account | None]:
        """The account, enabled or not, or None, and the name by which guesses at it are counted.

        With `external` it is the name in a client certificate: that of a customer only where its `certificate` says so.
        Raises `DirectoryUnavailable`.
        """
        key = login_key(login, self._default_domain)
        # Where the name cannot be one the file is asked all the same, for a key that nobody has.
        name = customer_key(login)
        account: Account | None = await self._in_thread(self._look_up, key or _NOBODYS_KEY, name, external)
        if account is not None and account.identity.customer is None:
            return account.name, account
        # A customer's name is counted as one that does not exist, or the spellings of it would tell them apart.
        return (name or login if key is None else written(key))[:_MAX_NAME], account

    def is_same(self, login: str, identity: Identity) -> bool:
        """Whether a login name is one of an account's, or the customer's."""
        if identity.customer is not None:
            return customer_key(login) == customer_key(identity.customer)
        key = login_key(login, self._default_domain)
        return key is not None and plain(key) in identity.addresses

    def _look_up(self, key: Key, name: str, external: bool) -> Account | None:  # noqa: FBT001 - from one place
        account = self._reader.account(key, name, external=external)
        self._configured.prepare(self._reader.salt_key)
        configured = self._configured.account(name, external=external)
        return account if configured is None else configured
