"""The `mailsuite` command, customers of on-demand mail relay: the group `customer`, which edits the directory.

Customers that stand in the configuration are listed with the others, and changed there. Durations and sizes are written
as in the configuration, and looked at by the same rules. Results go to stdout; what went wrong goes to stderr in one
sentence, with status 1, or 2 where the command line itself is wrong.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
from pydantic import ValidationError

from mailsuite.admin.asking import (
    MECHANISMS,
    HasDirectory,
    confirm,
    expect_one_at_most,
    is_there,
    new_password,
    opened,
    password_options,
    report,
    yes_option,
)
from mailsuite.admin.customer_terms import changes_in_words, in_time
from mailsuite.admin.output import in_units, json_option, print_rows
from mailsuite.admin.reading import open_spool
from mailsuite.config import Customer as Table
from mailsuite.config import Settings
from mailsuite.config.customers import customer_value
from mailsuite.mail.address import domain_key
from mailsuite.mail.customer import HOLD_TIME, Customer, RecipientRule
from mailsuite.mail.session import SecretKind

if TYPE_CHECKING:
    from mailsuite.accounts.customers import CustomersFile
    from mailsuite.accounts.records import KeptCustomer

Command = TypeVar("Command", bound=Callable[..., Any])

_NONE = "none"
_CLEARED = {"certificate": None, "contact": None, "max_messages": None, "max_size": None, "next_hop": None}


class HasSettings(HasDirectory, Protocol):
    """What the list needs of the context's object besides."""

    @property
    def settings(self) -> Settings:
        """The configuration."""


def _directory(context: HasDirectory, *, create: bool = False) -> AbstractContextManager[CustomersFile]:
    # Not at the top: `mailsuite --help` need not wait for argon2 and SASLprep.
    from mailsuite.accounts.customers import CustomersFile

    return opened(CustomersFile, context, create=create)


def _term_options(command: Command) -> Command:
    """The options of `add` and `set` alike; `none` takes away what need not be there."""
    for option in reversed(
        (
            click.option("--certificate", metavar="NAME", help="The name in the client certificate it logs in with."),
            click.option("--network", "networks", metavar="NET", multiple=True, help="Where it may log in from."),
            click.option("--contact", metavar="ADDRESS", help="Who is warned before mail expires."),
            click.option("--hold-time", metavar="TIME", help='How long mail is held, such as "21d".'),
            click.option("--warning-time", metavar="TIME", help="How long before mail expires the contact is warned."),
            click.option("--max-messages", metavar="COUNT", help="Most messages held; past it 452."),
            click.option("--max-size", metavar="SIZE", help='Most octets held, such as "2 GiB"; past it 452.'),
            click.option("--pipelining/--no-pipelining", default=None, help="Whether commands are pipelined in turns."),
            click.option("--turn-interval", metavar="TIME", help="Least time between two turns; sooner gets 450."),
            click.option(
                "--shared-turns/--no-shared-turns", default=None, help="Whether turns at once share the mail."
            ),
            click.option("--next-hop", metavar="HOST", help="Its server, where ETRN sends the mail."),
            click.option(
                "--recipients",
                type=click.Choice([rule.value for rule in RecipientRule]),
                help="Which recipients exist: any, those on its list, by a command, or its server is asked.",
            ),
            click.option("--recipients-command", metavar="COMMAND", help="The command and its arguments, quoted."),
        )
    ):
        command = option(command)
    return command


@click.group()
def customer() -> None:
    """Edit customers of on-demand mail relay.

    For them mail is held until they fetch it. A running server sees every change within a second or so.
    """


