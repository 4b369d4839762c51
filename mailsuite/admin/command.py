"""The `mailsuite` command: one root, a group for each concern."""

from __future__ import annotations

import errno
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailsuite import __version__
from mailsuite.admin.accounts import alias, domain, user
from mailsuite.admin.customer_show import show_customer
from mailsuite.admin.customers import customer
from mailsuite.admin.demo import demo
from mailsuite.admin.doctor.command import doctor
from mailsuite.admin.etrn import etrn
from mailsuite.admin.pull import network_up, pull
from mailsuite.admin.queue.command import queue
from mailsuite.admin.route import route
from mailsuite.admin.send.command import send
from mailsuite.admin.trace import trace
from mailsuite.config import Settings, SettingsError
from mailsuite.config.customers import customer_value

if TYPE_CHECKING:
    from mailsuite.accounts.configured import Configured

_SYSTEM_FILE = Path("/etc/mailsuite/mailsuite.toml")


@dataclass
class Context:
    """What every subcommand may ask: the settings, read when they are first needed."""

    config: Path | None
    _settings: Settings | None = None

    @property
    def file(self) -> Path | None:
        """The configuration that was named, or the system's; None where there is neither."""
        return self.config or (_SYSTEM_FILE if _SYSTEM_FILE.exists() else None)

    @property
    def settings(self) -> Settings:
        """The settings of the file that was named, of the system's file, or the defaults."""
        if self._settings is None:
            path = self.file
            try:
                self._settings = Settings() if path is None else Settings.load(path.absolute())
            except SettingsError as error:
                wrong = click.ClickException(str(error))
                wrong.exit_code = os.EX_CONFIG  # type: ignore[misc] # click reads it of the instance
                raise wrong from None
        return self._settings

    @property
    def directory_path(self) -> Path:
        """The SQLite file of domains, accounts and aliases."""
        return self.settings.path(self.settings.accounts.file)

    @property
    def configured(self) -> Configured:
        """The customers of the configuration, and the domain of bare login names."""
        from mailsuite.accounts.configured import Configured

        customers = tuple(map(customer_value, self.settings.customer))
        return Configured(customers, self.settings.accounts.default_domain)

    @property
    def subaddress_delimiter(self) -> str:
        """What begins a subaddress; empty where there are none."""
        return self.settings.accounts.subaddress_delimiter


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailsuite", message="%(prog)s %(version)s")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="MAILSUITE_CONFIG",
    help=f"The configuration. Default: $MAILSUITE_CONFIG, {_SYSTEM_FILE}, or the built-in defaults.",
)
@click.pass_context
def root(context: click.Context, config: Path | None) -> None:
    """Look after a mailsuite server. The server itself is started by "twistd mailsuite --config FILE"."""
    context.obj = Context(config)


@root.command(short_help="Say what is wrong with a configuration.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def check(context: Context, file: Path | None) -> None:
    """Say what is wrong with the configuration FILE: a sentence for each fault, with key, reason and cure.

    Without FILE it is the one of --config. Certificates, password files and files of recipients are looked at as well,
    and what is kept by commands, so run it as a user who may read them. What is possible but hardly meant is noted.
    """
    from mailsuite.admin.notes import notes
    from mailsuite.service import StartError, preflight
    from mailsuite.service.doubts import doubts, local_domains

    file = file or context.file
    if file is None:
        raise click.UsageError("there is no configuration to check: name a FILE")
    try:
        settings = Settings.load(file.absolute())
        preflight(settings)
        local = local_domains(settings)
        said = [*notes(settings, local, time.time()), *doubts(settings, local)]
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    except StartError as error:
        raise click.ClickException(f"{file}: {error}") from None
    click.echo(f"{file}: nothing is wrong with it.")
    for note in said:
        click.echo(f"Note: {note}.", err=True)


for _command in (demo, domain, user, alias, customer, queue, trace, route, send, pull, network_up, etrn, doctor):
    root.add_command(_command)
customer.add_command(show_customer)


def main() -> None:
    """Run the command; the console script's entry."""
    try:
        try:
            root(prog_name="mailsuite")
        finally:
            sys.stdout.flush()  # what was printed is still on its way
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_OUTPUT:
            raise
        # The interpreter would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            click.echo(f"Error: the output cannot be written: {error.strerror or error}", err=True)
        sys.exit(os.EX_IOERR)
    sys.exit(0)


# What a write fails by, where it is not a file that was opened by name.
_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)
