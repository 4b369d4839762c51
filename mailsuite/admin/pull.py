"""`mailsuite pull` and `mailsuite network-up`: pulls by hand, through the running server if there is one.

Where there is none, the command opens the queue itself, pulls, and gives what has come some time to be delivered; what
is not delivered by then stays in the queue for the server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import click

from mailsuite.admin.output import plain
from mailsuite.config import Settings

if TYPE_CHECKING:
    from mailsuite.service import MailService
    from mailsuite.session.pulling import PullEnd, PullProgress

_DELIVERY_TIME: Final = 60.0  # seconds
_LOOK_EVERY: Final = 0.2
_START_TIME: Final = 6.0  # seconds between a server that has the queue and one that can be talked to
_ASK_EVERY: Final = 0.5


class HasSettings(Protocol):
    """What is needed of the context's object."""

    @property
    def settings(self) -> Settings:
        """The settings."""


@click.command(short_help="Pull mail from providers, now.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "all_of_them", is_flag=True, help="All pulls of the configuration; so it is without a NAME.")
@click.option(
    "--now", is_flag=True, expose_value=False, help="At once, whatever the schedule says: so it always is by command."
)
@click.option("--dry-run", is_flag=True, help="Connect and log in, say what would be asked for, and leave.")
@click.option("--network-up", "network_up_", is_flag=True, help="As `mailsuite network-up`.")
@click.pass_context
def pull(
    context: click.Context, names: tuple[str, ...], *, all_of_them: bool, dry_run: bool, network_up_: bool
) -> None:
    """Pull the mail that providers hold for us, as the [[pull]] tables say, and tell what came of it.

    A NAME is that of a [[pull]]; without one all are pulled. The exit status is 0 where all went well, whether there
    was mail or not; 75 where it may succeed later; 69 where a provider does not serve us, or we have refused all that
    came; 77 where it refuses our login; 78 where the configuration is wrong.
    """
    from mailsuite.admin.running import Failed

    if names and all_of_them:
        raise click.UsageError("name pulls, or say --all.")
    if network_up_:
        if names or dry_run:
            raise click.UsageError("--network-up is for all pulls, and no dry run.")
        context.invoke(network_up)
        return
    settings = _settings_with_pulls(context.obj)
    known = [table.name for table in settings.pull]
    for name in names:
        if name not in known:
            raise Failed(f"there is no pull {name!r}; those in the configuration: {', '.join(known)}", os.EX_CONFIG)
    _pull(settings, names or tuple(known), dry_run=dry_run)


@click.command("network-up", short_help="Tell the server that the network is there.")
@click.pass_obj
def network_up(context: HasSettings) -> None:
    """Tell the running server that the network is there: it begins all pulls now.

    For the hooks of NetworkManager, ppp or systemd-networkd: it does not wait for them. The exit status is 69 where no
    server is running, and 78 where the configuration is wrong.
    """
    from mailsuite.admin.control import ControlClient, ControlError, connect
    from mailsuite.admin.running import Failed, run

    settings = context.settings

    async def tell(reactor: Any) -> list[str]:  # noqa: ANN401 - IReactorUNIX
        client = ControlClient()
        await connect(reactor, settings.data_directory, client)
        return await client.network_up()

    try:
        names = run(tell)
    except ControlError as error:
        raise Failed(str(error), os.EX_UNAVAILABLE) from None
    click.echo(f"pulls begun: {', '.join(names) or 'none, the configuration has none'}")


def _settings_with_pulls(context: HasSettings) -> Settings:
    from mailsuite.admin.running import Failed

    settings = context.settings
    if not settings.pull:
        raise Failed("the configuration has no pulls; add a [[pull]] table for each provider", os.EX_CONFIG)
    return settings


def _pull(settings: Settings, names: Sequence[str], *, dry_run: bool) -> None:
    """Pull, tell, and end with the status.

    A server that is starting, or stopping, has the queue and cannot be talked to: it is given some seconds.
    """
    from twisted.internet.task import deferLater

    from mailsuite.admin.control import ControlError
    from mailsuite.admin.running import Failed, leave_with, run
    from mailsuite.delivery.puller import UnknownPull
    from mailsuite.interfaces import SpoolInUse
    from mailsuite.service import StartError

    with Display() as display:

        async def work(reactor: Any) -> None:  # noqa: ANN401 - the reactor has many interfaces at once
            until = reactor.seconds() + _START_TIME
            while not await _pull_there(reactor, settings, names, display, dry_run=dry_run):
                try:
                    await _pull_here(reactor, settings, names, display, dry_run=dry_run)
                except SpoolInUse as error:
                    if reactor.seconds() >= until:
                        raise Failed(str(error), os.EX_UNAVAILABLE) from None
                    await deferLater(reactor, _ASK_EVERY)
                else:
                    break

        try:
            run(work)
        except UnknownPull as error:
            raise Failed(str(error), os.EX_CONFIG) from None
        except StartError as error:
            raise Failed(str(error), os.EX_CONFIG) from None
        except ControlError as error:
            raise Failed(str(error), os.EX_UNAVAILABLE) from None
    leave_with(end.result for end in display.ends.values())


async def _pull_there(
    reactor: Any,  # noqa: ANN401 - IReactorUNIX
    settings: Settings,
    names: Sequence[str],
    display: Display,
    *,
    dry_run: bool,
) -> bool:
    """Let the running server do it; False where there is none."""
    from mailsuite.admin.control import ControlClient, NotRunning, connect

    client = ControlClient(progress=display.progress, ended=display.ended)
    try:
        await connect(reactor, settings.data_directory, client)
    except NotRunning:
        return False
    await client.pull(names, dry_run=dry_run)
    return True


async def _pull_here(
    reactor: Any,  # noqa: ANN401 - as in `_pull`
    settings: Settings,
    names: Sequence[str],
    display: Display,
    *,
    dry_run: bool,
) -> None:
    """Be the server, for a while and without its doors. Raises `SpoolInUse` where another is, and `StartError`."""
    from mailsuite.admin.running import Failed
    from mailsuite.interfaces import SpoolInUse
    from mailsuite.service import MailService, StartError, preflight

    expect_owner(settings)
    preflight(settings)
    failures: list[Exception] = []
    server = MailService(settings.model_copy(update={"listen": ()}), reactor, None, failures.append, scheduled=False)
    server.startService()
    try:
        await server.ready()
        if failures:
            if isinstance(failures[0], SpoolInUse | StartError):
                raise failures[0]
            raise Failed(str(failures[0]), os.EX_UNAVAILABLE)
        for name in names:
            tell = _by_name(display.progress, name)
            display.ended(name, await server.puller.pull(name, dry_run=dry_run, progress=tell))
        await _deliver(reactor, server)
    finally:
        await server.stopService()


def _by_name(progress: Callable[[str, PullProgress], object], name: str) -> Callable[[PullProgress], object]:
    return lambda so_far: progress(name, so_far)


async def _deliver(reactor: Any, server: MailService) -> None:  # noqa: ANN401 - IReactorTime
    """Give what has come some time to reach its mailboxes."""
    from twisted.internet.task import deferLater

    until = reactor.seconds() + _DELIVERY_TIME
    await deferLater(reactor, 0)
    while not server.scheduler.is_at_rest and reactor.seconds() < until:
        await deferLater(reactor, _LOOK_EVERY)


def expect_owner(settings: Settings) -> None:
    """Refuse to be root over a queue that is somebody else's: what root makes there the server could not touch."""
    from mailsuite.admin.running import Failed

    directory = settings.data_directory
    if os.geteuid() == 0 and directory.exists() and directory.stat().st_uid != 0:
        raise Failed(
            f"no server is running, and root would leave files in {directory} that it could not use; run this as the "
            "user who serves",
            os.EX_NOPERM,
        )


# ----------------------------------------------------------------------------------------------- showing


class Display:
    """Shows on a terminal how pulls go on; prints a line for each that has ended: failures to stderr."""

    def __init__(self) -> None:
        self._status: Any = None
        self._began: dict[str, float] = {}
        self.ends: dict[str, PullEnd] = {}

    def __enter__(self) -> Self:
        import sys

        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def progress(self, name: str, progress: PullProgress) -> None:
        """A pull is so far."""
        if self._status is not None:
            import time

            from rich.text import Text

            began = self._began.setdefault(name, time.monotonic())
            self._status.update(Text(f"{name}: {in_words(progress, time.monotonic() - began)}"))
            self._status.start()

    def ended(self, name: str, end: PullEnd) -> None:
        """A pull has ended."""
        from mailsuite.delivery.puller import describe

        self.ends[name] = end
        if self._status is not None:
            self._status.stop()  # the next one that has something to tell begins it again
        click.echo(plain(f"{name}: {describe(end)}"), err=not end.result.is_success)


def in_words(progress: PullProgress, seconds: float) -> str:
    """How far a pull is after so many seconds, as people read it."""
    from rich.filesize import decimal

    if not (progress.messages or progress.octets):
        return str(progress.stage)
    messages = "1 message" if progress.messages == 1 else f"{progress.messages} messages"
    rate = decimal(int(progress.octets / max(seconds, 0.1)))
    return f"{messages}, {decimal(progress.octets)}, {rate}/s"
