"""What commands read of the queue, from outside, while the server runs or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from mailsuite.config import Settings

if TYPE_CHECKING:
    from mailsuite.spool.reading import SpoolReader


class HasSettings(Protocol):
    """What is needed of the context's object."""

    @property
    def settings(self) -> Settings:
        """The settings."""


def open_spool(settings: Settings) -> SpoolReader | None:
    """The queue of these settings, for reading; None where no server has made one yet. Raises `SpoolError`."""
    # Not at the top: `mailsuite --help` need not wait for the spool.
    from mailsuite.interfaces import SpoolError
    from mailsuite.spool.opening import database
    from mailsuite.spool.reading import SpoolReader

    directory = settings.path(settings.spool.directory)
    try:
        is_empty = Path(database(str(directory))).stat().st_size == 0
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpoolError(
            f"the queue in {directory} cannot be read ({error.strerror}); run this as the user who serves, or as root"
        ) from None
    return None if is_empty else SpoolReader(directory)


@contextmanager
def reading(settings: Settings) -> Iterator[SpoolReader]:
    """The queue. Where there is none, or something goes wrong while it is read, the command ends with one sentence."""
    from mailsuite.interfaces import SpoolError

    try:
        spool = open_spool(settings)
        if spool is None:
            raise _no_queue(settings)
        yield spool
    except SpoolError as error:
        raise click.ClickException(str(error)) from None


def _no_queue(settings: Settings) -> click.ClickException:
    """An empty queue it is not: most often these are the settings of somebody else."""
    context = click.get_current_context(silent=True)
    file = None if context is None else getattr(context.obj, "file", None)
    by = "the built-in defaults, for no configuration was named" if file is None else str(file)
    error = click.ClickException(
        f"there is no queue in {settings.path(settings.spool.directory)} (by {by}); name the configuration of the "
        "server, as in `mailsuite -c FILE`, or start it: it makes its queue"
    )
    error.exit_code = os.EX_UNAVAILABLE  # type: ignore[misc] # click reads it of the instance
    return error
