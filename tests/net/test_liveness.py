"""A line that is dead is found out: what the system is asked to do for it."""

import socket

from mailsuite.net import liveness
from tests.net.support import Wire


class Transport:
    def __init__(self, handle):
        self.handle = handle

    def getHandle(self):
        return self.handle


def option(handle, level, name):
    return handle.getsockopt(level, name)


def test_silence_is_questioned_and_what_nobody_acknowledges_is_given_up():
    with socket.socket() as handle:
        liveness.watch(Transport(handle), 120.0)
        assert option(handle, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        asked = option(handle, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        asked += option(handle, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) * option(
            handle, socket.IPPROTO_TCP, socket.TCP_KEEPCNT
        )
        assert asked == 120
        assert option(handle, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000


def test_other_transports_are_left_alone():
    with socket.socket(socket.AF_UNIX) as handle:
        liveness.watch(Transport(handle), 120.0)
        assert option(handle, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    wire = Wire()
    liveness.watch(wire, 120.0)
    assert wire.sent == b""
