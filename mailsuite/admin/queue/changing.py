"""`mailsuite queue flush|hold|release|retry|requeue|expire|delete`: what an operator does with what is queued."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from mailsuite.admin.asking import yes_option
from mailsuite.admin.output import in_units, json_option
from mailsuite.admin.queue.choosing import Command, as_destination, choosing_to_change
from mailsuite.admin.queue.listing import not_queued, pages, shortened
from mailsuite.admin.queue.rows import counted
from mailsuite.admin.reading import HasSettings, reading
from mailsuite.config import Settings
from mailsuite.config.values import domain as domain_of
from mailsuite.mail.selection import EVERYTHING, Managed, QueueAction, QueueState, Selection

if TYPE_CHECKING:
    from mailsuite.admin.queue.work import Survey

_DONE: Final = {
    QueueAction.HOLD: "put on hold",
    QueueAction.RELEASE: "released",
    QueueAction.RETRY: "tried again now",
    QueueAction.REQUEUE: "queued anew",
    QueueAction.EXPIRE: "returned to their senders",
    QueueAction.DELETE: "deleted",
}
_DONE_LATER: Final = {
    QueueAction.RETRY: "tried when the server starts",
    QueueAction.REQUEUE: "queued anew, and tried when the server starts",
    QueueAction.EXPIRE: "returned to their senders when the server starts",
}
_QUESTIONS: Final = {
    QueueAction.EXPIRE: "Return {what} to the sender as undeliverable?",
    QueueAction.DELETE: "Delete {what} for good? Nobody is told.",
}


def _changes(command: Command) -> Command:
    """What the commands here have in common."""
    return choosing_to_change(json_option(click.pass_obj(command)))


@click.command("flush", short_help="Try all deferred mail now.")
@click.argument("places", metavar="[DOMAIN|DESTINATION]...", nargs=-1)
@json_option
@click.pass_obj
def flush(context: HasSettings, places: tuple[str, ...], *, as_json: bool) -> None:
    """Try all mail now that waits for its next attempt, or only that for these DOMAINs and DESTINATIONs.

    Destinations that are left alone after a failure are tried too. What is on hold, or held for customers, stays where
    it is. A DESTINATION is what `mailsuite queue top` shows, as in relay:example.org or maildir.
    """
    done, is_later = Managed(0, 0), False
    for selection in [_place(place, context.settings) for place in places] or [EVERYTHING]:
        more, is_later = _change(context.settings, QueueAction.RETRY, selection)
        done = Managed(done.messages + more.messages, done.recipients + more.recipients, done.busy + more.busy)
    _tell(QueueAction.RETRY, done, as_json=as_json, is_later=is_later)


@click.command("hold", short_help="Keep mail in the queue until it is released.")
@_changes
def hold(context: HasSettings, *, selection: Selection, as_json: bool) -> None:
    """Put mail on hold: nothing happens with it before `mailsuite queue release`. Its time runs on."""
    _do(context.settings, QueueAction.HOLD, selection, as_json=as_json)


@click.command("release", short_help="End a hold.")
@_changes
def release(context: HasSettings, *, selection: Selection, as_json: bool) -> None:
    """End a hold: the mail is tried now. What is not on hold stays as it is."""
    if selection.state not in (None, QueueState.ON_HOLD):
        raise click.UsageError("what is released is on hold; leave --state out.")
    _do(context.settings, QueueAction.RELEASE, replace(selection, state=QueueState.ON_HOLD), as_json=as_json)


@click.command("retry", short_help="Try mail now that waits for its next attempt.")
@_changes
def retry(context: HasSettings, *, selection: Selection, as_json: bool) -> None:
    """Try this mail now; its destinations are tried even where they are left alone after a failure."""
    _do(context.settings, QueueAction.RETRY, selection, as_json=as_json)


@click.command("requeue", short_help="Route mail anew, and try it now.")
@_changes
def requeue(context: HasSettings, *, selection: Selection, as_json: bool) -> None:
    """Route this mail anew by the present configuration, forget its attempts, end its hold, and try it now."""
    _do(context.settings, QueueAction.REQUEUE, selection, as_json=as_json)


@click.command("expire", short_help="Return mail to its senders now.")
@yes_option
@_changes
def expire(context: HasSettings, *, selection: Selection, as_json: bool, yes: bool) -> None:
    """Return this mail to its senders now, with a report, as if its time were over. Reports are dropped."""
    _do(context.settings, QueueAction.EXPIRE, selection, as_json=as_json, yes=yes)


@click.command("delete", short_help="Delete mail from the queue.")
@yes_option
@_changes
def delete(context: HasSettings, *, selection: Selection, as_json: bool, yes: bool) -> None:
    """Delete this mail from the queue for good; nobody is told. `mailsuite queue expire` tells its senders."""
    _do(context.settings, QueueAction.DELETE, selection, as_json=as_json, yes=yes)


def _place(text: str, settings: Settings) -> Selection:
    agents = {settings.local.agent, *(agent.name for agent in settings.agent)}
    destination = as_destination(text) if ":" in text or text in agents else None
    if destination is not None:
        return Selection(destination=destination)
    try:
        return Selection(domain=f".{domain_of(text[1:])}" if text.startswith(".") else domain_of(text))
    except ValueError:
        raise click.UsageError(
            f"{text!r} is neither a domain, as example.org, nor a destination, as relay:example.org."
        ) from None


def _do(settings: Settings, action: QueueAction, selection: Selection, *, as_json: bool, yes: bool = False) -> None:
    untouched = _untouched(settings, action, selection) if selection.ids else None
    done, is_later = _change(settings, action, selection, yes=yes)
    if done.recipients or done.busy or not selection.ids:
        _tell(action, done, as_json=as_json, is_later=is_later)
    if untouched is not None:
        raise click.ClickException(untouched)
    if selection.ids and not (done.recipients or done.busy):
        raise click.ClickException(_NOTHING_FITS)  # it has gone in between
    if done.busy and not done.recipients:
        sys.exit(os.EX_TEMPFAIL)


def _change(
    settings: Settings, action: QueueAction, selection: Selection, *, yes: bool = False
) -> tuple[Managed, bool]:
    """Ask where that is called for, and do it; tell too whether no server runs."""
    from mailsuite.admin.control import ControlError
    from mailsuite.admin.queue.work import change, survey
    from mailsuite.interfaces import SpoolError

    with reading(settings) as spool:
        total: Survey | None = None
        meant_at = None if yes or action not in _QUESTIONS else time.time()
        if not selection.ids or action in _QUESTIONS:
            total = survey(spool, selection)
            if not total.messages:
                return Managed(0, 0), False
        if action in _QUESTIONS and total is not None and not yes:
            _ask(action, total)
        with ExitStack() as stack:
            progress = _bar(stack, action, total)
            try:
                return change(settings, spool, action, selection, progress, meant_at)
            except (SpoolError, ControlError) as error:
                raise click.ClickException(str(error)) from None


def _ask(action: QueueAction, total: Survey) -> None:
    what = f"{counted(total.messages, 'message')} ({counted(total.recipients, 'recipient')}, {in_units(total.octets)})"
    if total.for_customers:
        what += f", {total.for_customers:,} of the recipients held for customers,"
    question = _QUESTIONS[action].format(what=what)
    try:
        is_meant = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise click.ClickException("nobody has answered; say --yes where that is meant") from None
    if not is_meant:
        raise click.Abort


def _bar(stack: ExitStack, action: QueueAction, total: Survey | None) -> Callable[[Managed], object]:
    """A bar on a terminal, where there is more than a moment's work."""
    if total is None or total.messages < _LONG_WORK or not sys.stderr.isatty():
        return lambda _done: None
    from rich.console import Console
    from rich.progress import Progress

    bar = stack.enter_context(Progress(console=Console(stderr=True)))
    task = bar.add_task(action.value, total=total.messages)
    return lambda done: bar.update(task, completed=done.messages)


