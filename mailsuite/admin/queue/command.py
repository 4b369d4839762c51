"""`mailsuite queue`: the group."""

from __future__ import annotations

import click

from mailsuite.admin.queue.changing import delete, expire, flush, hold, release, requeue, retry
from mailsuite.admin.queue.listing import cat_queued, list_queue, show_queued
from mailsuite.admin.queue.top import top


@click.group()
def queue() -> None:
    """Look into the queue, and change what is in it.

    All of it works while the server runs, and on a stopped one. Which messages are meant is said by queue ids, or by
    conditions that must all hold, as in --domain example.org --older 2d.
    """


for _command in (
    list_queue,
    show_queued,
    cat_queued,
    top,
    flush,
    hold,
    release,
    retry,
    requeue,
    expire,
    delete,
):
    queue.add_command(_command)
