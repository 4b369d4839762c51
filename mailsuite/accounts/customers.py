"""The directory of accounts, edited: customers of on-demand mail relay, their secrets and their recipients.

For the `mailsuite` command and for threads, as `directory` is: everything here blocks, a change is whole or there is
none, and a running server sees it within a second or so.

Rules: names are unique whatever the case, and so are the names in certificates; neither may log in anybody else. A
domain is held for one customer, and then it is not local. The recipients on a list belong to a domain and go with it.
Whatever an operator did wrong raises `DirectoryError`.

What is held for a domain that is taken away stays held, for nobody: it goes to whoever is given the domain before it
goes back to its senders, `mailsuite.mail.customer.HOLD_TIME` after it came.

Known limits: mail that was queued for a domain's MX before the domain got a customer is not held, until the server is
started again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mailsuite.accounts.customer_rows import Row, insert, read_customers, set_secrets, update
from mailsuite.accounts.editing import EditedFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import (
    Key,
    certificate_name,
    customer_key,
    customer_name,
    domain_name,
    recipient_key,
    written,
)
from mailsuite.accounts.records import KeptCustomer, Secrets
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.mail.session import SecretKind


class CustomersFile(EditedFile):
    """Customers, open for editing as `EditedFile` says."""

    def expect_free(self, customer: Customer) -> Customer:
        """Whether this customer could be added. Returns it with its domains as they are looked up."""
        with self._sentences():
            return self._sound(customer, None)

    def add_customer(self, customer: Customer, password: str | None, *, keep: Collection[SecretKind] = ()) -> Customer:
        """Add one. Without a password it can log in by its certificate only. Returns it as it is kept."""
        self.expect_free(customer)  # before the work of hashing
        secrets = Secrets() if password is None else self._hashing.secrets(password, keep)
        with self._transaction():
            sound = self._sound(customer, None)
            insert(self._db, sound, secrets)
        return sound

    def change_customer(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        add_domains: Sequence[str] = (),
        delete_domains: Sequence[str] = (),
    ) -> Customer:
        """Put other values in the place of some fields of a customer's, but its domains; give it some, take some.

        All or nothing. Returns it as it is now.
        """
        with self._transaction():
            row = self._row(name)
            gone = [domain_name(domain) for domain in delete_domains]
            for domain in gone:
                if domain not in row.customer.domains:
                    raise DirectoryError(
                        f"{domain} is not held for {row.customer.name!r}; see what is by `mailsuite customer list`"
                    )
            domains = [domain for domain in row.customer.domains if domain not in gone]
            for domain in map(domain_name, add_domains):
                if domain in domains:
                    raise DirectoryError(f"{domain} is held for {row.customer.name!r} already; leave it out")
            sound = self._sound(replace(row.customer, **changes, domains=(*domains, *add_domains)), row)
            update(self._db, row, sound)
        return sound

    def set_password(self, name: str, password: str, *, keep: Collection[SecretKind] | None = None) -> KeptCustomer:
        """Give a customer a new password. None for `keep` keeps the kinds of secrets that it has had."""
        kept = self.customer(name)
        secrets = self._hashing.secrets(password, kept.kinds if keep is None else keep)
        with self._transaction():
            set_secrets(self._db, self._row(name).id, secrets)
        return self.customer(name)

    def renew_hash(self, name: str, old: str, new: str) -> None:
        """Put a hash of the same password in the place of another, if that is still there."""
        with self._transaction():
            self._db.execute(
                "UPDATE customers SET password_hash = ? WHERE id = ? AND password_hash = ?",
                (new, self._row(name).id, old),
            )

    def delete_customer(self, name: str) -> str:
        """Delete one with its secrets and its lists; its mail stays held, for nobody. Returns its name."""
        with self._transaction():
            row = self._row(name)
            self._db.execute("DELETE FROM customers WHERE id = ?", (row.id,))
        return row.customer.name

    def customer(self, name: str) -> KeptCustomer:
        """The customer of a name, whatever the case."""
        with self._sentences():
            return self._kept(self._row(name))

    def customers(self) -> list[KeptCustomer]:
        """Every customer of the directory, by name."""
        with self._sentences():
            return [self._kept(row) for row in read_customers(self._db)]

    # ------------------------------------------------------------------------------------------ recipients

    def add_recipients(self, name: str, addresses: Iterable[str], *, only: bool = False) -> int:
        """Put recipients on a customer's list; with `only`, nobody else stays there. Returns how many were new."""
        keys = [recipient_key(address) for address in addresses]
        with self._transaction():
            row = self._row(name)
            before = self._recipients(row)
            for key in keys:
                if key[1] not in row.customer.domains:
                    raise DirectoryError(
                        f"{written(key)} is in no domain of {row.customer.name!r}; add the domain with `mailsuite "
                        f"customer set {row.customer.name} --add-domain {key[1]}`, or leave it out"
                    )
            if only:
                self._db.executemany(
                    "DELETE FROM customer_recipients WHERE domain = ?",
                    [(domain,) for domain in row.customer.domains],
                )
            self._db.executemany(
                "INSERT OR IGNORE INTO customer_recipients VALUES (?, ?)",
                [(domain, local_part) for local_part, domain in keys],
            )
        return len(set(keys).difference(before))

    def delete_recipients(self, name: str, addresses: Iterable[str]) -> None:
        """Take recipients off a customer's list, all or nothing."""
        keys = [recipient_key(address) for address in addresses]
        with self._transaction():
            row = self._row(name)
            for key in keys:
                gone = self._db.execute(
                    "DELETE FROM customer_recipients WHERE local_part = ? AND domain = ? AND domain IN"
                    " (SELECT domain FROM customer_domains WHERE customer = ?)",
                    (*key, row.id),
                )
                if not gone.rowcount:
                    raise DirectoryError(
                        f"{written(key)} is not on the list of {row.customer.name!r}; see who is by `mailsuite "
                        f"customer recipients {row.customer.name} list`"
                    )

    def recipients(self, name: str) -> list[str]:
        """Who is on a customer's list, as written, by domain and local part."""
        with self._sentences():
            return list(map(written, self._recipients(self._row(name))))

    # ------------------------------------------------------------------------------------------ underneath

    def _row(self, name: str) -> Row:
        rows = read_customers(self._db, "WHERE key = ?", (customer_key(name),))
        if rows:
            return rows[0]
        configured = self._configured.named(name)
        if configured is not None:
            raise DirectoryError(
                f"the customer {configured.name!r} stands in the configuration; change its [[customer]] table there"
            )
        raise DirectoryError(f"there is no customer {name!r}; see which there are by `mailsuite customer list`")

    def _kept(self, row: Row) -> KeptCustomer:
        query = (
            "SELECT count(*) FROM customer_recipients WHERE domain IN"
            " (SELECT domain FROM customer_domains WHERE customer = ?)"
        )
        count: int = self._db.execute(query, (row.id,)).fetchone()[0]
        return KeptCustomer(row.customer, row.secrets.password_hash is not None, row.secrets.kinds, count)

    def _recipients(self, row: Row) -> list[Key]:
        return self._db.execute(
            "SELECT local_part, domain FROM customer_recipients WHERE domain IN"
            " (SELECT domain FROM customer_domains WHERE customer = ?) ORDER BY domain, local_part",
            (row.id,),
        ).fetchall()

    def _sound(self, customer: Customer, before: Row | None) -> Customer:
        """A customer that may take the place of `before`, or be added."""
        self._expect_login(customer_name(customer.name), customer.name, before)
        if customer.certificate is not None:
            self._expect_login(certificate_name(customer.certificate), customer.name, before)
        if not customer.domains:
            raise DirectoryError(f"the customer {customer.name!r} has no domain; name one that is held for it")
        domains = list(map(domain_name, customer.domains))
        for number, domain in enumerate(domains):
            if domain in domains[:number]:
                raise DirectoryError(f"{domain} is given twice; name it once")
            if self._has_domain(domain):
                raise DirectoryError(
                    f"{domain} is a local domain; delete it with `mailsuite domain del {domain}`, or choose another"
                )
            if before is None or domain not in before.customer.domains:
                self._expect_not_held(domain)
        times = (customer.hold_time, customer.warning_time, customer.contact)
        if customer.is_warned_too_early and (
            before is None
            or times != (before.customer.hold_time, before.customer.warning_time, before.customer.contact)
        ):
            raise DirectoryError(
                f"the warning time of {customer.name!r} is longer than its hold time; give a shorter one with "
                "--warning-time, or 0 for no warning"
            )
        if customer.recipients is RecipientRule.COMMAND and not customer.recipients_command:
            raise DirectoryError(
                f"there is no command that knows the recipients of {customer.name!r}; give one with "
                "--recipients-command"
            )
        return replace(customer, domains=tuple(sorted(domains)))

    def _expect_login(self, login: str, name: str, before: Row | None) -> None:
        """What a customer is to log in by must log in nobody else."""
        key = customer_key(login)
        is_name = login == name
        number = 0 if before is None else before.id
        query = "SELECT name FROM customers WHERE (key = ?1 OR certificate_key = ?1) AND id != ?2"
        row = self._db.execute(query, (key, number)).fetchone()
        taken = None if row is None else f"the customer {row[0]!r}"
        for other, certificate in self._configured.logins():
            if key in (customer_key(other), None if certificate is None else customer_key(certificate)):
                taken = f"the customer {other!r} of the configuration"
        account = self._configured.account_key(login)
        if account is not None and self._is_account(account):
            taken = f"the account {written(account)}"
        if taken is None:
            return
        if is_name and row is not None and customer_key(str(row[0])) == key:
            raise DirectoryError(f"there is a customer {row[0]!r} already; change it with `mailsuite customer set`")
        raise DirectoryError(f"{login!r} logs in {taken} already; choose another {'name' if is_name else 'one'}")
