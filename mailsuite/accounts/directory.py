"""The directory of accounts, edited: local domains, accounts with their addresses and secrets, aliases.

For the `mailsuite` command and for threads: everything here blocks, on the disk and on argon2id. A running
server reads the same file through `reader` and sees a change within a second or so; a change is whole, or
there is none.

Rules: an address is an account's or an alias, never both, and only of a local domain. An account has one main
address, which names its mailbox and cannot be taken from it, and may have further ones; `@example.org` among
them receives whatever has no address of its own in that domain, and lets the account send as any address
there. A domain that is held for a customer cannot be local, and what logs in a customer is no account's address.
Whatever an operator did wrong raises `DirectoryError`; so does a file that cannot be read or written.

Known limits: an alias may lead to nobody, or round in a circle; the router refuses those. `nobodys` finds the former.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from mailsuite.accounts.customer_rows import columns_of
from mailsuite.accounts.editing import EditedFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import (
    CATCH_ALL,
    POSTMASTER,
    Key,
    account_address,
    account_address_or_catch_all,
    domain_name,
    key_of,
    target_address,
    written,
)
from mailsuite.accounts.records import Alias, Domain, Secrets, User
from mailsuite.mail.address import Address
from mailsuite.mail.session import SecretKind

_SET_SECRETS = """
    UPDATE accounts SET password_hash = ?, shared = ?,
        scram_salt = ?, scram_iterations = ?, scram_stored_key = ?, scram_server_key = ?
    WHERE id = ?
"""
_USERS = """
    SELECT a.id, a.enabled, a.password_hash IS NOT NULL, a.shared IS NOT NULL, a.scram_salt IS NOT NULL,
        x.local_part, x.domain
    FROM accounts a JOIN addresses x ON x.account = a.id
    ORDER BY a.id, x.main DESC, x.domain, x.local_part
"""
_DOMAINS = """
    SELECT name,
        (SELECT count(DISTINCT account) FROM addresses WHERE domain = name),
        (SELECT count(DISTINCT local_part) FROM aliases WHERE domain = name)
    FROM domains ORDER BY name
