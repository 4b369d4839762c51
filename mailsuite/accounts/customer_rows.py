"""Customers as rows of the directory's tables, and back. Blocks; within a transaction of the caller."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, NamedTuple

from mailsuite.accounts.configured import Configured
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import Key, customer_key, written
from mailsuite.accounts.records import Secrets
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.mail.session import ScramSecret

_SECRETS = "password_hash, shared, scram_salt, scram_iterations, scram_stored_key, scram_server_key"
_TERMS = (
    "key, name, certificate_key, certificate, contact, hold_time, warning_time, max_messages, max_octets,"
    " pipelining, turn_interval, shared_turns, next_hop, recipients, recipients_command"
)


class Version(NamedTuple):
    """What tells one state of the directory from another: which opening of the file, and its data_version then."""

    opening: int
    data: int


@dataclass(frozen=True, slots=True)
class CustomersSnapshot:
    """The directory's customers at one moment, with the lists of their recipients by domain. No secrets."""

    version: Version
    customers: tuple[Customer, ...]
    recipients: Mapping[str, frozenset[str]] = field(repr=False)


class Row(NamedTuple):
    """One customer of the directory."""

    id: int
    customer: Customer
    secrets: Secrets


def read_customers(db: sqlite3.Connection, where: str = "", arguments: Iterable[Any] = ()) -> list[Row]:
    """The customers of the directory for which a condition holds, by name."""
    query = f"SELECT id, {_SECRETS}, {_TERMS} FROM customers {where} ORDER BY key"  # noqa: S608 - constants of ours
    rows = db.execute(query, tuple(arguments)).fetchall()
    # One query each where they are few, as at a login; all at once where all are read.
    domains = _grouped(db, "domain", "customer_domains", rows)
    networks = _grouped(db, "network", "customer_networks", rows)
    return [
        Row(number, _customer(terms, domains.get(number, ()), networks.get(number, ())), secrets_of(*secrets))
        for number, *rest in rows
        for secrets, terms in [(rest[:6], rest[6:])]
    ]


def secrets_of(password_hash: str | None, shared: bytes | None, *scram: Any) -> Secrets:
    """What the columns say."""
    return Secrets(password_hash, shared, None if scram[0] is None else ScramSecret(*scram))


def columns_of(secrets: Secrets) -> tuple[str | bytes | int | None, ...]:
    """The columns of an account's or a customer's secrets, in the order of the tables."""
    scram = secrets.scram
    stored = (None,) * 4 if scram is None else (scram.salt, scram.iterations, scram.stored_key, scram.server_key)
    return (secrets.password_hash, secrets.shared, *stored)


def insert(db: sqlite3.Connection, customer: Customer, secrets: Secrets) -> int:
    """Add a customer. Returns its number."""
    places = ", ".join("?" * (len(_SECRETS.split(",")) + len(_TERMS.split(","))))
    query = f"INSERT INTO customers ({_SECRETS}, {_TERMS}) VALUES ({places})"  # noqa: S608 - constants of ours
    number = db.execute(query, (*columns_of(secrets), *_terms(customer))).lastrowid or 0
    _insert_domains(db, number, customer.domains)
    _insert_networks(db, number, customer)
    return number


def update(db: sqlite3.Connection, row: Row, customer: Customer) -> None:
    """Put other terms in the place of a customer's. Recipients of domains that it keeps stay."""
    terms = ", ".join(f"{name.strip()} = ?" for name in _TERMS.split(","))
    db.execute(f"UPDATE customers SET {terms} WHERE id = ?", (*_terms(customer), row.id))  # noqa: S608 - constants
    gone = [(domain,) for domain in row.customer.domains if domain not in customer.domains]
    db.executemany("DELETE FROM customer_domains WHERE domain = ?", gone)
    _insert_domains(db, row.id, [domain for domain in customer.domains if domain not in row.customer.domains])
    db.execute("DELETE FROM customer_networks WHERE customer = ?", (row.id,))
    _insert_networks(db, row.id, customer)


def set_secrets(db: sqlite3.Connection, number: int, secrets: Secrets) -> None:
    """Put other secrets in the place of a customer's."""
    assigned = ", ".join(f"{name.strip()} = ?" for name in _SECRETS.split(","))
    db.execute(f"UPDATE customers SET {assigned} WHERE id = ?", (*columns_of(secrets), number))  # noqa: S608 - constants


def customers_now(db: sqlite3.Connection, version: Version) -> CustomersSnapshot:
    """All of them, with their lists."""
    recipients: dict[str, set[str]] = {}
    for domain, local_part in db.execute("SELECT domain, local_part FROM customer_recipients"):
        recipients.setdefault(domain, set()).add(local_part)
    return CustomersSnapshot(
        version,
        tuple(row.customer for row in read_customers(db)),
        {domain: frozenset(local_parts) for domain, local_parts in recipients.items()},
    )


