"""The directory of accounts, read by a running server: whole, as a snapshot, or one account for a login.

A reader keeps one connection open for reading and lends it to one thread at a time. It blocks, so it is
called in threads. A file that was put in the place of the one that is open (a restored backup) is noticed and
opened. Whatever is wrong with the file raises `DirectoryUnavailable`, and the next call tries anew.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import Key, plain, written
from mailsuite.accounts.records import Account, Secrets
from mailsuite.accounts.schema import connect_for_editing, connect_for_reading
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.mail.address import Address
from mailsuite.mail.session import Identity, ScramSecret

Entry: TypeAlias = Address | tuple[Address, ...]
"""What an address is: a mailbox, by its canonical address, or an alias, by its targets."""


class Version(NamedTuple):
    """What tells one state of the directory from another: which opening of the file, and its data_version then."""

    opening: int
    data: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Domains, mailboxes and aliases at one moment. No secrets."""

    version: Version
    domains: frozenset[str]
    entries: Mapping[Key, Entry] = field(repr=False)


class DirectoryReader:
    """Reads the directory at `path`. Blocks; safe for any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._openings = 0

    def prepare(self) -> None:
        """Make the file where there is none (without a domain in it), and bring it up to date."""
        try:
            connect_for_editing(self.path, create=True).close()
        except (sqlite3.Error, OSError, DirectoryError) as error:
            raise _unavailable(self.path, error) from error

    def snapshot(self, known: Version | None = None) -> Snapshot | None:
        """The state of now; None where it is still the one of version `known`."""
        with self._reading() as db:
            version = Version(self._openings, db.execute("PRAGMA data_version").fetchone()[0])
            if version == known:
                return None
            domains = frozenset(name for (name,) in db.execute("SELECT name FROM domains"))
            entries: dict[Key, Entry] = {}
            main: dict[int, Address] = {
                account: Address(local_part, domain)
                for account, local_part, domain in db.execute(
                    "SELECT account, local_part, domain FROM addresses WHERE main"
                )
            }
            for local_part, domain, account in db.execute("SELECT local_part, domain, account FROM addresses"):
                entries[local_part, domain] = main[account]
            targets: dict[Key, list[Address]] = {}
            for local_part, domain, *target in db.execute("SELECT * FROM aliases"):
                targets.setdefault((local_part, domain), []).append(Address(*target))
        entries |= {key: tuple(addresses) for key, addresses in targets.items()}
        return Snapshot(version, domains, MappingProxyType(entries))

    def account(self, key: Key) -> Account | None:
        """The account that has an address, as it is now; None where none has."""
        with self._reading() as db:
            row = db.execute(
                "SELECT id, enabled, password_hash, shared,"
                " scram_salt, scram_iterations, scram_stored_key, scram_server_key"
                " FROM accounts JOIN addresses ON account = id WHERE local_part = ? AND domain = ?",
                key,
            ).fetchone()
            if row is None:
                return None
            account, enabled, password_hash, shared, *scram = row
            keys = db.execute(
                "SELECT local_part, domain FROM addresses WHERE account = ? ORDER BY main DESC", (account,)
            ).fetchall()
        return Account(
            identity=Identity(written(keys[0]), frozenset(map(plain, keys))),
            enabled=bool(enabled),
            secrets=Secrets(password_hash, shared, None if scram[0] is None else ScramSecret(*scram)),
        )

    def close(self) -> None:
        """Close the file. A later call opens it again."""
        with self._lock:
            self._close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file, for one thread."""
        with self._lock:
            try:
                db = self._open()
                db.execute("BEGIN")
                try:
                    yield db
                finally:
                    db.execute("ROLLBACK")
            except (sqlite3.Error, OSError, DirectoryError) as error:
                self._close()
                raise _unavailable(self.path, error) from error

    def _open(self) -> sqlite3.Connection:
        status = self.path.stat()
        file = status.st_dev, status.st_ino
        if self._db is None or file != self._file:
            self._close()
            self._db = connect_for_reading(self.path)
            self._file = file
            self._openings += 1
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _unavailable(path: Path, error: Exception) -> DirectoryUnavailable:
    # A DirectoryError names the file itself.
    reason = str(error) if isinstance(error, DirectoryError) else f"{path} cannot be read: {error}"
    return DirectoryUnavailable(reason)
