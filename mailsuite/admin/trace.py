"""`mailsuite trace`: the whole story of a message, while it is queued and after that, across all attempts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from mailsuite.admin.output import json_option, plain
from mailsuite.admin.queue.rows import message_row, recipient_in_words
from mailsuite.admin.reading import HasSettings, reading
from mailsuite.admin.story import event_row, message_id, told
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.selection import QueuedMessage, Selection

if TYPE_CHECKING:
    from mailsuite.spool.reading import SpoolReader

_STEPS: Final = 1000  # of one message that are told, the last ones


@click.command(short_help="Tell the whole story of a message.")
@click.argument("text", metavar="ID|ADDRESS|MESSAGE-ID")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="How many messages, the latest.")
@json_option
@click.pass_obj
def trace(context: HasSettings, text: str, *, limit: int, as_json: bool) -> None:
    """Tell all that happened to a message: a queue id, a Message-ID, or the address of a sender or a recipient.

    From its reception to its end: each attempt with host, TLS, reply and duration, each report, what an operator did,
    and how it stands where it is still queued. "*" in an address stands for anything. What became of messages is kept
    for a set time after they have gone (`history_time` of [spool]).
    """
    wanted = text.strip()
    with reading(context.settings) as spool:
        ids = _found(spool, wanted, limit + 1)
        if not ids:
            raise click.ClickException(
                f"nothing is on record of {wanted}; name a queue id, a Message-ID, or an address as the envelope had it"
            )
        stories = [_Story(spool, queue_id) for queue_id in ids[:limit]]
    if as_json:
        click.echo(json.dumps([story.row() for story in stories], indent=2))
    else:
        for story in reversed(stories):  # the latest stands where the eye is
            story.print()
    if len(ids) > limit:
        click.echo(f"There are more: these are the latest {limit}; say --limit.", err=True)


def _found(spool: SpoolReader, text: str, limit: int) -> Sequence[str]:
    """The messages that are meant; an id in small letters too, and a Message-ID without its angle brackets."""
    tries = [text]
    if "@" not in text:
        tries.append(text.upper())
    elif text.startswith("<") and text.endswith(">"):
        tries.append(text[1:-1])
    else:
        tries.append(f"<{text}>")
    return next((found for one in tries if (found := spool.find(one, limit))), [])


class _Story:
    """One message."""

    def __init__(self, spool: SpoolReader, queue_id: str) -> None:
        self._queue_id = queue_id
        self._events: Sequence[Event] = spool.history(queue_id=queue_id, limit=_STEPS)
        queued = spool.select(Selection((queue_id,)), 1)
        self._queued: QueuedMessage | None = queued[0] if queued else None

    def row(self) -> dict[str, Any]:
        """For programs; `queued` is null where it has gone."""
        return {
            "queue_id": self._queue_id,
            "message_id": message_id(self._events),
            "history": [event_row(event) for event in reversed(self._events)],
            "queued": None if self._queued is None else message_row(self._queued),
        }

    def print(self) -> None:
        """For people."""
        click.secho(plain(" ".join(filter(None, (self._queue_id, message_id(self._events))))), bold=True)
        if len(self._events) == _STEPS:
            click.echo(f"(the last {_STEPS} steps)")
        elif all(event.kind is not EventKind.RECEIVED for event in self._events):
            click.echo("(what was before is not on record)")
        for line in told(self._events):
            click.echo(line)
        click.echo(self._end())
        click.echo()

    def _end(self) -> str:
        now = time.time()
        if self._queued is None:
            return "It has left the queue."
        return "\n".join(f"Queued: {next(recipient_in_words(one, now))}." for one in self._queued.recipients)
