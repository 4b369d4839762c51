"""Logins that were refused, as the operator is told of them: who it was, in the log and in a customer's history.

Rules: a name goes to the log only where an account or a customer has it, as the directory writes it: people type their
password in the place of their name. A customer's history has at most one refusal in a minute, with how many `times`
there were since the one before.

Nobody waits for any of it, the peer least of all: a name that exists must not take longer to be refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.interfaces import DirectoryUnavailable, ISpool, SpoolError
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.session import Identity, RefusedLogin

_log = Logger()

_EVERY: Final = 60.0  # seconds
_LONGEST: Final = 128  # characters of a name

Finds = Callable[..., Awaitable[Identity | None]]


class Refusals:
    """A callable that takes each `RefusedLogin`. `find` is `Authenticator.find`."""

    def __init__(self, find: Finds, spool: ISpool, clock: IReactorTime) -> None:
        self._find = find
        self._spool = spool
        self._clock = clock
        self._noted: dict[str, float] = {}  # by customer, when it was last written down; of existing ones only
        self._times: dict[str, int] = {}

    def __call__(self, refused: RefusedLogin) -> Deferred[None]:
        telling = Deferred.fromCoroutine(self._tell(refused))
        return telling.addErrback(lambda failure: _log.failure("a refused login cannot be told", failure))

    async def _tell(self, refused: RefusedLogin) -> None:
        try:
            identity = await self._find(refused.login, external=refused.external)
        except DirectoryUnavailable:
            identity = None
        _log.info(
            "authentication failed for {name} from {host} by {mechanism}: {said}",
            name="an unknown name" if identity is None else identity.name[:_LONGEST],
            host=refused.host or "a local socket",
            mechanism=refused.mechanism,
            said=f"{refused.code}, {refused.reason}" if refused.reason else str(refused.code),
        )
        if identity is not None and identity.customer is not None:
            await self._write(identity.customer, refused)

    async def _write(self, customer: str, refused: RefusedLogin) -> None:
        now = self._clock.seconds()
        times = self._times[customer] = self._times.get(customer, 0) + 1
        if now < self._noted.get(customer, float("-inf")) + _EVERY:
            return
        self._noted[customer] = now
        del self._times[customer]
        detail: dict[str, str | int] = {
            "address": refused.host,
            "mechanism": refused.mechanism,
            "code": refused.code,
            "times": times,
            "text": refused.reason or "wrong name or password",
        }
        try:
            await self._spool.record([Event(now, EventKind.LOGIN_REFUSED, customer, detail=detail)])
        except SpoolError as error:
            _log.error("the refused login of {name} is not written down: {error}", name=customer, error=str(error))
