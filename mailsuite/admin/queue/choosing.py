"""Which messages a command of the queue is about: ids, and conditions that all must hold.

The options are the same for all commands. Those that change something want at least one, or `--all`.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click
from pydantic import TypeAdapter, ValidationError

from mailsuite.config.values import Duration, Size
from mailsuite.config.values import domain as domain_of
from mailsuite.mail.route import EXPIRED, HOLD, RELAY, Destination
from mailsuite.mail.selection import QueueState, Selection

_ID: Final = re.compile(r"[0-9A-Z]{1,32}")
_STATES: Final = {state.value.replace(" ", "-"): state for state in QueueState}
_CONDITIONS: Final = (
    "sender",
    "recipient",
    "domain",
    "destination",
    "state",
    "older_than",
    "younger_than",
    "larger_than",
    "smaller_than",
    "error",
)

Command = Callable[..., Any]


class _Read(click.ParamType):  # type: ignore[type-arg] # click's is generic in newer versions only
    """A value of the configuration's, as in "2d" or "10 MiB"."""

    def __init__(self, name: str, kind: Any) -> None:  # noqa: ANN401 - an annotated type
        self.name = name
        self._kind: TypeAdapter[Any] = TypeAdapter(kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as there
        try:
            return self._kind.validate_python(value)
        except ValidationError as error:
            self.fail(f"{value!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.", param, ctx)


def _as_domain(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return f".{domain_of(value[1:])}" if value.startswith(".") else domain_of(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}, or .example.org for those below it.") from None


def _as_destination(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Destination | None:
    if value is None:
        return None
    destination = as_destination(value)
    if destination is None:
        raise click.BadParameter(f"{value!r}: write it as `queue top` shows it, as in relay:example.org.")
    return destination


def as_destination(text: str) -> Destination | None:
    """A destination as `queue top` shows it: an agent, and a name where it takes one; None where it is none."""
    agent, _, name = text.partition(":")
    if not agent or "." in agent or (not name and agent in (RELAY, HOLD, EXPIRED)):
        return None
    return Destination(agent, name)


_OPTIONS: Final = (
    click.option("--sender", metavar="ADDRESS", help='Of this sender; "*" stands for anything, "<>" for reports.'),
    click.option("--recipient", metavar="ADDRESS", help='For this recipient; "*" stands for anything.'),
    click.option(
        "--domain", metavar="DOMAIN", callback=_as_domain, help="For recipients in this domain; .DOMAIN: below it."
    ),
    click.option(
        "--destination", callback=_as_destination, help="That goes there; see `queue top`, as in relay:example.org."
    ),
    click.option("--state", type=click.Choice(list(_STATES)), help="That stands so."),
    click.option("--older", "older_than", type=_Read("time", Duration), help="Arrived longer ago, as in 2h or 3d."),
    click.option("--younger", "younger_than", type=_Read("time", Duration), help="Arrived less long ago."),
    click.option("--larger", "larger_than", type=_Read("size", Size), help='More octets, as in "10 MiB" or 500k.'),
    click.option("--smaller", "smaller_than", type=_Read("size", Size), help="Fewer octets."),
    click.option("--error", metavar="TEXT", help="Whose last attempt came to something with this text in it."),
)


def choosing(command: Command) -> Command:
    """Give a command ids and conditions; it gets them as `selection`, everything where there are none."""

    @functools.wraps(command)
    def choose(*arguments: Any, ids: tuple[str, ...], **options: Any) -> Any:  # noqa: ANN401 - click's
        conditions = {name: options.pop(name) for name in _CONDITIONS}
        return command(*arguments, selection=_selection(ids, conditions), **options)

    chosen: Command = choose
    for option in reversed(_OPTIONS):
        chosen = option(chosen)
    return click.argument("ids", metavar="[ID]...", nargs=-1)(chosen)


def choosing_to_change(command: Command) -> Command:
    """As `choosing`, for what changes something: everything must be asked for by `--all`."""

    @functools.wraps(command)
    def choose(*arguments: Any, selection: Selection, everything: bool, **options: Any) -> Any:  # noqa: ANN401 - click's
        if everything and not selection.is_everything:
            raise click.UsageError("--all is for everything; leave it out, or the conditions.")
        if selection.is_everything and not everything:
            raise click.UsageError("Which messages? Name ids or conditions, or say --all.")
        return command(*arguments, selection=selection, **options)

    choose.__doc__ = (
        f"{command.__doc__}\n\n    `-` in the place of IDs reads them from standard input, one in each line."
    )
    return click.option("--all", "everything", is_flag=True, help="All that is queued.")(choosing(choose))


def checked_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """Queue ids in their one way of writing; `-` stands for those on standard input, one in each line."""
    named: dict[str, None] = {}
    for text in ids:
        for word in _from_stdin() if text == "-" else [text]:
            queue_id = word.strip().upper()
            if not _ID.fullmatch(queue_id):
                raise click.UsageError(
                    f"{word!r} is not a queue id; see `mailsuite queue list`, or `mailsuite trace ADDRESS`."
                )
            named[queue_id] = None
    return tuple(named)


def _selection(ids: Sequence[str], conditions: dict[str, Any]) -> Selection:
    state = conditions.pop("state")
    found = checked_ids(ids)
    if ids and not found:
        raise click.UsageError("there are no queue ids on standard input.")
    return Selection(found, state=None if state is None else _STATES[state], **conditions)


def _from_stdin() -> list[str]:
    # Of a line the first word: so what `queue list` prints may be piped in, cut down by grep.
    return [words[0] for line in sys.stdin if (words := line.split())]
