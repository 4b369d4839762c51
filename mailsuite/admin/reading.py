"""What commands read of the queue, from outside, while the server runs or not."""

from __future__ import annotations

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
def reading(settings: Settings) -> Iterator[SpoolReader | None]:
    """The queue, as `open_spool` has it; what goes wrong while it is read ends the command with one sentence."""
    from mailsuite.interfaces import SpoolError

    try:
        yield open_spool(settings)
    except SpoolError as error:
        raise click.ClickException(str(error)) from None
