"""A command's end of the control socket.

Before each call the server is asked whether it is there, and must answer within some seconds; the call itself may take
as long as its work does.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.protocols import amp

from mailsuite.admin.control.language import (
    Ended,
    Manage,
    NetworkUp,
    Ping,
    Progressed,
    Pull,
    Status,
    selection_text,
)
from mailsuite.admin.control.place import NAME, ControlError, NotAnswering, NotRunning, short_path
from mailsuite.mail.selection import Managed, QueueAction, Selection
from mailsuite.session.pulling import PullEnd, PullProgress, PullResult, PullStage

_ANSWER_TIME: Final = 10.0  # seconds


class ControlClient(amp.AMP):
    """A command's end. `progress` and `ended` are told of each pull by its name.

    `answer_time` is how many seconds a server has to answer at all; `ControlError` is raised of one that does not.
    """

    def __init__(
        self,
        *,
        progress: Callable[[str, PullProgress], object] | None = None,
        ended: Callable[[str, PullEnd], object] | None = None,
        answer_time: float = _ANSWER_TIME,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._progress = progress
        self._ended = ended
        self._answer_time = answer_time
        self.clock: Any = None  # IReactorTime, set by `connect`

    async def ping(self) -> tuple[str, int]:
        """The version of the server, and its process id. Raises `ControlError`."""
        answer = await self._call(Ping)
        return answer["version"], answer["pid"]

    async def pull(self, names: Sequence[str], *, dry_run: bool = False) -> None:
        """Pull now, all where no name is given. Raises `UnknownPull`, `ControlError`."""
        await self._call(Pull, names=list(names), dry_run=dry_run)

    async def network_up(self) -> list[str]:
        """Begin all pulls; tells their names. Raises `ControlError`."""
        answer = await self._call(NetworkUp)
        names: list[str] = answer["names"]
        return names

    async def manage(self, action: QueueAction, selection: Selection, *, by: str) -> Managed:
        """Do something with what is queued. Raises `SpoolError`, `ControlError`."""
        answer = await self._call(Manage, action=action.value, selection=selection_text(selection), by=by)
        return Managed(**answer)

    async def status(self) -> list[dict[str, Any]]:
        """How the scheduler stands with its destinations: the keys are those of `DestinationStatus`.

        Raises `ControlError`.
        """
        answer = await self._call(Status)
        found: list[dict[str, Any]] = json.loads(answer["destinations"])
        return found

    async def leave(self) -> None:
        """End the connection."""
        if self.transport is not None:
            self.transport.loseConnection()

    @Progressed.responder
    def progressed(self, name: str, stage: str, messages: int, octets: int) -> dict[str, Any]:
        if self._progress is not None:
            self._progress(name, PullProgress(PullStage(stage), messages, octets))
        return {}

    @Ended.responder
    def has_ended(self, name: str, stage: str, result: str, text: str, **counts: Any) -> dict[str, Any]:
        if self._ended is not None:
            self._ended(name, PullEnd(PullStage(stage), PullResult(result), text, **counts))
        return {}

    async def _call(self, command: type[amp.Command], **arguments: Any) -> dict[str, Any]:
        try:
            await self._answers()
            answer: dict[str, Any] = await self.callRemote(command, **arguments)  # type: ignore[no-untyped-call]
        except ConnectionClosed:
            raise ControlError("the server has ended the connection before it had answered; see its log") from None
        except (amp.UnknownRemoteError, amp.UnhandledCommand) as error:
            raise ControlError(f"the server could not do it ({error}); see its log") from None
        return answer

    async def _answers(self) -> None:
        """See that somebody is there. Raises `NotAnswering`."""
        answer = self.callRemote(Ping)  # type: ignore[no-untyped-call]
        try:
            await answer.addTimeout(self._answer_time, self.clock)
        except DeferredTimeoutError:
            transport: Any = self.transport
            transport.abortConnection()
            raise NotAnswering(
                f"the server is there, but has not answered for {self._answer_time:g} seconds; see its log, and "
                "whether its process is stopped or busy"
            ) from None


async def connect(reactor: Any, directory: Path, client: ControlClient) -> None:  # noqa: ANN401 - IReactorUNIX
    """Reach the server over this data directory. Raises `NotRunning`; `ControlError` where it may not be reached."""
    path = directory / NAME
    client.clock = reactor
    try:
        with short_path(path) as short:
            endpoint: Any = UNIXClientEndpoint(reactor, short)  # type: ignore[no-untyped-call]
            await connectProtocol(endpoint, client)  # type: ignore[no-untyped-call]
    except (ConnectError, OSError) as error:
        number = getattr(error, "osError", None) or getattr(error, "errno", None)
        if number in (errno.EACCES, errno.EPERM):
            raise ControlError(
                f"{path}: it is not for you; run the command as the user who serves, or as root"
            ) from None
        if number == errno.EAGAIN:  # so many wait to be answered
            raise NotAnswering(f"the server over {directory} is there, but answers nobody; see its log") from None
        raise NotRunning(f"no server is running over {directory}; start it, or name its configuration") from None