@customer.command("add", short_help="Add a customer.")
@click.argument("name")
@click.option(
    "--domain",
    "domains",
    metavar="DOMAIN",
    multiple=True,
    required=True,
    help="A domain held for it. May be given several times.",
)
@password_options
@click.option("--no-password", is_flag=True, help="Let it log in by its certificate only.")
@click.option("--no-shared-secret", is_flag=True, help="Do not keep the password itself: no CRAM-MD5.")
@_term_options
@click.pass_obj
def add_customer(
    context: HasDirectory,
    /,
    name: str,
    domains: tuple[str, ...],
    *,
    password_stdin: bool,
    generate: bool,
    no_password: bool,
    no_shared_secret: bool,
    **given: Any,
) -> None:
    """Add the customer NAME, which is also the user name it logs in with.

    A name has letters, digits, and any of . _ - @ in it.

    Without an option the password is asked for, twice. The password itself is kept as well, for CRAM-MD5, which
    RFC 2645 makes mandatory and some clients have nothing else; --no-shared-secret goes without.
    """
    expect_one_at_most(password_stdin=password_stdin, generate=generate, no_password=no_password)
    wanted = Customer(name, domains, **_terms(given))
    with _directory(context, create=True) as directory:
        directory.expect_free(wanted)  # before anybody thinks of a password
        password = None if no_password else new_password(password_stdin=password_stdin, generate=generate)
        added = directory.add_customer(wanted, password, keep=_kinds(shared=not no_shared_secret))
    report(f"added {added.name}, with {', '.join(added.domains)}", password if generate else None)
    _tell_of_recipients(added, wanted=given, listed=0)
    if password is None and added.certificate is None:
        click.echo(f"it cannot log in yet: give it a password with `mailsuite customer passwd {added.name}`", err=True)


@customer.command("set", short_help="Change a customer.")
@click.argument("name")
@click.option(
    "--add-domain", "added", metavar="DOMAIN", multiple=True, help="A further domain. May be given several times."
)
@click.option("--del-domain", "deleted", metavar="DOMAIN", multiple=True, help="One that is held no longer.")
@_term_options
@yes_option
@click.pass_obj
def change_customer(
    context: HasSettings, /, name: str, added: tuple[str, ...], deleted: tuple[str, ...], *, yes: bool, **given: Any
) -> None:
    """Change what is named of the customer NAME; all else stays as it is.

    The word "none" takes away a certificate, a contact, a limit, a next hop or all networks; --network puts those that
    are given in the place of those that were there.

    Mail that is held for a domain which is taken away stays held; if there is any, that is told, and whether it is
    meant is asked.
    """
    changes = _terms(given)
    if not changes and not added and not deleted:
        raise click.UsageError("Name what is to change; `mailsuite customer set --help` shows what can.")
    with _directory(context) as directory:
        kept = directory.customer(name).customer
        if deleted:
            held = _held(context, [key for key in map(domain_key, deleted) if key in kept.domains])
            if held is not None:
                click.echo(held, err=True)
                confirm(f"Take {', '.join(deleted)} away from {kept.name}?", yes=yes)
        changed = directory.change_customer(name, changes, add_domains=added, delete_domains=deleted)
        listed = directory.customer(name).recipients
    changes_made = changes_in_words(kept, changed)
    click.echo(f"changed {changed.name}: {changes_made}" if changes_made else f"{changed.name} is as it was")
    _tell_of_recipients(changed, wanted=given, listed=listed)


@customer.command("passwd")
@click.argument("name")
@password_options
@click.option(
    "--shared-secret/--no-shared-secret",
    default=None,
    help="Keep the password itself, for CRAM-MD5. Default: as before.",
)
@click.pass_obj
def change_password(
    context: HasDirectory, name: str, *, password_stdin: bool, generate: bool, shared_secret: bool | None
) -> None:
    """Give the customer NAME a new password."""
    expect_one_at_most(password_stdin=password_stdin, generate=generate)
    with _directory(context) as directory:
        kept = directory.customer(name)
        password = new_password(password_stdin=password_stdin, generate=generate)
        # One that had no password has it for CRAM-MD5, too, as one that is added.
        before = SecretKind.SHARED in kept.kinds or not kept.has_password
        directory.set_password(name, password, keep=_kinds(shared=before if shared_secret is None else shared_secret))
    report(f"changed the password of {kept.customer.name}", password if generate else None)


@customer.command("del")
@click.argument("name")
@yes_option
@click.pass_obj
def delete_customer(context: HasSettings, name: str, *, yes: bool) -> None:
    """Delete the customer NAME. Mail that is held for its domains stays held; how much that is, is told."""
    with _directory(context) as directory:
        kept = directory.customer(name).customer
        held = _held(context, kept.domains)
        if held is not None:
            click.echo(held, err=True)
        confirm(f"Delete the customer {kept.name}, with {', '.join(kept.domains)}?", yes=yes)
        click.echo(f"deleted {directory.delete_customer(name)}")


