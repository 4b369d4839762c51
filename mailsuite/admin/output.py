"""What commands print: tables for people, JSON for programs.

Rules: a table names and orders its columns, JSON has every key of a row under the row's own names and is one
array. Neither takes anything in a cell for markup, and nothing that a stranger has said reaches a terminal as more
than text: what cannot be printed becomes `?`. A table is as wide as it must be where nobody looks (a
pipe, a file), so that no address is cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

_UNBOUNDED = 10_000  # characters in a line
_GAP = "   "  # between columns

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Give a command the flag `--json`, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def print_rows(rows: Sequence[Mapping[str, object]], titles: Mapping[str, str], *, as_json: bool) -> None:
    """Print rows: as a table of the columns that `titles` names (key: heading), or as JSON with all they hold.

    Values are strings, numbers, booleans or lists of strings.
    """
    if as_json:
        click.echo(json.dumps([dict(row) for row in rows], indent=2))
        return
    # Rich takes a tenth of a second to import; those who print no table do not wait for it.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in titles.values():
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[key])) for key in titles))
    Console(width=None if sys.stdout.isatty() else _UNBOUNDED, highlight=False).print(table)


def columns(rows: Sequence[Mapping[str, object]], titles: Mapping[str, str]) -> list[str]:
    """A table's lines, each cell in one of them: for long lists, which `print_rows` takes too long for."""
    cells = [[_cell(row[key]) for key in titles] for row in rows]
    heads = list(titles.values())
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    rule = ["-" * width for width in widths]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (heads, rule, *cells)
    ]


def plain(text: str, longest: int = 0) -> str:
    """Text for a terminal: what cannot be printed becomes `?`; cut where `longest` characters are exceeded."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return f"{shown[: longest - 3]}..." if 0 < longest < len(shown) else shown


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return "\n".join(plain(str(one)) for one in value)
    return plain(str(value))


def in_units(octets: int) -> str:
    """A size, in the units of the configuration."""
    size, unit = float(octets), "octets"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{octets} octets" if unit == "octets" else f"{size:.1f} {unit}"
