"""The directory's file, open for editing: what the editors of accounts and of customers have in common.

A change is whole and on stable storage, or there is none; editors in several programs wait for one another. Whatever
goes wrong with the file is a `DirectoryError`. Names are settled here, for no login may be two people's and no domain
both local and held.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mailsuite.accounts.configured import Configured
from mailsuite.accounts.customer_rows import has_address, holder
from mailsuite.accounts.errors import DirectoryError, unusable
from mailsuite.accounts.names import Key, written
from mailsuite.accounts.passwords import Argon2id, PasswordCost
from mailsuite.accounts.schema import connect_for_editing


class EditedFile:
    """The directory at `path`, open for editing; a context manager. For one thread at a time.

    Where the file does not exist it is made if `create` says so (its parent must exist), else refused. `configured` is
    what the configuration has taken already. Raises `DirectoryError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        cost: PasswordCost | None = None,
        configured: Configured | None = None,
    ) -> None:
        self._path = path
        self._hashing = Argon2id(cost)
        self._configured = Configured() if configured is None else configured
        with self._sentences():
            self._db = connect_for_editing(path, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, its log emptied into it: nothing deleted stays there, and a copy of the file is whole."""
        with suppress(sqlite3.Error):  # another program is at it, or the disk is full; what is committed is safe
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DirectoryError(f"the directory {unusable(self._path, error)}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._sentences():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _has_domain(self, key: str) -> bool:
        return self._db.execute("SELECT 1 FROM domains WHERE name = ?", (key,)).fetchone() is not None

    def _is_account(self, key: Key) -> bool:
        return has_address(self._db, key)

    def _expect_not_held(self, domain: str) -> None:
        """A domain must be held for nobody."""
        configured = self._configured.holder(domain)
        if configured is not None:
            raise DirectoryError(
                f"{domain} is held for the customer {configured.name!r} of the configuration; take it out of that "
                "customer's domains first"
            )
        other = holder(self._db, domain)
        if other is not None:
            raise DirectoryError(
                f"{domain} is held for the customer {other!r}; take it away first, with `mailsuite customer set "
                f"{other} --del-domain {domain}`"
            )

    def _expect_no_customer(self, key: Key) -> None:
        """What an account is to log in by must not log in a customer."""
        kept = self._db.execute("SELECT name, certificate FROM customers").fetchall()
        for name, certificate in (*kept, *self._configured.logins()):
            if key in (self._configured.account_key(name), self._configured.account_key(certificate)):
                raise DirectoryError(f"{written(key)} logs in the customer {name!r} already; choose another")
