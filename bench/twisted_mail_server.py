"""A durable mail server in the manner of `twisted.mail.smtp`: what mailsuite has to be worth against.

`python -m bench.twisted_mail_server PORT ROOT USER...`: mail for each user, in any domain, goes into the
maildir ROOT/USER before the 250: written in tmp, synced, renamed into new, directory synced. The disk is
left to the thread pool, so sessions sync side by side; on the reactor's thread it is slower.
"""

# mypy: allow-untyped-calls
# (twisted.mail has few types)

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet import defer, reactor, threads
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.mail import smtp
from zope.interface import implementer

_serial = iter(range(sys.maxsize))


def deliver(maildir: Path, content: bytes) -> None:
    """Put a message into a maildir; when this returns it is on stable storage."""
    name = f"{next(_serial)}.{os.getpid()}.bench"
    draft, place = maildir / "tmp" / name, maildir / "new"
    with draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(place / name)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@implementer(smtp.IMessage)
class Message:
    """The content for one recipient."""

    def __init__(self, maildir: Path, trace: bytes) -> None:
        self._maildir = maildir
        self._lines = [trace]

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> defer.Deferred[None]:
        content = b"\n".join([*self._lines, b""])
        return threads.deferToThread(deliver, self._maildir, content)

    def connectionLost(self) -> None:
        self._lines.clear()


@implementer(smtp.IMessageDelivery)
class Delivery:
    """Which senders and recipients are taken: every one, and those who have a maildir."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def receivedHeader(self, helo: tuple[bytes, bytes], origin: object, recipients: object) -> bytes:
        return b"Received: from %s by bench.test; %s" % (helo[0], smtp.rfc822date())

    def validateFrom(self, helo: tuple[bytes, bytes], origin: smtp.Address) -> smtp.Address:
        return origin

    def validateTo(self, user: smtp.User) -> Callable[[], Message]:
        maildir = self._root / user.dest.local.decode("ascii", "replace").replace("/", "_")
        if not maildir.is_dir():
            raise smtp.SMTPBadRcpt(user)
        return lambda: Message(maildir, b"Delivered-To: " + bytes(user.dest))


class Factory(smtp.SMTPFactory):
    """Connections that share one `Delivery`."""

    protocol = smtp.ESMTP

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._delivery = Delivery(root)

    def buildProtocol(self, address: IAddress | None) -> Protocol | None:
        session: smtp.ESMTP | None = super().buildProtocol(address)
        if session is not None:
            session.delivery = self._delivery
        return session


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    port, root, *users = arguments
    for user in users:
        for part in ("tmp", "new", "cur"):
            Path(root, user, part).mkdir(parents=True, exist_ok=True)
    reactor.listenTCP(int(port), Factory(Path(root)), backlog=512, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
