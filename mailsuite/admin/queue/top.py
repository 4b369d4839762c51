"""`mailsuite queue top`: the destinations with the most mail, how old it is, how fast it leaves, what is wrong there.

What is queued is read from the spool's database; connections, rates and rests after failures are told by the server,
where one runs.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from mailsuite.admin.output import in_units, json_option, plain
from mailsuite.admin.queue.rows import ago, counted, place, soon
from mailsuite.admin.reading import HasSettings, reading
from mailsuite.config import Settings
from mailsuite.mail.selection import AGE_STEPS, DestinationLoad

if TYPE_CHECKING:
    from mailsuite.admin.control import ControlClient
    from mailsuite.spool.reading import SpoolReader

_LONGEST_ERROR: Final = 120  # characters
_AGES: Final = ("5m", "1h", "6h", "1d", "5d", "older")
_WIDE: Final = 140  # characters
_FOR_WIDE: Final = ("Recip.", "Size", "Held", "Active", "Rate", "Oldest", "Last error")  # columns
_NARROW_NAME: Final = 24  # characters
_LONGEST_NAME: Final = 64
_NUMBERS: Final = ("Messages", "Recip.", "Size", "Held", "Active", *_AGES, "Conn.", "Rate")

Status = Mapping[str, Mapping[str, Any]]  # by destination


@click.command(short_help="Show the destinations with the most mail, live.")
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many destinations.")
@click.option(
    "--interval", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds between two looks."
)
@json_option
@click.pass_obj
def top(context: HasSettings, *, once: bool, limit: int, interval: float, as_json: bool) -> None:
    """Show the destinations with the most mail: how much, how old, connections, the last error. Ctrl-C ends it.

    The columns with times count messages that are as old as that at the most; Held are recipients on hold. Conn. are
    the connections, and how many there may be; Rate is what leaves. Where the output is no terminal, it looks once.
    """
    from mailsuite.admin.running import run

    once = once or as_json or not sys.stdout.isatty()
    with reading(context.settings) as spool:

        async def look(reactor: Any) -> None:  # noqa: ANN401 - the reactor has many interfaces at once
            view = _View(reactor, context.settings, spool, limit)
            if not once:
                await view.live(interval)
            elif as_json:
                click.echo(json.dumps(await view.rows(), indent=2))
            else:
                click.echo("\n".join(await view.lines()))

        run(look)


class _View:
    """One look after the other."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - IReactorUNIX, IReactorThreads
        settings: Settings,
        spool: SpoolReader,
        limit: int,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._spool = spool
        self._limit = limit
        self._client: ControlClient | None = None
        self._before: tuple[float, int] | None = None
        self._unknown = "no server is running"  # why nothing is known of connections

    async def rows(self) -> list[dict[str, Any]]:
        """For programs: what there is for each destination, and how the server stands with it, where one runs."""
        loads, status = await self._loads(), await self._status()
        return [load_row(load, None if status is None else status.get(str(load.destination), {})) for load in loads]

    async def live(self, interval: float) -> None:
        """Show until somebody interrupts."""
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
        from twisted.internet.task import deferLater

        def picture(lines: Sequence[str]) -> Text:
            return Text("\n".join(lines), no_wrap=True, overflow="crop")

        with Live(picture(await self.lines()), console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                live.refresh()
                await deferLater(self._reactor, interval)
                live.update(picture(await self.lines()))

    async def lines(self) -> list[str]:
        """For people."""
        loads, status = await self._loads(), await self._status()
        now = time.time()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE
        head = self._summary(loads, status, now)
        return [head, "", *table(loads, status, now, width)] if loads else [head]

    def _summary(self, loads: Sequence[DestinationLoad], status: Status | None, now: float) -> str:
        messages = sum(load.messages for load in loads)
        said = [time.strftime("%H:%M:%S", time.localtime(now))]
        whither = counted(len(loads), "destination")
        said.append(f"{counted(messages, 'message')} for {whither}" if loads else "the queue is empty")
        if len(loads) == self._limit:
            said[-1] += " (those with the most)"
        if self._before is not None and now > self._before[0]:
            change = (messages - self._before[1]) / (now - self._before[0])
            said.append(f"{change:+.1f} messages/s")
        self._before = now, messages
        if status is None:
            said.append(self._unknown)
        else:
            said.append(counted(sum(int(one.get("runs", 0)) for one in status.values()), "connection"))
        return ", ".join(said)

    async def _loads(self) -> Sequence[DestinationLoad]:
        from twisted.internet.threads import deferToThreadPool

        found: Sequence[DestinationLoad] = await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), self._spool.loads, self._limit
        )
        return found

    async def _status(self) -> Status | None:
        """How the server stands with its destinations; None where none runs, or it may not be asked."""
        from mailsuite.admin.control import ControlClient, ControlError, NotRunning, connect

        try:
            if self._client is None:
                client = ControlClient()
                await connect(self._reactor, self._settings.data_directory, client)
                self._client = client
            found = await self._client.status()
        except ControlError as error:
            self._client = None
            self._unknown = "no server is running" if isinstance(error, NotRunning) else str(error)
            return None
        return {str(one["destination"]): one for one in found}


