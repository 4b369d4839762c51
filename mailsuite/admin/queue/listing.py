"""`mailsuite queue list|show|cat`: what is queued, a message from all sides, and its content."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from email.parser import BytesHeaderParser
from email.policy import default
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from mailsuite.admin.output import columns, in_units, json_option, plain
from mailsuite.admin.queue.choosing import checked_ids, choosing
from mailsuite.admin.queue.rows import (
    LIST_TITLES,
    Trouble,
    ago,
    asked_in_words,
    clock,
    counted,
    list_rows,
    message_row,
    recipient_in_words,
    sender_of,
    stacked,
)
from mailsuite.admin.reading import HasSettings, reading
from mailsuite.admin.story import event_row, told
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import QueuedMessage, Selection

if TYPE_CHECKING:
    from mailsuite.spool.reading import SpoolReader

_PAGE: Final = 500  # messages
_MOST_FOR_PEOPLE: Final = 1000
_DESTINATIONS: Final = 1000
_STEPS: Final = 1000  # of one message that are told, the last ones
_HEADER: Final = 256 * 1024  # octets that are looked through for a header
_FIELDS: Final = ("Subject", "From", "To", "Message-ID", "Date")
_LONGEST_FIELD: Final = 300  # characters


def pages(spool: SpoolReader, selection: Selection) -> Iterator[Sequence[QueuedMessage]]:
    """What is selected, by queue id, some hundred at a time. Raises `SpoolError`."""
    after = ""
    while page := spool.select(selection, _PAGE, after=after):
        yield page
        after = page[-1].message.queue_id


@click.command("list", short_help="List what is queued.")
@choosing
@click.option(
    "--limit",
    type=click.IntRange(0),
    help="How many messages, 0 for all; without it 1000 for people, and all with --ids and --json.",
)
@click.option("--ids", "only_ids", is_flag=True, help="Print queue ids only, one in each line.")
@json_option
@click.pass_obj
def list_queue(context: HasSettings, *, selection: Selection, limit: int | None, only_ids: bool, as_json: bool) -> None:
    """List the messages with these IDs, or those that meet all conditions; without any, all.

    A message has a line for each of its first recipients that fit. `--ids` makes what other commands take from
    standard input: `mailsuite queue list --error greylist --ids | mailsuite queue retry -`.
    """
    if as_json and only_ids:
        raise click.UsageError("--ids and --json exclude one another.")
    if limit is None:
        limit = 0 if only_ids or as_json else _MOST_FOR_PEOPLE
    with reading(context.settings) as spool:
        found = (one for page in pages(spool, selection) for one in page)
        shown = islice(found, limit or None)
        if as_json:
            _print_json(shown)
        elif only_ids:
            for one in shown:
                click.echo(one.message.queue_id)
        else:
            _print_table(shown, _Troubles(spool), selection)
        if limit and next(found, None) is not None:
            click.echo(f"There is more than these {limit}: say --limit 0, or choose, as by --domain.", err=True)
        missing = [] if not selection.ids else _missing(spool, selection.ids)
    _tell_missing(missing)


def _print_json(shown: Iterator[QueuedMessage]) -> None:
    """One array, written as it is read: there may be very many."""
    click.echo("[", nl=False)
    separator = "\n"
    for one in shown:
        click.echo(separator + json.dumps(message_row(one)), nl=False)
        separator = ",\n"
    click.echo("\n]")


class _Troubles:
    """What is wrong with destinations, as the last attempts there have it; looked up when it is first asked for."""

    def __init__(self, spool: SpoolReader) -> None:
        self._spool = spool
        self._errors: dict[Destination, str | None] | None = None

    def __call__(self, destination: Destination) -> str | None:
        if self._errors is None:
            loads = self._spool.loads(_DESTINATIONS)
            self._errors = {load.destination: load.error for load in loads}
        return self._errors.get(destination)


def _print_table(shown: Iterator[QueuedMessage], trouble: Trouble, selection: Selection) -> None:
    """Print, a table for each page."""
    now = time.time()
    messages = recipients = octets = 0
    while page := list(islice(shown, _PAGE)):
        _print_page(list(list_rows(page, now, trouble)))
        messages += len(page)
        recipients += sum(len(one.recipients) for one in page)
        octets += sum(one.message.size for one in page)
    if messages:
        click.echo(f"\n{counted(messages, 'message')}, {counted(recipients, 'recipient')}, {in_units(octets)}.")
    else:
        click.echo("The queue is empty." if selection.is_everything else "Nothing is queued that fits.")


def _print_page(rows: Sequence[dict[str, object]]) -> None:
    """As a table, or on a terminal that is too narrow for it as lines: a queue id must never be broken."""
    lines: Iterable[str] = columns(rows, LIST_TITLES)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        if any(len(line) > width for line in lines):
            lines = stacked(rows)
    click.echo("\n".join(lines))


def _missing(spool: SpoolReader, ids: Sequence[str]) -> Sequence[str]:
    there = {one.message.queue_id for page in pages(spool, Selection(tuple(ids))) for one in page}
    return [queue_id for queue_id in ids if queue_id not in there]


def _tell_missing(missing: Sequence[str]) -> None:
    if missing:
        raise click.ClickException(not_queued(missing))


def not_queued(missing: Sequence[str]) -> str:
    """What is told of ids that are not in the queue."""
    what = "is" if len(missing) == 1 else "are"
    return f"{shortened(missing)} {what} not in the queue; `mailsuite trace {missing[0]}` tells what has become of it"


def shortened(ids: Sequence[str]) -> str:
    """The first of these ids, for people."""
    return ", ".join(ids[:_SHOWN_IDS]) + (", ..." if len(ids) > _SHOWN_IDS else "")


_SHOWN_IDS: Final = 5


# ---------------------------------------------------------------------------------------------------- show


@click.command("show", short_help="Show a message from all sides.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
@click.pass_obj
def show_queued(context: HasSettings, ids: tuple[str, ...], *, as_json: bool) -> None:
    """Show the messages with these IDs: envelope, header, each recipient, and all that has happened so far."""
    wanted = checked_ids(ids)
    shown = []
    with reading(context.settings) as spool:
        for page in pages(spool, Selection(wanted)):
            for one in page:
                shown.append(_described(spool, one))
                if not as_json:
                    _print_message(spool, one)
        missing = _missing(spool, wanted)
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    _tell_missing(missing)


def _described(spool: SpoolReader, one: QueuedMessage) -> dict[str, Any]:
    steps = spool.history(queue_id=one.message.queue_id, limit=_STEPS)
    return {
        **message_row(one),
        "header": _header(spool, one.message.queue_id),
        "history": [event_row(event) for event in reversed(steps)],
    }


def _print_message(spool: SpoolReader, one: QueuedMessage) -> None:
    now = time.time()
    message, envelope = one.message, one.message.envelope
    click.secho(message.queue_id, bold=True)
    account = "" if envelope.submitter is None else f", handed in by {plain(envelope.submitter)}"
    click.echo(f"Sender: {sender_of(one)}{account}.")
    click.echo(f"Arrived: {clock(message.arrived)} ({ago(message.arrived, now)} ago).")
    kind = [in_units(message.size), envelope.body.value, *(["SMTPUTF8"] if envelope.smtputf8 else [])]
    click.echo(f"Content: {', '.join(kind)}.")
    if asked := asked_in_words(envelope.options):
        click.echo(f"Asked for: {', '.join(asked)}.")
    for name, value in _header(spool, message.queue_id).items():
        click.echo(f"  {name}: {plain(value, _LONGEST_FIELD)}")
    click.echo()
    for each in one.recipients:
        for line in recipient_in_words(each, now):
            click.echo(line)
    steps = spool.history(queue_id=message.queue_id, limit=_STEPS)
    if steps:
        click.echo()
        for line in told(steps):
            click.echo(line)
    click.echo()


def _header(spool: SpoolReader, queue_id: str) -> dict[str, str]:
    """Some fields of the header, for whoever looks for one message among many."""
    octets = b""
    for chunk in _content(spool, queue_id):
        octets += chunk
        if b"\r\n\r\n" in octets or len(octets) > _HEADER:
            break
    try:
        header = BytesHeaderParser(policy=default).parsebytes(octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        return {name: str(header[name]) for name in _FIELDS if name in header}
    except Exception:  # noqa: BLE001 - the parser meets whatever somebody has sent
        return {}


def _content(spool: SpoolReader, queue_id: str) -> Iterator[bytes]:
    """The content of a message. Raises `SpoolError`."""
    from mailsuite.interfaces import SpoolError

    chunks = spool.content(queue_id)
    while True:
        try:
            chunk = next(chunks, None)
        except OSError as error:
            raise SpoolError(f"the content of {queue_id} cannot be read: {error.strerror or error}") from None
        if chunk is None:
            return
        yield chunk


# ----------------------------------------------------------------------------------------------------- cat


@click.command("cat", short_help="Print the content of a message.")
@click.argument("queue_id", metavar="ID")
@click.option("--header", "part", flag_value="header", help="Only the header.")
@click.option("--body", "part", flag_value="body", help="Only what stands below it.")
@click.pass_obj
def cat_queued(context: HasSettings, queue_id: str, *, part: str | None) -> None:
    """Print the content of the message ID, header and body.

    Into a file or a pipe go its octets as they were accepted, with CRLF line ends. On a terminal the line ends are this
    machine's, and control characters become `?`.
    """
    wanted, *others = checked_ids([queue_id]) or ("",)
    if others or not wanted:
        raise click.UsageError("one message at a time: name its queue id.")
    with reading(context.settings) as spool:
        if not spool.select(Selection((wanted,)), 1):
            raise click.ClickException(not_queued([wanted]))
        chunks: Iterator[bytes] = _part(_content(spool, wanted), part)
        if sys.stdout.isatty():
            chunks = _for_terminal(chunks)
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.flush()


def _part(chunks: Iterator[bytes], part: str | None) -> Iterator[bytes]:
    """The part that is wanted; the header ends with its last line, without the empty one below it."""
    if part is None:
        yield from chunks
        return
    before = b""
    for chunk in chunks:
        before += chunk
        header, end, body = before.partition(b"\r\n\r\n")
        if end:
            yield header + b"\r\n" if part == "header" else body
            break
        if part == "header" and len(before) > _HEADER:  # all but what may be the half of its end
            yield before[:-3]
            before = before[-3:]
    else:
        if part == "header":
            yield before
        return
    if part == "body":
        yield from chunks


def _for_terminal(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        text = decoder.decode(chunk).replace("\r\n", "\n")
        shown = "".join(one if one.isprintable() or one in "\n\t" else "" if one == "\r" else "?" for one in text)
        yield shown.encode("utf-8", "replace")
