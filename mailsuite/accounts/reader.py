"""The directory of accounts, read by a running server: whole, as snapshots, or one account for a login.

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
from typing import Final, TypeAlias

from mailsuite.accounts.configured import Configured, identity_of
from mailsuite.accounts.customer_rows import (
    CustomersSnapshot,
    Version,
    customers_now,
    read_customers,
    refuse_clash,
    secrets_of,
)
from mailsuite.accounts.errors import DirectoryError, unusable
from mailsuite.accounts.names import Key, plain, written
from mailsuite.accounts.records import Account
from mailsuite.accounts.schema import connect_for_editing, connect_for_reading
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.mail.address import Address
from mailsuite.mail.session import Identity, SecretKind

Entry: TypeAlias = Address | tuple[Address, ...]
"""What an address is: a mailbox, by its canonical address, or an alias, by its targets."""


# Which secrets there are besides hashes: for CRAM-MD5, for SCRAM.
_KEPT: Final = """
    SELECT max(shared IS NOT NULL), max(scram_salt IS NOT NULL) FROM (
        SELECT shared, scram_salt FROM accounts WHERE enabled UNION ALL SELECT shared, scram_salt FROM customers
    )
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Domains, mailboxes and aliases at one moment. No secrets, but the `kinds` that somebody has who may log in."""

    version: Version
    domains: frozenset[str]
    entries: Mapping[Key, Entry] = field(repr=False)
    kinds: frozenset[SecretKind] = frozenset()


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
            version = self._version(db)
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
            kept = zip((SecretKind.SHARED, SecretKind.SCRAM_SHA_256), db.execute(_KEPT).fetchone(), strict=True)
            kinds = frozenset(kind for kind, is_kept in kept if is_kept)
        entries |= {key: tuple(addresses) for key, addresses in targets.items()}
        return Snapshot(version, domains, MappingProxyType(entries), kinds)

    def customers(self, configured: Configured, known: Version | None = None) -> CustomersSnapshot | None:
        """The customers of now; None where it is still the state of version `known`.

        Raises `DirectoryUnavailable` also where the configuration has a name or a domain of somebody here.
        """
        with self._reading() as db:
            version = self._version(db)
            if version == known:
                return None
            refuse_clash(db, configured)
            return customers_now(db, version)

    def salt_key(self) -> bytes:
        """What the salts of configured customers are derived from."""
        with self._reading() as db:
            key: bytes = db.execute("SELECT key FROM salt_key").fetchone()[0]
        return key

    def account(self, key: Key, customer: str = "", *, external: bool = False) -> Account | None:
        """The account that has an address, or the customer of a name, as it is now; None where there is neither.

        `customer` is a customer key; with `external` it is that of a customer's certificate instead. Either is looked
        for, whatever became of the other: a name costs the same, whosever it is.
        """
        with self._reading() as db:
            row = db.execute(
                "SELECT id, enabled, password_hash, shared,"
                " scram_salt, scram_iterations, scram_stored_key, scram_server_key"
                " FROM accounts JOIN addresses ON account = id WHERE local_part = ? AND domain = ?",
                key,
            ).fetchone()
            found = read_customers(db, f"WHERE {'certificate_key' if external else 'key'} = ?", (customer,))
            if row is None:
                return None if not found else Account(identity_of(found[0].customer), True, found[0].secrets)
            account, enabled, password_hash, shared, *scram = row
            keys = db.execute(
                "SELECT local_part, domain FROM addresses WHERE account = ? ORDER BY main DESC", (account,)
            ).fetchall()
        return Account(
            identity=Identity(written(keys[0]), frozenset(map(plain, keys))),
            enabled=bool(enabled),
            secrets=secrets_of(password_hash, shared, *scram),
        )

    def _version(self, db: sqlite3.Connection) -> Version:
        return Version(self._openings, db.execute("PRAGMA data_version").fetchone()[0])

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
    reason = str(error) if isinstance(error, DirectoryError) else unusable(path, error, what="read")
    return DirectoryUnavailable(reason)
