"""A listener as a service: one endpoint, one factory.

The port is bound in `privilegedStartService`, before twistd drops root. Everything that goes wrong with it is a
`ListenError` of one sentence.

Endpoints are Twisted's strings: `tcp:25:interface=192.0.2.1`, `tcp6:25`, `unix:/run/mail.sock:mode=660`,
`systemd:domain=INET:name=smtp`. Those that bring a TLS of their own, or another address for the peer, are refused:
sessions would not know of the one, and limits and trust would be granted to a proxy instead of its clients.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsuite.net.addresses import peer_of
from mailsuite.net.factory import ConnectionFactory

_log = Logger()

_REFUSED_KINDS: Final = {
    "ssl": "write tcp: and switch implicit TLS on for the listener",
    "tls": "write tcp: and switch implicit TLS on for the listener",
    "haproxy": "the PROXY protocol is not supported",
}
_CURES: Final = {
    errno.EADDRINUSE: "another program has it; stop that one (`ss -ltnp` names it) or take another port",
    errno.EACCES: "ports below 1024 are for root; start as root and drop it with --uid, or let systemd open the port",
    errno.EPERM: "ports below 1024 are for root; start as root and drop it with --uid, or let systemd open the port",
    errno.EADDRNOTAVAIL: "this machine has no such address; see what stands behind interface=",
    errno.ENOENT: "make the directory of the socket first",
}


class ListenError(OSError):
    """A listener cannot be opened; one sentence names the endpoint, the reason and what helps."""


class NotHandedOver(ListenError):
    """An endpoint names a socket that systemd should have opened for this process, and has not."""


def parse_endpoint(reactor: object, endpoint: str) -> IStreamServerEndpoint:
    """The endpoint that a string describes. Raises `ListenError`."""
    kind = endpoint.partition(":")[0]
    if kind in _REFUSED_KINDS:
        raise ListenError(f"cannot listen on {endpoint!r}: {_REFUSED_KINDS[kind]}")
    try:
        parsed: IStreamServerEndpoint = serverFromString(reactor, endpoint)  # type: ignore[no-untyped-call]
    except LookupError:
        raise NotHandedOver(
            f"systemd has not handed over the socket of {endpoint!r}: let it start us by its socket unit, and see that "
            "this has as many ListenStream= lines"
        ) from None
    except Exception as error:  # noqa: BLE001 - its parsers raise whatever int() and their signatures raise
        raise ListenError(
            f"{endpoint!r} does not describe a listener ({error}); write for example 'tcp:25' or "
            "'tcp:2525:interface=127.0.0.1'"
        ) from None
    return parsed


def _in_short(address: IAddress) -> str:
    """An address as people write it."""
    name = getattr(address, "name", None)
    return os.fsdecode(name) if name else str(peer_of(address))


class Listener(Service):
    """Listens on `endpoint`, and serves by `factory` from `startService` on.

    When it stops, connections are told so and have `grace` seconds to end. Raises `ListenError` where it is made, or
    started.
    """

    def __init__(self, reactor: object, endpoint: str, factory: ConnectionFactory, *, grace: float = 10.0) -> None:
        self._description = endpoint
        self._endpoint = parse_endpoint(reactor, endpoint)
        self._grace = grace
        self._port: IListeningPort | None = None
        self._opening: Deferred[None] | None = None
        self.factory = factory

    @property
    def address(self) -> IAddress | None:
        """Where it listens; None while it does not."""
        return None if self._port is None else self._port.getHost()

    def privilegedStartService(self) -> None:
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        failed: list[Failure] = []
        self._opening = maybeDeferred(self._endpoint.listen, self.factory).addCallbacks(self._opened, failed.append)
        if failed:
            raise self._in_words(failed[0].value) from None
        # An endpoint that takes its time has nobody left to tell but the log.
        self._opening.addErrback(self._log_failure)

    def startService(self) -> None:
        if self._opening is None:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        self._accept(on=True)

    async def _stop(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        port, self._port = self._port, None
        if port is not None:
            try:
                await maybeDeferred(port.stopListening)
            except OSError as error:  # it is closed, but the socket that root made is not for us to remove
                _log.info("{endpoint}: {error}", endpoint=self._description, error=error.strerror or error)
        await self.factory.close(self._grace)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    def _opened(self, port: IListeningPort) -> None:
        self._port = port
        self._accept(on=bool(self.running))
        _log.info("listening on {place}", place=_in_short(port.getHost()))

    def _accept(self, *, on: bool) -> None:
        """Whoever connects between the opening of the port and the start of the service waits for the greeting."""
        switch = getattr(self._port, "startReading" if on else "stopReading", None)
        if switch is not None:
            switch()

    def _log_failure(self, failure: Failure) -> None:
        _log.error("{error}", error=self._in_words(failure.value))

    def _in_words(self, error: BaseException | None) -> ListenError:
        cause: object = error.socketError if isinstance(error, CannotListenError) else error
        number = cause.errno if isinstance(cause, OSError) else None
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        if "lock" in reason and number is None:  # what Twisted says of a Unix socket that is in use
            number, reason = errno.EADDRINUSE, "the socket is in use"
        cure = _CURES.get(number or 0, "see whether port, interface and path are right")
        return ListenError(f"cannot listen on {self._description!r}: {reason.lower()}: {cure}")