def refuse_clash(db: sqlite3.Connection, configured: Configured) -> None:
    """See that what the configuration gives its customers is nobody's here. Raises `DirectoryError`."""
    refuse_clash_within(configured)
    logins: dict[str, str] = {}
    for key, certificate, name in db.execute("SELECT key, certificate_key, name FROM customers"):
        logins |= {key: name} if certificate is None else {key: name, certificate: name}
    for name, certificate in configured.logins():
        for login in (name, certificate):
            other = None if login is None else logins.get(customer_key(login))
            if other is not None:
                raise DirectoryError(
                    f"{login!r} logs in the customer {name!r} of the configuration and {other!r} of the directory; "
                    f"delete one with `mailsuite customer del {other}`, or take the other out of the configuration"
                )
            key = configured.account_key(login)
            if key is not None and has_address(db, key):
                raise DirectoryError(
                    f"{login!r} logs in a customer of the configuration, and the account {written(key)} as well; "
                    "give one of them another name"
                )
    for customer in configured.customers:
        for domain in customer.domains:
            _refuse_domain(db, customer, domain)


def refuse_clash_within(configured: Configured) -> None:
    """See that no two customers of the configuration log in by the same. Raises `DirectoryError`."""
    logins: dict[str, str] = {}
    for name, certificate in configured.logins():
        for login in (name, certificate):
            other = None if login is None else logins.setdefault(customer_key(login), name)
            if other not in (None, name):
                raise DirectoryError(
                    f"{login!r} logs in both {other!r} and {name!r}, customers of the configuration; give one of them "
                    "another name or certificate"
                )


def has_address(db: sqlite3.Connection, key: Key) -> bool:
    """Whether an address is an account's."""
    query = "SELECT 1 FROM addresses WHERE local_part = ? AND domain = ?"
    return db.execute(query, key).fetchone() is not None


def holder(db: sqlite3.Connection, domain: str) -> str | None:
    """The name of the customer for whom a domain is held."""
    query = "SELECT name FROM customers JOIN customer_domains ON customer = id WHERE domain = ?"
    row = db.execute(query, (domain,)).fetchone()
    return None if row is None else str(row[0])


def _refuse_domain(db: sqlite3.Connection, customer: Customer, domain: str) -> None:
    other = holder(db, domain)
    if other is not None:
        raise DirectoryError(
            f"{domain} is held for {customer.name!r} in the configuration and for {other!r} in the directory; take it "
            f"from one, such as by `mailsuite customer set {other} --del-domain {domain}`"
        )
    if db.execute("SELECT 1 FROM domains WHERE name = ?", (domain,)).fetchone():
        raise DirectoryError(
            f"{domain} is held for {customer.name!r} in the configuration, and a local domain as well; take it out of "
            f"that customer's domains, or delete it with `mailsuite domain del {domain}`"
        )


def _grouped(db: sqlite3.Connection, what: str, table: str, rows: list[Any]) -> dict[int, list[str]]:
    if len(rows) > 1:
        found = db.execute(f"SELECT customer, {what} FROM {table} ORDER BY {what}").fetchall()  # noqa: S608 - constants
    else:
        query = f"SELECT customer, {what} FROM {table} WHERE customer = ? ORDER BY {what}"  # noqa: S608 - constants
        found = db.execute(query, (rows[0][0] if rows else 0,)).fetchall()
    grouped: dict[int, list[str]] = {}
    for number, value in found:
        grouped.setdefault(number, []).append(value)
    return grouped


def _customer(terms: list[Any], domains: Iterable[str], networks: Iterable[str]) -> Customer:
    _, name, _, certificate, contact, hold_time, warning_time, max_messages, max_octets, *rest = terms
    pipelining, turn_interval, shared_turns, next_hop, recipients, command = rest
    return Customer(
        name=name,
        domains=tuple(domains),
        certificate=certificate,
        networks=tuple(map(ip_network, networks)),
        contact=None if contact is None else parse_mailbox(contact),
        hold_time=hold_time,
        warning_time=warning_time,
        max_messages=max_messages,
        max_octets=max_octets,
        pipelining=bool(pipelining),
        turn_interval=turn_interval,
        shared_turns=bool(shared_turns),
        next_hop=next_hop,
        recipients=RecipientRule(recipients),
        recipients_command=tuple(json.loads(command)),
    )


def _terms(customer: Customer) -> tuple[Any, ...]:
    return (
        customer_key(customer.name),
        customer.name,
        None if customer.certificate is None else customer_key(customer.certificate),
        customer.certificate,
        None if customer.contact is None else str(customer.contact),
        customer.hold_time,
        customer.warning_time,
        customer.max_messages,
        customer.max_octets,
        customer.pipelining,
        customer.turn_interval,
        customer.shared_turns,
        customer.next_hop,
        customer.recipients.value,
        json.dumps(customer.recipients_command),
    )


def _insert_domains(db: sqlite3.Connection, number: int, domains: Iterable[str]) -> None:
    db.executemany("INSERT INTO customer_domains VALUES (?, ?)", [(domain, number) for domain in domains])


def _insert_networks(db: sqlite3.Connection, number: int, customer: Customer) -> None:
    rows = [(number, str(network)) for network in customer.networks]
    db.executemany("INSERT OR IGNORE INTO customer_networks VALUES (?, ?)", rows)
