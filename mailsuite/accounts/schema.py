"""The directory's file: an SQLite database in WAL mode, its tables and how they came about.

Rules: `PRAGMA user_version` counts the migrations that were applied, `PRAGMA application_id` says that the
file is ours. A commit is on stable storage (synchronous=FULL); what is deleted is overwritten
(secure_delete), for it may be a secret. The file is for its owner alone (0600; SQLite gives the same mode to
the files that it lays beside it). Made by root, it is given to the owner of its directory, so that a server
that has dropped root can read what the command wrote.

Known limits: WAL needs a local file system. A file that is put in the place of this one while a program has
it open belongs together with an empty `-wal`, which is what an editor leaves; where there is a log of the old
file, remove it in the same breath.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from mailsuite.accounts.errors import DirectoryError, OutdatedDirectory

APPLICATION_ID = 0x6D734143  # "msAC"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE domains (name TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID",
        """
        CREATE TABLE accounts (
            id INTEGER PRIMARY KEY,
            enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
            password_hash TEXT, -- argon2id; NULL: nobody can log in by password
            shared BLOB,        -- the password itself, for CRAM-MD5
            scram_salt BLOB,
            scram_iterations INTEGER,
            scram_stored_key BLOB,
            scram_server_key BLOB
        )
        """,
        # A local part is folded, and empty for a catch-all. The main address of an account names its mailbox.
        """
        CREATE TABLE addresses (
            local_part TEXT NOT NULL,
            domain TEXT NOT NULL REFERENCES domains (name),
            account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
            main INTEGER NOT NULL CHECK (main IN (0, 1)),
            PRIMARY KEY (local_part, domain)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX addresses_by_account ON addresses (account)",
        "CREATE INDEX addresses_by_domain ON addresses (domain)",
        "CREATE UNIQUE INDEX one_main_address ON addresses (account) WHERE main",
        """
        CREATE TABLE aliases (
            local_part TEXT NOT NULL,
            domain TEXT NOT NULL REFERENCES domains (name),
            target_local_part TEXT NOT NULL,
            target_domain TEXT NOT NULL,
            PRIMARY KEY (local_part, domain, target_local_part, target_domain)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX aliases_by_domain ON aliases (domain)",
    ),
    (
        # Customers of on-demand mail relay. A key is a name or a certificate's name as it is looked up. Times are
        # seconds, sizes octets; NULL is no limit. The command is a JSON list.
        """
        CREATE TABLE customers (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            password_hash TEXT, -- argon2id; NULL: it cannot log in by password
            shared BLOB,        -- the password itself, for CRAM-MD5
            scram_salt BLOB,
            scram_iterations INTEGER,
            scram_stored_key BLOB,
            scram_server_key BLOB,
            certificate_key TEXT UNIQUE,
            certificate TEXT,
            contact TEXT,
            hold_time REAL NOT NULL,
            warning_time REAL NOT NULL,
            max_messages INTEGER,
            max_octets INTEGER,
            pipelining INTEGER NOT NULL CHECK (pipelining IN (0, 1)),
            turn_interval REAL NOT NULL,
            shared_turns INTEGER NOT NULL CHECK (shared_turns IN (0, 1)),
            next_hop TEXT,
            recipients TEXT NOT NULL,
            recipients_command TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE customer_domains (
            domain TEXT NOT NULL PRIMARY KEY,
            customer INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE
        ) WITHOUT ROWID
        """,
        "CREATE INDEX customer_domains_by_customer ON customer_domains (customer)",
        """
        CREATE TABLE customer_networks (
            customer INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
            network TEXT NOT NULL,
            PRIMARY KEY (customer, network)
        ) WITHOUT ROWID
        """,
        # Of those with a list. A local part is folded, and empty for all of the domain. They go with their domain.
        """
        CREATE TABLE customer_recipients (
            domain TEXT NOT NULL REFERENCES customer_domains (domain) ON DELETE CASCADE,
            local_part TEXT NOT NULL,
            PRIMARY KEY (domain, local_part)
        ) WITHOUT ROWID
        """,
        # From this and their names come the SCRAM salts of customers whose passwords stand in the configuration.
        "CREATE TABLE salt_key (key BLOB NOT NULL)",
        "INSERT INTO salt_key VALUES (randomblob(32))",
    ),
)

_BUSY_TIMEOUT = 10.0  # seconds


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open a file that exists, for reading only, for use by any thread (one at a time).

    Raises `OSError`, `sqlite3.Error`, and `DirectoryError` where the file is not ours to read.
    """
    db = _connect(path, "ro")
    try:
        _check(path, db, oldest=len(MIGRATIONS))
    except BaseException:
        db.close()
        raise
    return db


def connect_for_editing(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the file and bring it up to date; where it does not exist, make it if `create` says so.

    Raises `OSError`, `sqlite3.Error` and `DirectoryError`.
    """
    if create:
        _create(path)
    elif not path.exists():
        raise DirectoryError(
            f"there is no directory of accounts at {path}; begin with `mailsuite domain add example.org`"
        )
    _close_to_others(path)
    db = _connect(path, "rw")
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        _check(path, db)
        _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,  # transactions begin where we say so
        check_same_thread=False,
    )


def _create(path: Path) -> None:
    # Never opened but by SQLite once it exists: closing another descriptor would void this process's locks on it.
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise DirectoryError(
            f"{path} cannot be made, for {path.parent} does not exist; make it, for the user whom the server runs as"
        ) from None
    try:
        if os.geteuid() == 0:
            above = path.parent.stat()
            os.fchown(descriptor, above.st_uid, above.st_gid)
    finally:
        os.close(descriptor)


def _close_to_others(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & 0o077:
        with suppress(PermissionError):  # not its owner: then its owner will do it
            path.chmod(mode & 0o700)


def _check(path: Path, db: sqlite3.Connection, *, oldest: int = 0) -> None:
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    empty = application_id == 0 and not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    if application_id != APPLICATION_ID and not empty:
        raise DirectoryError(f"{path} is not a directory of accounts, but some other database; name another file")
    if _version(db) > len(MIGRATIONS):
        raise DirectoryError(f"{path} was made by a newer mailsuite; update this one")
    if _version(db) < oldest:
        raise OutdatedDirectory(
            f"{path} was made by an older mailsuite; bring it up to date with `mailsuite domain list`"
        )


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _migrate(db: sqlite3.Connection) -> None:
    if _version(db) == len(MIGRATIONS):
        return
    if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    try:
        # Asked again: another program may have been faster.
        for number, statements in enumerate(MIGRATIONS[_version(db) :], _version(db) + 1):
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
