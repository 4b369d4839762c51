"""What commands that edit the directory have in common: opening it, asking for passwords, asking whether that is meant.

Passwords are typed, piped or generated, never given as an argument, where every process list would show them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from getpass import GetPassWarning
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from mailsuite.mail.session import SecretKind

if TYPE_CHECKING:
    from mailsuite.accounts.configured import Configured
    from mailsuite.accounts.editing import EditedFile

Command = TypeVar("Command", bound=Callable[..., Any])
Edited = TypeVar("Edited", bound="EditedFile")

_MAX_INPUT = 65_536  # octets; more than the longest password, so that one that is too long is told so

MECHANISMS = {SecretKind.SHARED: "CRAM-MD5", SecretKind.SCRAM_SHA_256: "SCRAM-SHA-256"}
"""What each secret that may be kept is for."""


class HasDirectory(Protocol):
    """What these commands need of the context's object."""

    @property
    def directory_path(self) -> Path:
        """The file of the directory of accounts."""

    @property
    def configured(self) -> Configured:
        """What the configuration says of customers, and of names to log in by."""

    @property
    def subaddress_delimiter(self) -> str:
        """What begins a subaddress; empty where there are none."""


@contextmanager
def opened(kind: type[Edited], context: HasDirectory, *, create: bool = False) -> Iterator[Edited]:
    """The directory, open for editing; its errors become the command's."""
    # Not at the top: `mailsuite --help` need not wait for argon2 and SASLprep.
    from mailsuite.accounts.errors import DirectoryError

    try:
        with kind(context.directory_path, create=create, configured=context.configured) as directory:
            yield directory
    except DirectoryError as error:
        raise click.ClickException(str(error)) from None


def is_there(path: Path) -> bool:
    """Whether a file is there; who may not see that is told so."""
    try:
        return path.exists()
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be read ({error.strerror}); run this as the user who serves, or as root"
        ) from None


def yes_option(command: Command) -> Command:
    """Give a command the flag `--yes`."""
    return click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")(command)


def password_options(command: Command) -> Command:
    """Give a command the flags of those who do not want to be asked for a password."""
    for option in (
        click.option("--generate", is_flag=True, help="Make a random password and print it."),
        click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line."),
    ):
        command = option(command)
    return command


def expect_one_at_most(**flags: bool) -> None:
    """Refuse flags that exclude one another."""
    given = [f"--{name.replace('_', '-')}" for name, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude one another.")


def new_password(*, password_stdin: bool, generate: bool) -> str:
    """A password: made, read from standard input, or asked for, twice."""
    from mailsuite.accounts.passwords import generated

    if generate:
        return generated()
    if not password_stdin:
        return _asked_for()
    line, newline, rest = sys.stdin.buffer.read(_MAX_INPUT).partition(b"\n")
    if rest:
        raise click.ClickException("standard input has more than one line; the password is one line")
    try:
        return line.removesuffix(b"\r" if newline else b"").decode("utf-8")
    except UnicodeDecodeError:
        raise click.ClickException("the password on standard input is not UTF-8; type another") from None


def _asked_for() -> str:
    # Without a terminal getpass warns, and would show what is typed.
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetPassWarning)
        try:
            return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
        except GetPassWarning:
            raise click.ClickException(
                "there is no terminal to ask for the password at; say --password-stdin, or --generate"
            ) from None


def report(sentence: str, password: str | None) -> None:
    """Say what was done; a password that was made for it stands alone on stdout, for scripts."""
    click.echo(sentence, err=password is not None)
    if password is not None:
        click.echo(password)


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether that is meant, unless it was said already."""
    if not yes:
        click.confirm(question, abort=True)
