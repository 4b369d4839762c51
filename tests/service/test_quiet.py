"""The noise of Twisted's sockets is left out of a log, and nothing else."""

from io import StringIO

import pytest
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.logger import (
    LegacyLogObserverWrapper,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.protocols import amp
from twisted.python import log
from twisted.python.failure import Failure

from mailsuite.service.quiet import is_noise, silence_twisted


@pytest.fixture
def logged():
    """What is written to a log file, and what syslog would be given."""
    publisher, file, syslog = LogPublisher(), StringIO(), []
    silence_twisted(publisher)
    silence_twisted(publisher)  # once is enough
    publisher.addObserver(textFileLogObserver(file))
    publisher.addObserver(LegacyLogObserverWrapper(lambda event: syslog.append(log.textFromEventDict(event))))
    globalLogPublisher.addObserver(publisher)
    yield lambda: (file.getvalue(), [text for text in syslog if text is not None])
    globalLogPublisher.removeObserver(publisher)


def test_sockets_that_open_and_close_are_not_logged(reactor, run, logged):
    async def listen() -> None:
        for port in (
            reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1"),
            reactor.listenTCP(0, Factory(), interface="127.0.0.1"),
        ):
            await port.stopListening()

    run(listen())
    text, syslog = logged()
    lines = [line for line in text.splitlines() if "Port" in line or "protocol" in line or "tarting" in line]
    assert (lines, [one for one in syslog if "Port" in one or "starting on" in one]) == ([], [])


def test_everything_else_is(logged):
    Logger("mailsuite.x").info("listening on {place}", place="127.0.0.1:25")
    log.msg("set uid/gid 1000/1000")
    log.err(Failure(ZeroDivisionError()), "Failed to unlink PID file:")
    text, syslog = logged()
    assert "listening on 127.0.0.1:25" in text
    assert "set uid/gid 1000/1000" in text
    assert "ZeroDivisionError" in text
    assert syslog[:2] == ["listening on 127.0.0.1:25", "set uid/gid 1000/1000"]


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("DNSDatagramProtocol starting on 40001", True),
        ("(UDP Port 40001 Closed)", True),
        ("(Port '/run/lmtp.sock' Closed)", True),
        ("Starting protocol <twisted.names.dns.DNSDatagramProtocol object at 0x7f>", True),
        ("mailsuite.net.factory.ConnectionFactory starting on '/run/lmtp.sock'", True),
        ("ConnectionFactory (TLS) starting on 465", True),
        ("Unexpected message (1) received from ('192.0.2.1', 53)", False),
        ("Resolver added ('192.0.2.53', 53) to server list", True),
        ("Starting protocol of the meeting", False),
    ],
)
def test_older_parts_are_known_by_their_words(text, noise):
    event = {"log_level": LogLevel.info, "log_namespace": "log_legacy", "log_text": text}
    assert is_noise(event) is noise
    assert not is_noise(event | {"log_level": LogLevel.warn})


def test_newer_parts_are_known_by_their_names():
    event = {"log_level": LogLevel.info, "log_namespace": amp.__name__, "log_format": "connection established"}
    assert is_noise(event)
    assert not is_noise(event | {"log_level": LogLevel.critical})
    assert not is_noise(event | {"log_namespace": "mailsuite.net.listener"})
