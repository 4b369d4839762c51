"""The `mailsuite` command, accounts: the groups `user`, `alias` and `domain`, which edit the directory.

They need of the root group only a context object, `HasDirectory`. Results go to stdout; what went wrong
goes to stderr in one sentence, with status 1, or 2 where the command line itself is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from mailsuite.admin.asking import (
    MECHANISMS,
    HasDirectory,
    confirm,
    expect_one_at_most,
    new_password,
    opened,
    password_options,
    report,
    yes_option,
)
from mailsuite.admin.output import json_option, print_rows
from mailsuite.mail.session import SecretKind

if TYPE_CHECKING:
    from mailsuite.accounts.directory import DirectoryFile
    from mailsuite.accounts.records import User


def _directory(context: HasDirectory, *, create: bool = False) -> AbstractContextManager[DirectoryFile]:
    # Not at the top: `mailsuite --help` need not wait for argon2 and SASLprep.
    from mailsuite.accounts.directory import DirectoryFile

    return opened(DirectoryFile, context, create=create)


# ------------------------------------------------------------------------------------------------------ user


@click.group()
def user() -> None:
    """Edit accounts: who has a mailbox and who may send mail.

    A running server sees every change within a second or so.
    """


@user.command("add", short_help="Add an account.")
@click.argument("address")
@password_options
@click.option("--no-password", is_flag=True, help="Add a mailbox that nobody can log in to.")
@click.option("--cram", is_flag=True, help="Keep the password itself too, for CRAM-MD5 (fetchmail's ODMR).")
@click.option("--scram", is_flag=True, help="Keep what SCRAM-SHA-256 needs too.")
@click.option(
    "--address",
    "further",
    metavar="ADDRESS",
    multiple=True,
    help="A further address of the account; @DOMAIN takes all that nobody else has there. May be given several times.",
)
@click.pass_obj
def add_user(
    context: HasDirectory,
    address: str,
    further: tuple[str, ...],
    *,
    password_stdin: bool,
    generate: bool,
    no_password: bool,
    cram: bool,
    scram: bool,
) -> None:
    """Add an account with the mailbox ADDRESS, such as alice@example.org.

    Its domain must be local (see "mailsuite domain"). Without an option the password is asked for, twice. Its
    argon2id hash is kept, which serves PLAIN and LOGIN, the mechanisms of common mail clients under TLS; no more
    than that is kept unless --cram or --scram asks for it.
    """
    if no_password and (cram or scram):
        raise click.UsageError("--cram and --scram keep a password's secret; they cannot go with --no-password.")
    expect_one_at_most(password_stdin=password_stdin, generate=generate, no_password=no_password)
    with _directory(context) as directory:
        directory.expect_free(address, further)  # before anybody thinks of a password
        password = None if no_password else new_password(password_stdin=password_stdin, generate=generate)
        added = directory.add_user(address, password, keep=_kinds(cram=cram, scram=scram), further=further)
    report(f"added {added}", password if generate else None)


@user.command("passwd")
@click.argument("address")
@password_options
@click.option("--cram/--no-cram", default=None, help="Keep the password itself too, or no longer. Default: as before.")
@click.option(
    "--scram/--no-scram", default=None, help="Keep what SCRAM-SHA-256 needs, or no longer. Default: as before."
)
@click.pass_obj
def change_password(
    context: HasDirectory,
    address: str,
    *,
    password_stdin: bool,
    generate: bool,
    cram: bool | None,
    scram: bool | None,
) -> None:
    """Give the account ADDRESS a new password."""
    expect_one_at_most(password_stdin=password_stdin, generate=generate)
    with _directory(context) as directory:
        kinds = directory.user(address).kinds
        password = new_password(password_stdin=password_stdin, generate=generate)
        keep = _kinds(
            cram=SecretKind.SHARED in kinds if cram is None else cram,
            scram=SecretKind.SCRAM_SHA_256 in kinds if scram is None else scram,
        )
        changed = directory.set_password(address, password, keep=keep)
    report(f"changed the password of {changed.address}", password if generate else None)


@user.command("address")
@click.argument("address")
@click.option("--add", "added", metavar="ADDRESS", multiple=True, help="A further address. May be given several times.")
@click.option(
    "--del", "deleted", metavar="ADDRESS", multiple=True, help="One to take away. May be given several times."
)
@click.pass_obj
def change_addresses(context: HasDirectory, address: str, added: tuple[str, ...], deleted: tuple[str, ...]) -> None:
    """Give the account ADDRESS further addresses, or take some away.

    It receives mail for each of them and may send as each. @DOMAIN takes all that nobody else has there.
    """
    if not added and not deleted:
        raise click.UsageError("Name an address with --add or --del.")
    with _directory(context) as directory:
        account = directory.change_addresses(address, add=added, delete=deleted)
    click.echo(f"{account.address} has now: {', '.join(account.further) or 'no further address'}")


@user.command("del")
@click.argument("address")
@yes_option
@click.pass_obj
def delete_user(context: HasDirectory, address: str, *, yes: bool) -> None:
    """Delete the account ADDRESS. The mail in its mailbox stays where it is."""
    with _directory(context) as directory:
        account = directory.user(address)
        confirm(f"Delete the account {account.address}?", yes=yes)
        dangling = directory.delete_user(address)
    click.echo(f"deleted {account.address}")
    for alias_address in dangling:
        click.echo(f"the alias {alias_address} still leads to it", err=True)


@user.command("disable")
@click.argument("address")
@click.pass_obj
def disable_user(context: HasDirectory, address: str) -> None:
    """Let nobody log in to the account ADDRESS. It goes on receiving mail."""
    with _directory(context) as directory:
        click.echo(f"disabled {directory.set_enabled(address, enabled=False)}")


@user.command("enable")
@click.argument("address")
@click.pass_obj
def enable_user(context: HasDirectory, address: str) -> None:
    """Let the account ADDRESS log in again."""
    with _directory(context) as directory:
        click.echo(f"enabled {directory.set_enabled(address, enabled=True)}")


@user.command("list")
@click.argument("domain", required=False)
@json_option
@click.pass_obj
def list_users(context: HasDirectory, domain: str | None, *, as_json: bool) -> None:
    """List the accounts, all or those with an address in DOMAIN."""
    with _directory(context) as directory:
        users = directory.users(domain)
    titles = {
        "address": "Account",
        "addresses": "Further addresses",
        "enabled": "Enabled",
        "has_password": "Password",
        "secrets": "Kept for",
    }
    print_rows([_user_row(one) for one in users], titles, as_json=as_json)


# ----------------------------------------------------------------------------------------------------- alias


@click.group()
def alias() -> None:
    """Edit aliases: addresses that lead to others.

    Those may be here or elsewhere.
    """


@alias.command("add")
@click.argument("address")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.pass_obj
def add_alias(context: HasDirectory, address: str, targets: tuple[str, ...]) -> None:
    """Let mail for ADDRESS go to each TARGET, an address here or elsewhere.

    @DOMAIN for ADDRESS takes the mail of all addresses in that domain that are neither an account's nor an alias.
    One that is an alias already gets further targets.
    """
    with _directory(context) as directory:
        added = directory.add_alias(address, targets)
        nobodys = directory.nobodys(added.targets, context.subaddress_delimiter)
    click.echo(f"{added.address} leads to {', '.join(map(str, added.targets))}")
    if nobodys:
        addresses = ", ".join(map(str, nobodys))
        click.echo(f"nobody has {addresses}: nothing arrives there until somebody does", err=True)


@alias.command("del", short_help="Delete an alias, or some of its targets.")
@click.argument("address")
@click.argument("targets", metavar="[TARGET...]", nargs=-1)
@yes_option
@click.pass_obj
def delete_alias(context: HasDirectory, address: str, targets: tuple[str, ...], *, yes: bool) -> None:
    """Delete the alias ADDRESS, or only those of its targets that are named."""
    with _directory(context) as directory:
        what = f"{', '.join(targets)} from the alias {address}" if targets else f"the alias {address}"
        confirm(f"Delete {what}?", yes=yes)
        directory.delete_alias(address, targets)
    click.echo(f"deleted {what}")


@alias.command("list")
@click.argument("domain", required=False)
@json_option
@click.pass_obj
def list_aliases(context: HasDirectory, domain: str | None, *, as_json: bool) -> None:
    """List the aliases, all or those of DOMAIN."""
    with _directory(context) as directory:
        rows = [{"address": one.address, "targets": list(map(str, one.targets))} for one in directory.aliases(domain)]
    print_rows(rows, {"address": "Alias", "targets": "Leads to"}, as_json=as_json)


# ---------------------------------------------------------------------------------------------------- domain


@click.group()
def domain() -> None:
    """Edit local domains: those whose mail ends here."""


@domain.command("add")
@click.argument("domain")
@click.pass_obj
def add_domain(context: HasDirectory, domain: str) -> None:
    """Make DOMAIN local. The first one makes the directory of accounts."""
    with _directory(context, create=True) as directory:
        click.echo(f"added {directory.add_domain(domain)}")


@domain.command("del")
@click.argument("domain")
@yes_option
@click.pass_obj
def delete_domain(context: HasDirectory, domain: str, *, yes: bool) -> None:
    """Let DOMAIN be local no longer. It must have no accounts and no aliases left."""
    with _directory(context) as directory:
        confirm(f"Delete the domain {domain}?", yes=yes)
        click.echo(f"deleted {directory.delete_domain(domain)}")


@domain.command("list")
@json_option
@click.pass_obj
def list_domains(context: HasDirectory, *, as_json: bool) -> None:
    """List the local domains."""
    with _directory(context) as directory:
        rows = [{"domain": one.name, "users": one.users, "aliases": one.aliases} for one in directory.domains()]
    print_rows(rows, {"domain": "Domain", "users": "Accounts", "aliases": "Aliases"}, as_json=as_json)


# ------------------------------------------------------------------------------------------------ underneath


def _kinds(*, cram: bool, scram: bool) -> Sequence[SecretKind]:
    wanted = {SecretKind.SHARED: cram, SecretKind.SCRAM_SHA_256: scram}
    return [kind for kind, is_wanted in wanted.items() if is_wanted]


def _user_row(account: User) -> dict[str, object]:
    return {
        "address": account.address,
        "addresses": list(account.further),
        "enabled": account.enabled,
        "has_password": account.has_password,
        "secrets": sorted(MECHANISMS[kind] for kind in account.kinds),
    }
