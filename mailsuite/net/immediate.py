"""Sending at once: the socket is tried right when something is written, and only the rest is left to the reactor.

Twisted's own `write` queues and waits for the reactor to say that the socket is writable, which costs two calls of
epoll and a turn of the loop for each write. A mail server writes small replies to sockets that are nearly always
writable.

Rules: order is never changed (nothing overtakes what is queued already), and nothing goes out below a TLS layer.
Whatever is in doubt is left to `transport.write`. Known limit: it looks at attributes of Twisted's transports that are
not public; where one is missing, that is doubt too.
"""

from __future__ import annotations

from typing import Final

from twisted.internet import tcp
from twisted.internet.interfaces import ITransport

# Exactly these: a subclass (a Unix socket, an older TLS transport) may send in its own way.
_PLAIN_TCP: Final = frozenset({tcp.Server, tcp.Client})


def send_now(transport: ITransport, data: bytes) -> None:
    """Write `data`, as much of it at once as the socket takes.

    For all but a plain TCP connection of Twisted's own this is `transport.write(data)`.
    """
    if isinstance(transport, tcp.Connection) and type(transport) in _PLAIN_TCP and _may_send(transport):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            if sent == len(data):
                return
            data = data[sent:]
        # Otherwise the connection is lost; the reactor sees the same when it writes, and says so in its own time.
    transport.write(data)


def _may_send(transport: tcp.Connection) -> bool:
    """Whether the socket is ours alone now: in plaintext, open, with nothing queued before us."""
    try:
        return bool(
            not transport.TLS
            and transport.connected
            and not transport.disconnecting
            and not transport.disconnected
            and not transport.dataBuffer
            and not transport._tempDataLen  # noqa: SLF001 - see the head of this module
            and not transport._writeDisconnecting  # noqa: SLF001
            and not transport._writeDisconnected  # noqa: SLF001
            and not transport._aborting  # noqa: SLF001
        )
    except AttributeError:
        return False
