"""SIGHUP: taken where it may be taken, and no terminal is needed for it."""

import signal
import threading

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs

from mailsuite.service.hangup import HangUps


@pytest.fixture(autouse=True)
def handler():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Server:
    def __init__(self, error=None):
        self.read = 0
        self.error = error

    async def again(self):
        self.read += 1
        if self.error is not None:
            raise self.error


class Reactor(MemoryReactorClock):
    def callFromThread(self, function, *arguments):
        self.callLater(0, function, *arguments)


def test_files_are_read_anew():
    server, reactor = Server(), Reactor()
    assert HangUps(reactor, server.again).install()
    signal.raise_signal(signal.SIGHUP)
    assert server.read == 0  # not within the handler
    reactor.advance(0)
    assert server.read == 1


def test_a_defect_is_logged_and_ends_nothing():
    reactor = Reactor()
    HangUps(reactor, Server(ZeroDivisionError()).again).install()
    with capturedLogs() as events:
        signal.raise_signal(signal.SIGHUP)
        reactor.advance(0)
    assert [event["log_format"] for event in events] == ["SIGHUP has met a defect"]


@pytest.mark.parametrize("taken", [signal.SIG_IGN, lambda _number, _frame: None])
def test_a_signal_that_is_somebody_elses_stays_so(taken):
    signal.signal(signal.SIGHUP, taken)
    assert not HangUps(Reactor(), Server().again).install()
    assert signal.getsignal(signal.SIGHUP) is taken


def test_another_thread_takes_nothing():
    told = []
    thread = threading.Thread(target=lambda: told.append(HangUps(Reactor(), Server().again).install()))
    thread.start()
    thread.join()
    assert told == [False]