@customer.command("list")
@json_option
@click.pass_obj
def list_customers(context: HasSettings, *, as_json: bool) -> None:
    """List the customers, those of the configuration too."""
    tables = context.settings.customer
    rows = [_row_of_table(table) for table in tables]
    if is_there(context.directory_path) or not tables:
        with _directory(context) as directory:
            rows += map(_row_of_kept, directory.customers())
    rows.sort(key=lambda row: row["name"].casefold())
    titles = {
        "name": "Customer",
        "domains": "Domains",
        "logins": "Logs in by",
        "held": "Held for",
        "recipients": "Recipients",
        "source": "Kept in",
    }
    print_rows(rows if as_json else [_readable(row) for row in rows], titles, as_json=as_json)


# ------------------------------------------------------------------------------------------------- recipients


@customer.group()
@click.argument("name")
@click.pass_context
def recipients(context: click.Context, name: str) -> None:
    """Edit the list of recipients that the customer NAME has; @DOMAIN stands for everybody in a domain.

    It counts when the customer has --recipients list.
    """
    context.meta["customer"] = name


@recipients.command("add")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.pass_context
def add_recipients(context: click.Context, addresses: tuple[str, ...]) -> None:
    """Put each ADDRESS on the list."""
    _put(context, addresses, only=False)


@recipients.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--replace", is_flag=True, help="Take everybody off the list who is not in the file.")
@click.pass_context
def import_recipients(context: click.Context, file: str, *, replace: bool) -> None:
    """Put the addresses in FILE on the list, one in each line; "-" is standard input."""
    from mailsuite.accounts.errors import DirectoryError
    from mailsuite.accounts.recipients import addresses_in

    source = "standard input" if file == "-" else file
    try:
        octets = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        addresses = list(addresses_in(octets.decode("utf-8-sig").splitlines(), source))
    except DirectoryError as error:
        raise click.ClickException(str(error)) from None
    except (UnicodeDecodeError, OSError) as error:
        raise click.ClickException(f"{source} cannot be read ({error}); name a text file in UTF-8") from None
    _put(context, addresses, only=replace)


@recipients.command("del")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.pass_context
def delete_recipients(context: click.Context, addresses: tuple[str, ...]) -> None:
    """Take each ADDRESS off the list."""
    with _directory(context.obj) as directory:
        directory.delete_recipients(context.meta["customer"], addresses)
        kept = directory.customer(context.meta["customer"])
    click.echo(f"deleted {', '.join(addresses)}")
    _tell_of_empty_list(kept.customer, kept.recipients)


@recipients.command("list")
@json_option
@click.pass_context
def list_recipients(context: click.Context, *, as_json: bool) -> None:
    """List them."""
    with _directory(context.obj) as directory:
        rows = [{"recipient": one} for one in directory.recipients(context.meta["customer"])]
    print_rows(rows, {"recipient": "Recipient"}, as_json=as_json)


def _put(context: click.Context, addresses: Sequence[str], *, only: bool) -> None:
    with _directory(context.obj) as directory:
        added = directory.add_recipients(context.meta["customer"], addresses, only=only)
        kept = directory.customer(context.meta["customer"])
    name, rule = kept.customer.name, kept.customer.recipients
    click.echo(f"added {added}; the list of {name} has {kept.recipients} now")
    if rule is not RecipientRule.LIST:
        click.echo(
            f"the list does not count yet: recipients are {rule.value!r}; `mailsuite customer set {name} "
            "--recipients list` has it count",
            err=True,
        )


# ------------------------------------------------------------------------------------------------ underneath


