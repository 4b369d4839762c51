"""The server of `twisted_mail`: a command with PORT CHAIN KEY DIRECTORY USER PASSWORD MECHANISM...

Each message goes into a file of the directory, behind a line with its envelope.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import CramMD5Credentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, succeed
from twisted.mail import smtp
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from zope.interface import implementer

from tests.peers.process import LOOPBACK

_MECHANISMS = {"CRAM-MD5": CramMD5Credentials, "LOGIN": LOGINCredentials, "PLAIN": PLAINCredentials}


@implementer(smtp.IMessage)
class _Message:
    def __init__(self, path: Path, envelope: bytes) -> None:
        self._path = path
        self._lines = [envelope]

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        self._path.write_bytes(b"\n".join([*self._lines, b""]))
        return succeed(None)

    def connectionLost(self) -> None:
        self._lines.clear()


@implementer(IRealm, smtp.IMessageDelivery)
class _House:
    """Who has logged in may send, from any address to any other."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def requestAvatar(self, name: bytes, _mind: object, *_interfaces: object) -> tuple[object, object, object]:
        return smtp.IMessageDelivery, self, lambda: None

    def receivedHeader(self, helo: tuple[bytes, bytes], _origin: object, _recipients: object) -> bytes:
        return b"Received: from " + helo[0]

    def validateFrom(self, _helo: tuple[bytes, bytes], origin: smtp.Address) -> smtp.Address:
        return origin

    def validateTo(self, user: smtp.User) -> Callable[[], _Message]:
        self._count += 1
        envelope = b"X-Envelope: %b %b" % (bytes(user.orig), bytes(user.dest))
        return lambda: _Message(self._directory / str(self._count), envelope)


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    port, chain, key, directory, user, password, *mechanisms = arguments
    checker = InMemoryUsernamePasswordDatabaseDontUse(**{user: password.encode()})
    factory = smtp.SMTPFactory(Portal(_House(Path(directory)), [checker]))
    context = ssl.DefaultOpenSSLContextFactory(key, chain)
    challengers = {name.encode(): _MECHANISMS[name] for name in mechanisms}
    factory.protocol = lambda: smtp.ESMTP(challengers, context)
    reactor.listenTCP(int(port), factory, interface=LOOPBACK)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