def load_row(load: DestinationLoad, status: Mapping[str, Any] | None) -> dict[str, Any]:
    """A destination, with the keys of the JSON; those of the server are null where none runs."""
    steps = [*(f"{step:g}" for step in AGE_STEPS), "older"]
    row = {
        "destination": str(load.destination),
        "messages": load.messages,
        "recipients": load.recipients,
        "octets": load.octets,
        "oldest": load.oldest,
        "next_due": load.next_due,
        "on_hold": load.on_hold,
        "active": load.active,
        "error": load.error,
        "ages": dict(zip(steps, load.ages, strict=False)),
    }
    server = dict.fromkeys(("runs", "allowed", "ready", "failures", "up_at", "rate", "last_error"))
    if status is not None:
        nothing = {"runs": 0, "ready": 0, "failures": 0, "rate": 0.0}
        server |= nothing | {key: status[key] for key in server if key in status}
    return row | server


def table(loads: Sequence[DestinationLoad], status: Status | None, now: float, width: int) -> list[str]:
    """The lines of the table for people; one that is less than `_WIDE` has fewer columns, and errors below it."""
    is_wide = width >= _WIDE
    rows = [_cells(load, status, now) for load in loads]
    titles = [title for title in rows[0] if is_wide or title not in _FOR_WIDE]
    lines: list[list[str]] = [titles, *([row[title] for title in titles] for row in rows)]
    if not is_wide:
        for line in lines:
            line[0] = plain(line[0], _NARROW_NAME)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * one for one in widths])
    shown = ["  ".join(map(_justified, titles, line, widths)).rstrip() for line in lines]
    if not is_wide:
        shown.append("")
        shown += [f"{row['Destination']}: {row['Last error']}" for row in rows if row["Last error"]]
    return shown


def _justified(title: str, cell: str, width: int) -> str:
    return cell.rjust(width) if title in _NUMBERS else cell.ljust(width)


def _cells(load: DestinationLoad, status: Status | None, now: float) -> dict[str, str]:
    known = {} if status is None else status.get(str(load.destination), {})
    connections = "-" if status is None else f"{known.get('runs', 0)}"
    if known.get("allowed") is not None:
        connections += f"/{known['allowed']}"
    return {
        "Destination": plain(place(str(load.destination)), _LONGEST_NAME),
        "Messages": _count(load.messages),
        "Recip.": _count(load.recipients),
        "Size": in_units(load.octets),
        "Held": _count(load.on_hold),
        "Active": _count(load.active),
        **dict(zip(_AGES, map(_count, [*load.ages, *[0] * len(_AGES)]), strict=False)),
        "Conn.": connections,
        "Rate": f"{known['rate']:.1f}/s" if known.get("rate") else "",
        "Oldest": ago(load.oldest, now),
        "Next try": _next(load, known, now),
        "Last error": plain(known.get("last_error") or load.error or "", _LONGEST_ERROR),
    }


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _next(load: DestinationLoad, known: Mapping[str, Any], now: float) -> str:
    if load.destination.agent == "hold":
        return "when asked for"
    if load.on_hold == load.recipients:
        return "on hold"
    up_at = known.get("up_at")
    if known.get("failures") and isinstance(up_at, (int, float)) and up_at > max(load.next_due, now):
        return f"rests, {soon(up_at, now)}"
    return soon(load.next_due, now)
