"""What lies on the disk here: customers, local domains, held mail. Blocks, and only reads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mailsuite.accounts.configured import Configured
from mailsuite.accounts.names import customer_key
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.admin.reading import open_spool
from mailsuite.config import Settings
from mailsuite.config.customers import customer_value
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.mail.customer import Customer
from mailsuite.mail.queue import HeldMail


@dataclass(frozen=True, slots=True)
class KnownCustomer:
    """A customer, whether there is a password that it could log in with, and whether the configuration has it."""

    customer: Customer
    has_password: bool
    is_configured: bool = False


class IsHere(Protocol):
    """What a walk asks of the disk."""

    def customers(self) -> Sequence[KnownCustomer]:
        """All customers, by name. Raises `DirectoryUnavailable`."""

    def domains(self) -> frozenset[str]:
        """The local domains (domain keys). Raises `DirectoryUnavailable`."""

    def held(self) -> Sequence[HeldMail]:
        """What is held, nothing where there is no queue yet. Raises `SpoolError`."""


class Site:
    """Looks for real."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def customers(self) -> Sequence[KnownCustomer]:
        tables = self._settings.customer
        found = [
            KnownCustomer(
                customer_value(table),
                has_password=table.password is not None or table.password_file is not None,
                is_configured=True,
            )
            for table in tables
        ]
        path = self._settings.path(self._settings.accounts.file)
        if _is_there(path):
            with closing(DirectoryReader(path)) as reader:
                default_domain = self._settings.accounts.default_domain
                configured = Configured([one.customer for one in found], default_domain)
                snapshot = reader.customers(configured)
                for customer in () if snapshot is None else snapshot.customers:
                    account = reader.account(("", ""), customer_key(customer.name))
                    found.append(
                        KnownCustomer(customer, account is not None and account.secrets.password_hash is not None)
                    )
        return sorted(found, key=lambda one: one.customer.name.casefold())

    def domains(self) -> frozenset[str]:
        path = self._settings.path(self._settings.accounts.file)
        if not _is_there(path):
            return frozenset()
        with closing(DirectoryReader(path)) as reader:
            snapshot = reader.snapshot()
        return frozenset() if snapshot is None else snapshot.domains

    def held(self) -> Sequence[HeldMail]:
        spool = open_spool(self._settings)
        return () if spool is None else spool.held()


def _is_there(path: Path) -> bool:
    """Whether there is a directory of accounts. Raises `DirectoryUnavailable` where that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise DirectoryUnavailable(f"{path} cannot be read: {error.strerror}") from None