"""


class DirectoryFile(EditedFile):
    """Domains, accounts and aliases, open for editing as `EditedFile` says."""

    # ------------------------------------------------------------------------------------------ domains

    def add_domain(self, name: str) -> str:
        """Make a domain local. Returns its key."""
        key = domain_name(name)
        with self._transaction():
            if self._has_domain(key):
                raise DirectoryError(f"{key} is a local domain already; nothing needs doing")
            self._expect_not_held(key)
            self._db.execute("INSERT INTO domains VALUES (?)", (key,))
        return key

    def delete_domain(self, name: str) -> str:
        """Let a domain go that has no addresses any more. Returns its key."""
        key = domain_name(name)
        with self._transaction():
            self._expect_domain(key)
            for table, what, command in (
                ("addresses", "accounts", f"mailsuite user list {key}"),
                ("aliases", "aliases", f"mailsuite alias list {key}"),
            ):
                if self._db.execute(f"SELECT 1 FROM {table} WHERE domain = ? LIMIT 1", (key,)).fetchone():  # noqa: S608 - a constant
                    raise DirectoryError(f"{key} still has {what}; delete those that `{command}` shows first")
            self._db.execute("DELETE FROM domains WHERE name = ?", (key,))
        return key

    def domains(self) -> list[Domain]:
        """Every local domain."""
        with self._sentences():
            return [Domain(*row) for row in self._db.execute(_DOMAINS)]

    # --------------------------------------------------------------------------------------------- users

    def expect_free(self, address: str, further: Sequence[str] = ()) -> list[Key]:
        """Whether an account could have these addresses, the main one and further ones. Returns their keys."""
        keys = [account_address(address), *map(account_address_or_catch_all, further)]
        with self._sentences():
            for number, key in enumerate(keys):
                self._expect_domain(key[1])
                if key in keys[:number]:
                    raise DirectoryError(f"{written(key)} is given twice; name it once")
                self._expect_free(key)
                self._expect_no_customer(key)
        return keys

    def add_user(
        self,
        address: str,
        password: str | None,
        *,
        keep: Collection[SecretKind] = (),
        further: Sequence[str] = (),
    ) -> str:
        """Add an account. Without a password it has a mailbox, but nobody can log in. Returns its main address."""
        self.expect_free(address, further)  # before the work of hashing
        secrets = Secrets() if password is None else self._hashing.secrets(password, keep)
        with self._transaction():
            keys = self.expect_free(address, further)
            account = self._db.execute("INSERT INTO accounts DEFAULT VALUES").lastrowid or 0
            self._db.execute(_SET_SECRETS, (*columns_of(secrets), account))
            self._db.executemany(
                "INSERT INTO addresses VALUES (?, ?, ?, ?)",
                [(*key, account, number == 0) for number, key in enumerate(keys)],
            )
        return written(keys[0])

    def set_password(self, address: str, password: str, *, keep: Collection[SecretKind] | None = None) -> User:
        """Give an account a new password. None for `keep` keeps the kinds of secrets that it has had."""
        user = self.user(address)
        secrets = self._hashing.secrets(password, user.kinds if keep is None else keep)
        with self._transaction():
            self._db.execute(_SET_SECRETS, (*columns_of(secrets), self._main_account(address)))
        return self.user(address)

    def renew_hash(self, address: str, old: str, new: str) -> None:
        """Put a hash of the same password in the place of another, if that is still there."""
        with self._transaction():
            self._db.execute(
                "UPDATE accounts SET password_hash = ? WHERE id = ? AND password_hash = ?",
                (new, self._main_account(address), old),
            )

    def set_enabled(self, address: str, *, enabled: bool) -> str:
        """Say whether anybody can log in to an account; it receives mail either way. Returns its main address."""
        with self._transaction():
            account = self._main_account(address)
            self._db.execute("UPDATE accounts SET enabled = ? WHERE id = ?", (enabled, account))
        return written(account_address(address))

    def change_addresses(self, address: str, *, add: Sequence[str] = (), delete: Sequence[str] = ()) -> User:
        """Give an account further addresses and take others from it, all or nothing."""
        main = account_address(address)
        with self._transaction():
            account = self._main_account(address)
            for key in map(account_address_or_catch_all, delete):
                if key == main:
                    raise DirectoryError(f"{written(key)} is the account's main address; delete the account instead")
                gone = self._db.execute(
                    "DELETE FROM addresses WHERE local_part = ? AND domain = ? AND account = ?", (*key, account)
                )
                if not gone.rowcount:
                    raise DirectoryError(
                        f"{written(main)} has no address {written(key)}; see what it has by `mailsuite user list`"
                    )
            for key in map(account_address_or_catch_all, add):
                self._expect_domain(key[1])
                self._expect_free(key)
                self._expect_no_customer(key)
                self._db.execute("INSERT INTO addresses VALUES (?, ?, ?, 0)", (*key, account))
        return self.user(address)

    def delete_user(self, address: str) -> list[str]:
        """Delete an account with its addresses and secrets. Returns the aliases that led to it, and still do.

        Its mail is not touched.
        """
        with self._transaction():
            account = self._main_account(address)
            keys = self._db.execute("SELECT local_part, domain FROM addresses WHERE account = ?", (account,))
            gone: set[Key] = set(keys)
            self._db.execute("DELETE FROM accounts WHERE id = ?", (account,))
        return [alias.address for alias in self.aliases() if gone & set(map(key_of, alias.targets))]

    def user(self, address: str) -> User:
        """The account that has this main address."""
        with self._sentences():
            return self._users(self._main_account(address))[0]

    def users(self, domain: str | None = None) -> list[User]:
        """Every account, or those with an address in one local domain; in the order of their main addresses."""
        suffix = self._suffix(domain)
        with self._sentences():
            users = self._users()
        return sorted(
            (user for user in users if any(one.endswith(suffix) for one in (user.address, *user.further))),
            key=lambda user: user.address.rpartition("@")[::-1],
        )

    # -------------------------------------------------------------------------------------------- aliases

    def add_alias(self, address: str, targets: Sequence[str]) -> Alias:
        """Let an address lead to others; one that is an alias already gets further targets. Returns it as it is now."""
        key = account_address_or_catch_all(address)
        addresses = [target_address(text) for text in targets]
        if not addresses:
            raise DirectoryError(f"the alias {written(key)} leads nowhere; name a target")
        with self._transaction():
            self._expect_domain(key[1])
            if self._is_account(key):
                raise DirectoryError(f"{written(key)} is the address of an account; take another, or delete that first")
            if any(key_of(target) == key for target in addresses):
                raise DirectoryError(f"{written(key)} would lead to itself; name another target")
            self._db.executemany(
                "INSERT OR IGNORE INTO aliases VALUES (?, ?, ?, ?)",
                [(*key, target.local_part, target.domain) for target in addresses],
            )
        return next(alias for alias in self.aliases() if alias.address == written(key))

    def nobodys(self, addresses: Sequence[Address], delimiter: str) -> list[Address]:
        """Those of the addresses that are in local domains and that nobody has, the postmaster's left out.

        `delimiter` begins a subaddress; an empty one means that there are none.
        """
        with self._sentences():
            return [address for address in addresses if self._is_nobodys(*key_of(address), delimiter)]

    def delete_alias(self, address: str, targets: Sequence[str] = ()) -> str:
        """Delete an alias, or only some of its targets; without targets there is no alias. Returns its address."""
        key = account_address_or_catch_all(address)
        with self._transaction():
            if not self._is_alias(key):
                raise DirectoryError(f"there is no alias {written(key)}; see which there are by `mailsuite alias list`")
            for target in map(target_address, targets):
                gone = self._db.execute(
                    "DELETE FROM aliases WHERE local_part = ? AND domain = ?"
                    " AND target_local_part = ? AND target_domain = ?",
                    (*key, target.local_part, target.domain),
                )
                if not gone.rowcount:
                    raise DirectoryError(
                        f"the alias {written(key)} does not lead to {target}; see `mailsuite alias list`"
                    )
            if not targets:
                self._db.execute("DELETE FROM aliases WHERE local_part = ? AND domain = ?", key)
        return written(key)

    def aliases(self, domain: str | None = None) -> list[Alias]:
        """Every alias, or those of a local domain; in the order of their addresses."""
        suffix = self._suffix(domain)
        with self._sentences():
            rows = self._db.execute("SELECT * FROM aliases ORDER BY domain, local_part").fetchall()
        grouped = groupby(rows, key=lambda row: (row[0], row[1]))
        aliases = [Alias(written(key), tuple(Address(row[2], row[3]) for row in some)) for key, some in grouped]
        return [alias for alias in aliases if alias.address.endswith(suffix)]

    # ------------------------------------------------------------------------------------------ underneath

    def _users(self, account: int | None = None) -> list[User]:
        query = _USERS if account is None else _USERS.replace("ORDER", "WHERE a.id = ? ORDER")
        rows = self._db.execute(query, () if account is None else (account,)).fetchall()
        users = []
        for _, group in groupby(rows, key=lambda row: row[0]):
            some = list(group)
            _, enabled, has_password, shared, scram, *_ = some[0]
            main, *further = (written((local_part, domain)) for *_, local_part, domain in some)
            kinds = {SecretKind.SHARED: shared, SecretKind.SCRAM_SHA_256: scram}
            kept = frozenset(kind for kind, there in kinds.items() if there)
            users.append(User(main, tuple(further), bool(enabled), bool(has_password), kept))
        return users

    def _suffix(self, domain: str | None) -> str:
        if domain is None:
            return ""
        key = domain_name(domain)
        with self._sentences():
            self._expect_domain(key)
        return f"@{key}"

    def _main_account(self, address: str) -> int:
        key = account_address(address)
        row = self._db.execute(
            "SELECT account, main FROM addresses WHERE local_part = ? AND domain = ?", key
        ).fetchone()
        if row is None:
            self._expect_domain(key[1])
            raise DirectoryError(f"there is no account {written(key)}; see which there are by `mailsuite user list`")
        account: int = row[0]
        if not row[1]:
            main = self._users(account)[0].address
            raise DirectoryError(f"{written(key)} is a further address of {main}; name the account by that")
        return account

    def _expect_domain(self, key: str) -> None:
        if not self._has_domain(key):
            raise DirectoryError(f"{key} is not a local domain; add it with `mailsuite domain add {key}`")

    def _is_alias(self, key: Key) -> bool:
        query = "SELECT 1 FROM aliases WHERE local_part = ? AND domain = ? LIMIT 1"
        return self._db.execute(query, key).fetchone() is not None

    def _is_nobodys(self, local_part: str, domain: str, delimiter: str) -> bool:
        base = local_part.partition(delimiter)[0] if delimiter else local_part
        # RFC 5321 section 4.5.1: whoever reads the postmaster's mail, the configuration may say it.
        if POSTMASTER in (local_part, base) or not self._has_domain(domain):
            return False
        keys = [(one, domain) for one in (local_part, base, CATCH_ALL)]
        return not any(self._is_account(key) or self._is_alias(key) for key in keys)

    def _expect_free(self, key: Key) -> None:
        if self._is_account(key):
            raise DirectoryError(f"{written(key)} is the address of an account already; choose another")
        if self._is_alias(key):
            raise DirectoryError(
                f"{written(key)} is an alias; delete it with `mailsuite alias del {written(key)}`, or choose another"
            )
