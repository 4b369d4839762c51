"""What starts and stops with the server, as steps that are taken in order and taken back the other way.

A step may wait, in both directions; the next one begins when it is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.application.service import IService
from twisted.internet.defer import Deferred, maybeDeferred


class Snapshot(Protocol):
    """A service that answers from memory, and must have read its file before anybody asks."""

    def startService(self) -> object: ...
    def stopService(self) -> object: ...
    def refresh(self) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Step:
    """Something that starts and stops with the server. `stop` is called once `start` was, whether that failed or not.

    What can go wrong in `start` without being a defect is a `StartError`, `SpoolError` or `DirectoryUnavailable`.
    """

    start: Callable[[], Awaitable[object]]
    stop: Callable[[], Awaitable[object]]


def service(one: IService) -> Step:
    """A service of Twisted's."""
    return Step(lambda: maybeDeferred(one.startService), lambda: maybeDeferred(one.stopService))


def snapshot(one: Snapshot) -> Step:
    """A service that is refreshed before the next step is taken."""

    async def start() -> None:
        one.startService()
        await one.refresh()

    return Step(start, lambda: maybeDeferred(one.stopService))


def together(*steps: Step) -> Step:
    """Steps that start in order and stop at the same time, so that the time they have for it is one.

    All of them are waited for, also where one fails to stop.
    """

    async def start() -> None:
        for step in steps:
            await step.start()

    async def stop() -> None:
        stopping = [Deferred.fromCoroutine(_error_of(step)) for step in steps]
        errors = [await one for one in stopping]
        for error in filter(None, errors):
            raise error

    return Step(start, stop)


async def _error_of(step: Step) -> Exception | None:
    try:
        await step.stop()
    except Exception as error:  # noqa: BLE001 - for the caller to raise, when the others have stopped
        return error
    return None
