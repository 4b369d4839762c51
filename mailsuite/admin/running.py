"""What commands that talk to the network have in common: a reactor for as long as they run, and their exit status.

The exit status is one of sysexits: 0 where all went well (mail or no mail), 75 for what may succeed later, 69 where a
server does not do what was asked or we have refused all that came, 77 where it does not take us for whom we are, 78 for
what is wrong with the configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

import click

from mailsuite.session.pulling import PullResult

_T = TypeVar("_T")

STATUS: Final = {
    PullResult.TEMPORARY: os.EX_TEMPFAIL,
    PullResult.UNAVAILABLE: os.EX_UNAVAILABLE,
    PullResult.REFUSED: os.EX_UNAVAILABLE,
    PullResult.DENIED: os.EX_NOPERM,
}
# Of several the one that somebody must do most about.
_GRAVEST_FIRST: Final = (os.EX_CONFIG, os.EX_NOPERM, os.EX_UNAVAILABLE, os.EX_TEMPFAIL)


class Failed(click.ClickException):
    """The command ends with one sentence and a status of sysexits."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.exit_code = status  # type: ignore[misc] # click reads it of the instance


def leave_with(results: Iterable[PullResult]) -> NoReturn:
    """End with the status that these come to together."""
    statuses = {STATUS.get(result, 0) for result in results}
    sys.exit(next((status for status in _GRAVEST_FIRST if status in statuses), 0))


def run(work: Callable[[Any], Awaitable[_T]]) -> _T:
    """Run `work`, a coroutine function that is given the reactor, to its end; raises what it raises.

    Once in a process: a reactor cannot be started again. An interrupt from the keyboard ends the process with 130.
    """
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.python.failure import Failure

    outcome: list[_T | Failure] = []
    interrupted: list[bool] = []

    def note() -> None:
        # When the reactor stops it ends the connections, and what waits for them fails.
        interrupted.extend([True] if not outcome else [])

    async def hold(reactor: Any) -> None:  # noqa: ANN401 - the reactor has many interfaces at once
        try:
            outcome.append(await work(reactor))
        except Exception:  # noqa: BLE001 - raised again when the reactor has stopped
            outcome.append(Failure())  # type: ignore[no-untyped-call]

    def begin(running: Any) -> Deferred[None]:  # noqa: ANN401 - as there
        running.addSystemEventTrigger("before", "shutdown", note)
        return Deferred.fromCoroutine(hold(running))

    with suppress(SystemExit):
        react(begin, _reactor=reactor)
    if interrupted or not outcome:
        sys.exit(130)
    end = outcome[0]
    if isinstance(end, Failure):
        end.raiseException()
    return end