_LONG_WORK: Final = 1000  # messages


def _tell(action: QueueAction, done: Managed, *, as_json: bool, is_later: bool) -> None:
    if as_json:
        row = {
            "action": action.value,
            "messages": done.messages,
            "recipients": done.recipients,
            "busy": done.busy,
        }
        click.echo(json.dumps(row, indent=2))
        return
    if done.recipients:
        what = f"{counted(done.messages, 'message')}, {counted(done.recipients, 'recipient')}"
        said = _DONE_LATER.get(action, _DONE[action]) if is_later else _DONE[action]
        click.echo(f"{what}: {said}.")
    elif not done.busy:
        click.echo("Nothing is queued that fits.")
    if done.busy:
        are, they = ("is", "it is") if done.busy == 1 else ("are", "they are")
        what = f"{counted(done.busy, 'recipient')} {are} being served at this moment, and left as {they}"
        click.echo(f"{what}; say it again where {they} still queued.", err=True)


def _untouched(settings: Settings, action: QueueAction, selection: Selection) -> str | None:
    """What to say of messages that are named, and to which nothing will be done; None where there are none."""
    unfit_states = _UNFIT.get(action, ())
    with reading(settings) as spool:
        named = [one for page in pages(spool, Selection(selection.ids)) for one in page]
        there = {one.message.queue_id for one in named}
        chosen = pages(spool, selection)
        fit = {
            one.message.queue_id
            for page in chosen
            for one in page
            if any(recipient.state not in unfit_states for recipient in one.recipients)
        }
    missing = [queue_id for queue_id in selection.ids if queue_id not in there]
    unfit = [queue_id for queue_id in selection.ids if queue_id in there and queue_id not in fit]
    said = [not_queued(missing)] if missing else []
    if unfit:
        why = _ONE_DOES_NOT_FIT.get(action, "does not fit the conditions")
        if len(unfit) == len(selection.ids):
            states = {recipient.state for one in named for recipient in one.recipients}
            is_on_hold = action is QueueAction.RETRY and states == {QueueState.ON_HOLD}
            said.append(_ON_HOLD if is_on_hold else _NONE_FITS.get(action, _NOTHING_FITS))
        else:
            said.append(f"{shortened(unfit)}: {why}; `mailsuite queue show` tells how it stands")
    return "; ".join(said) or None


_UNFIT: Final = {
    QueueAction.HOLD: (QueueState.ON_HOLD,),
    QueueAction.RETRY: (QueueState.ON_HOLD, QueueState.FOR_CUSTOMER),
}
_NOTHING_FITS: Final = "of these messages nothing fits the conditions; `mailsuite queue show` tells how they stand"
_ON_HOLD: Final = "on hold; release it first, by `mailsuite queue release`"
_NONE_FITS: Final = {
    QueueAction.RELEASE: "nothing of that is on hold; `mailsuite queue show` tells how it stands",
}
_ONE_DOES_NOT_FIT: Final = {
    QueueAction.HOLD: "is on hold already, or does not fit the conditions",
    QueueAction.RELEASE: "is not on hold, or does not fit the conditions",
    QueueAction.RETRY: "is on hold or held for a customer, or does not fit the conditions",
}
