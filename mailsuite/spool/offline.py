"""Changes to a spool whose server does not run: what an operator does with what is queued there.

It blocks. It has the spool's lock as long as it works, as a server has; what a crash has left is put in order as a
server's start does. The database is written by this process.
"""

from __future__ import annotations

import os
import sqlite3
import time
from itertools import count

from mailsuite.interfaces import SpoolError
from mailsuite.mail.selection import Managed, QueueAction, Selection
from mailsuite.spool import opening
from mailsuite.spool.changes import void
from mailsuite.spool.entry import first_number
from mailsuite.spool.errors import spool_error
from mailsuite.spool.files import unlink
from mailsuite.spool.managing import FIRST, Manage, Tally, choose
from mailsuite.spool.transactions import Transactions

_LEASE = 3600.0  # seconds; nobody looks at it while we have the lock


def manage(
    directory: str | os.PathLike[str],
    action: QueueAction,
    selection: Selection,
    *,
    by: str,
    now: float | None = None,
) -> Managed:
    """As `ISpool.manage`, in the spool of that directory. `now` is the time, if that is not the system's.

    Raises `SpoolInUse` where a server has the spool, another `SpoolError` where there is none or it cannot be changed.
    """
    directory = os.path.abspath(directory)
    now = time.time() if now is None else now
    try:
        if not opening.was_used(directory):
            raise SpoolError(f"There is no spool in {directory}")
    except OSError as error:
        raise spool_error(error, directory) from error
    opened = opening.open_spool(directory, now + _LEASE, 0.0, patience=0.0)
    path = opening.database(directory)
    transactions = Transactions(opened.db, path)
    numbers = count(first_number(opened.owner))
    tally = Tally()
    try:
        bite = choose(opened.db, selection, FIRST, now)
        while bite is not None:
            change = Manage(action, bite.keys, by, now, numbers)
            transactions.run([change])
            if change.error is not None:
                raise change.error
            unlink([f"{opening.contents(directory)}/{queue_id}" for queue_id in change.gone])
            tally.add(bite, change.result)
            bite = choose(opened.db, selection, bite, now)
        void(opened.db, opened.owner)
    except sqlite3.Error as error:
        raise spool_error(error, path) from error
    finally:
        transactions.close()
        os.close(opened.lock)
    return tally.managed
