"""`mailsuite demo`: a server to look at, on the loopback, with one account, and how to send to it."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import socket
import sys
from contextlib import suppress
from pathlib import Path

import click

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.config import Settings, SettingsError
from mailsuite.mail.session import SecretKind

_DOMAIN = "demo.example"
_USER = f"alice@{_DOMAIN}"

_LOOPBACK_PORT = re.compile(r"tcp:(\d+):interface=127\.0\.0\.1")

_CONFIGURATION = f"""\
# Written by `mailsuite demo`; delete it to have it written anew. What is not said here is the default.
hostname = "mail.{_DOMAIN}"
data_directory = "."

[[listen]]
endpoint = "tcp:2525:interface=127.0.0.1"

[[listen]]
endpoint = "tcp:2587:interface=127.0.0.1"
service = "submission"

[[listen]]
endpoint = "tcp:2465:interface=127.0.0.1"
service = "submission"
tls = "implicit"

[accounts]
postmaster = "{_USER}"
"""

# To be pasted, so nothing here depends on how far it is indented.
_WELCOME = """\

  A mail server starts on the loopback. It has one account:

      user      {user}
      password  {password}

  Send a first message (submission, port {port}, STARTTLS and AUTH), from another terminal:

      swaks --server 127.0.0.1:{port} --tls --auth-user {user} --auth-password {password} \\
            --from {user} --to {user} --header 'Subject: the first mail'

  or, without swaks:

      python3 -c "import smtplib; s = smtplib.SMTP('127.0.0.1', {port}); s.starttls(); \\
            s.login('{user}', '{password}'); \\
            s.sendmail('{user}', '{user}', 'Subject: the first mail\\n\\nIt works.')"

  It lands in

      {maildir}/new/

  What became of it, and what is queued:

      {command} -c {configuration} trace {user}
      {command} -c {configuration} queue list

  Settings, queue and mail lie in {directory}. Stop the server with Ctrl-C.

"""


@click.command(short_help="Start a server to try out, on the loopback.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("mailsuite-demo"),
    show_default=True,
    help="Where settings, queue and mail of the demonstration lie.",
)
def demo(directory: Path) -> None:
    """Start a server to try out: on the loopback, with a self-signed certificate and one account.

    It says how to send a first message, and where it lands. The account gets a new password each time.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    configuration = directory / "mailsuite.toml"
    if not configuration.exists():
        configuration.write_text(_CONFIGURATION, encoding="utf-8")
    try:
        settings = Settings.load(configuration)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    port = _free_ports(settings)
    password = secrets.token_hex(8)  # nothing in it that a shell or an option would take for its own
    _make_account(settings, password)
    maildirs = settings.path(Path(settings.local.options.get("directory", "maildirs")))
    click.echo(
        _WELCOME.format(
            user=_USER,
            password=password,
            port=port,
            maildir=maildirs / _DOMAIN / "alice",
            directory=directory,
            command=_from_here(Path(sys.argv[0])),
            configuration=_from_here(configuration),
        )
    )
    sys.stdout.flush()
    run = "from twisted.scripts.twistd import run; run()"
    arguments = ["--nodaemon", "--pidfile=", "mailsuite", "--config", str(configuration)]
    os.execv(sys.executable, [sys.executable, "-c", run, *arguments])  # noqa: S606 - our own interpreter


def _from_here(path: Path) -> str:
    """A path as it is typed where we are, ready for a shell."""
    with suppress(ValueError):
        path = path.absolute().relative_to(Path.cwd())
    return shlex.quote(str(path))


def _free_ports(settings: Settings) -> int:
    """See that nobody has our ports, before a password is changed that a running demonstration has shown.

    Returns the port for submission with STARTTLS.
    """
    submission = 0
    for listen in settings.listen:
        match = _LOOPBACK_PORT.fullmatch(listen.endpoint)
        if match is None:
            continue
        port = int(match[1])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise click.ClickException(
                    f"port {port} cannot be had ({error.strerror}): stop the program that has it (another "
                    "demonstration?), or name other ports in the [[listen]] tables of the configuration."
                ) from None
        if listen.service == "submission" and listen.tls == "starttls":
            submission = port
    if not submission:
        raise click.ClickException("the configuration has no submission listener on 127.0.0.1 to show; add one.")
    return submission


def _make_account(settings: Settings, password: str) -> None:
    """The one account, with a password that is new each time."""
    path = settings.path(settings.accounts.file)
    with DirectoryFile(path, create=True) as accounts:
        if _DOMAIN not in {domain.name for domain in accounts.domains()}:
            accounts.add_domain(_DOMAIN)
        if _USER in {user.address for user in accounts.users()}:
            accounts.set_password(_USER, password)
        else:
            accounts.add_user(_USER, password, keep=(SecretKind.SHARED, SecretKind.SCRAM_SHA_256))
