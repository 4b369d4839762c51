"""Finding out that a line is dead: whoever was at its other end has gone without a word.

A modem that lost its carrier, an address that changed, a machine without power: no FIN comes, and a session that has
nothing to say would wait for as long as its patience lasts, with whatever it holds. So the system asks the peer for a
sign of life while a line is silent, and gives up sending what nobody acknowledges.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

_PROBES: Final = 4


def watch(transport: Any, seconds: float) -> None:  # noqa: ANN401 - any of Twisted's transports
    """Have a TCP connection end when its peer has been silent to the system's questions for so many seconds.

    Does nothing for other transports, and what a system cannot do is left out.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, socket.socket) or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Half of the time in silence before the first question, the other half for answers.
    idle = max(int(seconds / 2), 1)
    interval = max(int(seconds / 2 / _PROBES), 1)
    with suppress(OSError, AttributeError):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        # RFC 5482: the same for octets that are on their way.
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
