"""How the queue is changed: by the running server, or here where none runs.

The server is asked in parts of some hundred messages, so that how far it is can be shown, and an interrupt leaves the
rest as it was. What arrives meanwhile is not meant.

A server that is starting, or stopping, has the queue and cannot be talked to: it is given some seconds. Root becomes
the owner of the data directory where no server runs: what root writes there the server could not touch.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mailsuite.admin.queue.listing import pages
from mailsuite.config import Settings
from mailsuite.mail.selection import Managed, QueueAction, QueueState, Selection

if TYPE_CHECKING:
    from mailsuite.admin.control import ControlClient
    from mailsuite.spool.reading import SpoolReader

_START_TIME: Final = 6.0  # seconds between a server that has the queue and one that can be talked to
_ASK_EVERY: Final = 0.5
_PART: Final = 500  # messages
_MOST_IDS: Final = 2000  # that one call has room for

Progress = Callable[[Managed], object]


@dataclass(frozen=True, slots=True)
class Survey:
    """How much is meant. `for_customers` and `active` count recipients."""

    messages: int = 0
    recipients: int = 0
    octets: int = 0
    for_customers: int = 0
    active: int = 0


def survey(spool: SpoolReader, selection: Selection) -> Survey:
    """Count what is selected. Raises `SpoolError`."""
    messages = recipients = octets = for_customers = active = 0
    for page in pages(spool, selection):
        for one in page:
            states = [recipient.state for recipient in one.recipients]
            messages += 1
            octets += one.message.size
            recipients += len(states)
            for_customers += states.count(QueueState.FOR_CUSTOMER)
            active += states.count(QueueState.ACTIVE)
    return Survey(messages, recipients, octets, for_customers, active)


def change(
    settings: Settings,
    spool: SpoolReader,
    action: QueueAction,
    selection: Selection,
    progress: Progress,
    meant_at: float | None = None,
) -> tuple[Managed, bool]:
    """Do it to all that is selected; tell too whether no server runs. `progress` is told what was done so far.

    `meant_at` is when somebody was asked about it: what came later, or was not old enough then, is not meant. Raises
    `SpoolError`, `ControlError`.
    """
    if meant_at is not None and not selection.ids:
        passed = max(time.time() - meant_at, 0.0)
        selection = replace(selection, older_than=(selection.older_than or 0.0) + passed)
    from mailsuite.admin.running import run

    async def work(reactor: Any) -> tuple[Managed, bool]:  # noqa: ANN401 - the reactor has many interfaces at once
        hand = _Hand(reactor, settings)
        return await hand.manage(spool, action, selection, progress), hand.is_offline

    return run(work)


def _parts(spool: SpoolReader, action: QueueAction, selection: Selection) -> Iterator[Selection]:
    """The selection in parts that are named by ids."""
    is_whole = action is QueueAction.REQUEUE  # the whole queue is looked through behind each part
    if selection.ids:
        size = _MOST_IDS if is_whole else _PART
        for at in range(0, len(selection.ids), size):
            yield replace(selection, ids=selection.ids[at : at + size])
        return
    if is_whole:
        yield selection
        return
    begun = time.time()
    for page in pages(spool, selection):
        ids = tuple(one.message.queue_id for one in page if one.message.arrived <= begun)
        if ids:
            yield replace(selection, ids=ids)


# ----------------------------------------------------------------------------------------- there or here


class _Hand:
    """What does the work: the running server, or the spool by itself."""

    is_offline = False  # whether no server runs: what is to be done is done when one does

    def __init__(self, reactor: Any, settings: Settings) -> None:  # noqa: ANN401 - as in `change`
        self._reactor = reactor
        self._settings = settings
        self._by = operator()

    async def manage(
        self, spool: SpoolReader, action: QueueAction, selection: Selection, progress: Progress
    ) -> Managed:
        """Raises `SpoolError`, `ControlError`."""
        from twisted.internet.task import deferLater

        from mailsuite.interfaces import SpoolInUse
        from mailsuite.spool import offline

        until = self._reactor.seconds() + _START_TIME
        directory = self._settings.path(self._settings.spool.directory)
        while True:
            client = await self._reach()
            if client is not None:
                return await self._manage_there(client, spool, action, selection, progress)
            become_owner(self._settings)
            try:
                managed = offline.manage(directory, action, selection, by=self._by)
                self.is_offline = True
                return managed
            except SpoolInUse:
                if self._reactor.seconds() >= until:
                    raise
            await deferLater(self._reactor, _ASK_EVERY)

    async def _manage_there(
        self,
        client: ControlClient,
        spool: SpoolReader,
        action: QueueAction,
        selection: Selection,
        progress: Progress,
    ) -> Managed:
        total = Managed(0, 0)
        for part in _parts(spool, action, selection):
            done = await client.manage(action, part, by=self._by)
            total = Managed(total.messages + done.messages, total.recipients + done.recipients, total.busy + done.busy)
            progress(total)
        return total

    async def _reach(self) -> ControlClient | None:
        from mailsuite.admin.control import ControlClient, NotRunning, connect

        client = ControlClient()
        try:
            await connect(self._reactor, self._settings.data_directory, client)
        except NotRunning:
            return None
        return client


def operator() -> str:
    """Who says so, for the history: the login name, that of whoever has become root by sudo included."""
    behind = os.environ.get("SUDO_USER")
    if os.getuid() == 0 and behind:
        return behind
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return f"uid {os.getuid()}"


def become_owner(settings: Settings) -> None:
    """Be the owner of the data directory from here on, where we are root and there is one."""
    if os.geteuid() != 0 or not settings.data_directory.exists():
        return
    owner = settings.data_directory.stat()
    if owner.st_uid == 0:
        return
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
