"""The customers as a running server asks for them: `ICustomers`, answered from memory.

Those of the directory and those of the configuration, in one snapshot that is replaced whole when the directory or a
file of recipients has changed. A name, a certificate or a domain that two of them have, or that a customer has and an
account or a local domain as well, is an error: at the start `refresh` raises it, and later what was read last stays in
force.

Rules for lists: what is written of the address itself; of the address without its subaddress; of the whole domain
(`@example.org`). The postmaster is on every list (RFC 5321 section 4.5.1).

Known limits: lists lie in memory, some 200 octets for each recipient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsuite.accounts.configured import Configured, ConfiguredCustomer
from mailsuite.accounts.customer_rows import CustomersSnapshot, refuse_clash_within
from mailsuite.accounts.errors import DirectoryError, OutdatedDirectory, reason_of
from mailsuite.accounts.names import CATCH_ALL, POSTMASTER, customer_key, key_of
from mailsuite.accounts.polling import Polling
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.accounts.recipients import Stamp, read_recipients
from mailsuite.accounts.threads import InThread
from mailsuite.interfaces import DirectoryUnavailable, ICustomers
from mailsuite.mail.address import Address
from mailsuite.mail.customer import Customer, RecipientRule


@dataclass(frozen=True, slots=True)
class _State:
    """All customers at one moment. `lists` are local parts by domain."""

    customers: tuple[Customer, ...]
    by_name: Mapping[str, Customer]
    by_domain: Mapping[str, Customer]
    lists: Mapping[str, frozenset[str]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _ListFile:
    stamp: Stamp
    recipients: Mapping[str, frozenset[str]] = field(repr=False)


@implementer(ICustomers)
class Customers(Polling):
    """The customers; a service that keeps up with the directory and with files of recipients.

    `in_thread` runs a blocking function in a thread; `configured` are the configuration's customers, `default_domain`
    that of accounts that log in by a bare local part. A subaddress begins at the first `delimiter`; an empty one means
    that there are none. `interval` is in seconds.

    The methods of `ICustomers` raise `DirectoryUnavailable` until the file has been read once.
    """

    def __init__(
        self,
        reader: DirectoryReader,
        clock: IReactorTime,
        in_thread: InThread,
        configured: Sequence[ConfiguredCustomer] = (),
        *,
        default_domain: str | None = None,
        delimiter: str = "+",
        interval: float = 1.0,
    ) -> None:
        super().__init__(reader, clock, in_thread, interval, "no customer is known")
        self._configured = Configured(tuple(one.customer for one in configured), default_domain)
        self._paths = {
            one.customer.name: one.recipients_file
            for one in configured
            if one.recipients_file is not None and one.customer.recipients is RecipientRule.LIST
        }
        self._delimiter = delimiter
        # Of the thread that reads, one at a time.
        self._kept: CustomersSnapshot | None = None
        self._files: Mapping[Path, _ListFile] = {}
        # Of the reactor's.
        self._state: _State | None = None

    # --------------------------------------------------------------------------------------------- ICustomers

    def customer(self, name: str) -> Customer | None:
        return self._current().by_name.get(customer_key(name))

    def customer_of(self, domain: str) -> Customer | None:
        return self._current().by_domain.get(domain)

    def customers(self) -> Sequence[Customer]:
        return self._current().customers

    def is_listed(self, customer: Customer, address: Address) -> bool:
        state = self._current()
        local_part, domain = key_of(address)
        holder = state.by_domain.get(domain)
        if holder is None or holder.name != customer.name or not local_part:
            return False
        base = local_part.partition(self._delimiter)[0] if self._delimiter else local_part
        listed = state.lists.get(domain, frozenset())
        # RFC 5321 section 4.5.1: postmaster is there, in any case of letters.
        return bool(base == POSTMASTER or not listed.isdisjoint((local_part, base or local_part, CATCH_ALL)))

    def look_over(self) -> None:
        """Read everything once, for what is wrong with it: the directory if there is one yet, files of recipients.

        Blocks. Raises `DirectoryUnavailable`.
        """
        try:
            refuse_clash_within(self._configured)
            self._lists(self._read_files() or {})
        except DirectoryError as error:
            raise DirectoryUnavailable(str(error)) from None
        if not _is_there(self._reader.path):
            return
        try:
            self._reader.customers(self._configured)
        except DirectoryUnavailable as error:
            if not isinstance(error.__cause__, OutdatedDirectory):  # which is as good as any when it is up to date
                raise

    # --------------------------------------------------------------------------------------------- underneath

    def _current(self) -> _State:
        if self._state is None:
            raise DirectoryUnavailable("the customers have not been read yet")
        return self._state

    def _read(self) -> _State | None:
        kept = self._reader.customers(self._configured, None if self._kept is None else self._kept.version)
        try:
            files = self._read_files()
        except DirectoryError as error:
            raise DirectoryUnavailable(str(error)) from None
        if kept is None and files is None:
            return None
        # Nothing is kept of what has a fault, or the next reading would find nothing new and hold it to be mended.
        state = self._joined(kept or self._kept, self._files if files is None else files)
        self._kept = kept or self._kept
        self._files = self._files if files is None else files
        return state

    def _joined(self, kept: CustomersSnapshot | None, files: Mapping[Path, _ListFile]) -> _State:
        assert kept is not None  # without a known version the reader has given one
        customers = sorted((*kept.customers, *self._configured.customers), key=lambda one: customer_key(one.name))
        return _State(
            tuple(customers),
            {customer_key(one.name): one for one in customers},
            {domain: one for one in customers for domain in one.domains},
            {**kept.recipients, **self._lists(files)},
        )

    def _take(self, news: _State) -> None:
        self._state = news

    def _read_files(self) -> dict[Path, _ListFile] | None:
        """The files of recipients as they are now; None where none has changed."""
        files = {}
        for path in self._paths.values():
            try:
                stamp = Stamp.of(path)
            except OSError as error:
                raise DirectoryError(f"the recipients in {path} cannot be read: {reason_of(error)}") from None
            known = self._files.get(path)
            files[path] = (
                known if known is not None and known.stamp == stamp else _ListFile(stamp, read_recipients(path))
            )
        return None if all(self._files.get(path) is file for path, file in files.items()) else files

    def _lists(self, files: Mapping[Path, _ListFile]) -> dict[str, frozenset[str]]:
        """Those lists by domain, each of domains that its customer has."""
        lists = {}
        for customer in self._configured.customers:
            path = self._paths.get(customer.name)
            if path is not None:
                recipients = files[path].recipients
                strange = next((domain for domain in recipients if domain not in customer.domains), None)
                if strange is not None:
                    raise DirectoryUnavailable(
                        f"{path} has recipients in {strange}, which is no domain of the customer {customer.name!r}; "
                        "take them out, or add the domain"
                    )
                lists.update({domain: recipients.get(domain, frozenset()) for domain in customer.domains})
        return lists


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DirectoryUnavailable(f"{path} cannot be read: {reason_of(error)}") from None
