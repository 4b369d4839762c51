"""Keeping up with the directory's file: asked each second, in a thread, whether it has changed.

While the file cannot be read what was read last goes on answering, and the operator is told once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailsuite.accounts.reader import DirectoryReader
from mailsuite.accounts.threads import InThread
from mailsuite.interfaces import DirectoryUnavailable

_log = Logger()


class Polling(Service):
    """A service that calls `_read` in a thread, every `interval` seconds and for each `refresh`; one at a time.

    What it returns is given to `_take`, unless it is None. `_read` raises `DirectoryUnavailable` for what passes.
    `effect` tells what it means that nothing has been read yet.
    """

    def __init__(
        self, reader: DirectoryReader, clock: IReactorTime, in_thread: InThread, interval: float, effect: str
    ) -> None:
        self._reader = reader
        self._in_thread = in_thread
        self._interval = interval
        self._effect = effect
        self._lock = DeferredLock()
        self._polling = LoopingCall(lambda: Deferred.fromCoroutine(self._poll()))
        self._polling.clock = clock
        self._prepared = False
        self._has_read = False
        self._complaint: str | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        # The Deferred that LoopingCall gives fires when it is stopped; _poll never fails.
        self._polling.start(self._interval)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._polling.running:
            self._polling.stop()
        return Deferred.fromCoroutine(self._close())

    async def refresh(self) -> None:
        """Take over what the file says now; where there is no file at the first time, make one without a domain.

        Raises `DirectoryUnavailable`.
        """
        news = await self._locked(self._prepare_and_read)
        if news is not None:
            self._has_read = True
            self._take(news)

    @abstractmethod
    def _read(self) -> Any:  # noqa: ANN401 - the subclass's own, and given back to it
        """What is new, or None. Blocks."""

    @abstractmethod
    def _take(self, news: Any) -> None:  # noqa: ANN401
        """Put it in force."""

    def _prepare_and_read(self) -> object:
        if not self._prepared:
            self._reader.prepare()
            self._prepared = True
        return self._read()

    async def _close(self) -> None:
        await self._locked(self._reader.close)

    async def _locked(self, work: Callable[[], Any]) -> object:
        await self._lock.acquire()
        try:
            return await self._in_thread(work)
        finally:
            self._lock.release()

    async def _poll(self) -> None:
        try:
            await self.refresh()
        except DirectoryUnavailable as error:
            if str(error) != self._complaint:
                effect = "what was read last stays in force" if self._has_read else self._effect
                _log.error("{reason}; {effect}", reason=error, effect=effect)
            self._complaint = str(error)
        except Exception:  # noqa: BLE001 - logged; the next poll tries anew
            _log.failure("the directory of accounts could not be read")
        else:
            if self._complaint is not None:
                _log.info("{path} can be read again", path=self._reader.path)
            self._complaint = None