def _terms(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given as fields of a `Customer`, read as the configuration reads them."""
    table = {key: value for key, value in given.items() if value not in (None, ())}
    if table.get("networks") == (_NONE,):
        table["networks"] = ()
    table |= {key: none for key, none in _CLEARED.items() if table.get(key) == _NONE}
    command = table.get("recipients_command")
    if command is not None:
        table["recipients_command"] = _words(command)
        table.setdefault("recipients", RecipientRule.COMMAND.value)
    try:
        # Name and domains are the directory's business.
        value = customer_value(Table(name="-", domains=("example.org",), **table))
    except ValidationError as error:
        fault = error.errors()[0]
        option = str(fault["loc"][0]).removesuffix("s" if fault["loc"][0] == "networks" else "")
        reason = fault["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--{option.replace('_', '-')}: {reason[:1].lower()}{reason[1:]}.") from None
    fields = {"max_octets" if key == "max_size" else key for key in table}
    return {field: getattr(value, field) for field in fields}


def _tell_of_recipients(customer: Customer, *, wanted: Mapping[str, Any], listed: int) -> None:
    """Say what an option about recipients means that may not be expected."""
    if wanted["recipients"] is not None:
        _tell_of_empty_list(customer, listed)
    if wanted["recipients_command"] is None:
        return
    from mailsuite.delivery.on_demand.programs import fault_of

    if wanted["recipients"] is None:
        click.echo("recipients are those for which the command ends with 0 now, as by --recipients command", err=True)
    fault = fault_of(customer.recipients_command)
    if fault is not None:
        click.echo(f"{fault}: until it can be run, mail for {customer.name} is put off (450)", err=True)


def _tell_of_empty_list(customer: Customer, listed: int) -> None:
    if customer.recipients is RecipientRule.LIST and not listed:
        click.echo(
            f"the list is empty: all mail for {customer.name} but the postmaster's is refused until `mailsuite "
            f"customer recipients {customer.name} add ADDRESS`",
            err=True,
        )


def _held(context: HasSettings, domains: Collection[str]) -> str | None:
    """What is held for domains that are about to be held for nobody, and what becomes of it; None for nothing."""
    from mailsuite.interfaces import SpoolError

    fate = (
        f"goes back to its senders {HOLD_TIME / 86400:g} days after it came, unless the domain is given to a customer "
        "before."
    )
    try:
        spool = open_spool(context.settings)
        held = [] if spool is None else [one for one in spool.held() if one.domain in domains and one.messages]
    except SpoolError as error:
        return f"How much is held cannot be told ({error}); what is held stays held, and {fate}"
    if not held:
        return None
    count = sum(one.messages for one in held)
    what = "1 message is" if count == 1 else f"{count} messages are"
    size = in_units(sum(one.octets for one in held))
    return f"{what} held for {', '.join(one.domain for one in held)} ({size}): that stays held, and {fate}"


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise click.UsageError(f"--recipients-command: {error}; quote it as a shell would.") from None
    if not words:
        raise click.UsageError("--recipients-command: it is empty; name a command.")
    return words


def _kinds(*, shared: bool) -> list[SecretKind]:
    return [SecretKind.SCRAM_SHA_256, *([SecretKind.SHARED] if shared else [])]


def _row_of_table(table: Table) -> dict[str, Any]:
    has_password = table.password is not None or table.password_file is not None
    kinds = list(SecretKind) if has_password else []
    return _row(customer_value(table), "configuration", kinds, has_password=has_password) | {"listed": None}


def _row_of_kept(kept: KeptCustomer) -> dict[str, Any]:
    return _row(kept.customer, "directory", kept.kinds, has_password=kept.has_password) | {"listed": kept.recipients}


def _row(one: Customer, source: str, kinds: Collection[SecretKind], *, has_password: bool) -> dict[str, Any]:
    return {
        "name": one.name,
        "source": source,
        "domains": list(one.domains),
        "has_password": has_password,
        "secrets": sorted(MECHANISMS[kind] for kind in kinds),
        "certificate": one.certificate,
        "networks": list(map(str, one.networks)),
        "contact": None if one.contact is None else str(one.contact),
        "hold_time": one.hold_time,
        "warning_time": one.warning_time,
        "max_messages": one.max_messages,
        "max_size": one.max_octets,
        "pipelining": one.pipelining,
        "turn_interval": one.turn_interval,
        "shared_turns": one.shared_turns,
        "next_hop": one.next_hop,
        "recipients": one.recipients.value,
        "recipients_command": list(one.recipients_command),
    }


def _readable(row: Mapping[str, Any]) -> dict[str, object]:
    """The columns of the table."""
    logins = ["PLAIN", *row["secrets"]] if row["has_password"] else []
    if row["certificate"] is not None:
        logins.append(f"certificate {row['certificate']}")
    listed = row["recipients"] == RecipientRule.LIST and row["listed"] is not None
    return {
        "name": row["name"],
        "domains": row["domains"],
        "logins": logins or "nothing",
        "held": in_time(row["hold_time"]),
        "recipients": f"list of {row['listed']}" if listed else row["recipients"],
        "source": row["source"],
    }
