"""A server that offers CHECKPOINT, whose lines break: real connections, sessions and cores over a spool in memory."""

from dataclasses import replace
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from mailsuite.mail.route import Destination
from mailsuite.session.checkpoints import Checkpoints
from mailsuite.session.inbound import Door
from mailsuite.spool.memory import MemorySpool
from mailsuite.wire.smtp.offer import Offer
from tests.dialogues.house import FakeRouter, Pace
from tests.net.support import Side
from tests.session.turning import Accounts

HOST = "mx.example.net"
RCPT = b"RCPT TO:<anna@example.net>\r\n"
TEXT = b"Subject: a\r\nTo: anna\r\n\r\n.one\r\n..\r\n.\r\n\r\ntwo.\r\n" + b"x" * 40 + b"\r\n.end\r\n"
MAILBOXES = ("anna@example.net", "bob@example.net", "chris@example.net")


class Server:
    """The server of all connections of one test."""

    def __init__(self, spool: Any = None, *, worth_keeping: int = 1, offer: Offer | None = None, **door: Any) -> None:
        self.clock = Clock()
        self.clock.rightNow = 1_700_000_000.0
        self.pace = Pace()
        self.spool = spool or MemorySpool(self.clock)
        offer = offer or Offer(HOST, mechanisms=(b"PLAIN",), checkpoint=True)
        self.router = FakeRouter(frozenset(MAILBOXES), self.pace)
        self.logged: list[str] = []
        plain = Door(
            HOST,
            offer,
            offer,
            self.router,
            self.spool,
            self.clock.seconds,
            log=self.logged.append,
            authenticator=Accounts(),
            checkpoints=Checkpoints(worth_keeping),
        )
        self.door = replace(plain, **door)

    def connect(self, hello: bytes = b"client.example.org", *, host: str = "192.0.2.1") -> "Client":
        return Client(self, hello, host)

    def messages(self) -> list[Any]:
        """What is in the queue for maildirs, as deliveries."""
        taken: list[Any] = []
        self.spool.claim(Destination("maildir"), 10_000).addCallback(taken.extend)
        return taken

    def contents(self) -> list[bytes]:
        """What was queued, each without our trace line."""
        return [self.without_trace(one.content.in_memory()) for one in self.messages()]

    @staticmethod
    def without_trace(octets: bytes) -> bytes:
        assert octets.startswith(b"Received: from ")
        end = octets.index(b";\r\n\t")
        return octets[octets.index(b"\r\n", end + 4) + 2 :]


class Client:
    """One connection, as its client has it."""

    def __init__(self, server: Server, hello: bytes, host: str) -> None:
        core, session = server.door.open()
        self.server = server
        self.side = Side(session, core, clock=server.clock)
        self.side.conversation.peer = replace(self.side.conversation.peer, host=host)
        self._heard = 0
        self.say(b"EHLO " + hello + b"\r\n")

    def say(self, octets: bytes) -> list[bytes]:
        """The lines that are answered."""
        self.side.receive(octets)
        return self.hear()

    def hear(self) -> list[bytes]:
        """The lines that have come since the last ones."""
        self.server.clock.advance(0)
        sent = self.side.wire.sent[self._heard :]
        self._heard += len(sent)
        return sent.splitlines()

    def begin(self, transid: bytes = b"1@c", sender: bytes = b"fred@example.org", more: bytes = b"") -> bytes:
        """MAIL with a TRANSID, and its answer."""
        [answer] = self.say(b"MAIL FROM:<" + sender + b"> TRANSID=<" + transid + b">" + more + b"\r\n")
        return answer

    def offset(self, transid: bytes = b"1@c") -> int:
        """Where a transaction is resumed; 0 for a new one."""
        answer = self.begin(transid)
        if answer == b"250 2.1.0 Sender OK":
            return 0
        code, offset, *_ = answer.split()
        assert code == b"355"
        return int(offset)

    def lose(self) -> None:
        self.side.lose(ConnectionLost())
        self.server.clock.advance(0)


def stuffed(content: bytes) -> bytes:
    """Content as it goes behind DATA, with its end."""
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def by_data(content: bytes) -> list[bytes]:
    """DATA and its content."""
    return [b"DATA\r\n", stuffed(content)]


def by_chunks(size: int) -> Any:
    def chunks(content: bytes) -> list[bytes]:
        pieces = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
        return [
            b"BDAT %d%s\r\n%s" % (len(piece), b" LAST" if number == len(pieces) else b"", piece)
            for number, piece in enumerate(pieces, 1)
        ]

    return chunks


def say_until(client: Client, parts: list[bytes], octets: int) -> None:
    """Say so many octets of it."""
    for part in parts:
        if octets > 0:
            client.say(part[:octets])
        octets -= len(part)


def finish(client: Client, content: bytes, way: Any = by_data) -> bytes:
    """Say the rest; the last answer."""
    answer = b""
    for part in way(content):
        *_, answer = client.say(part)
    return answer


def broken_off(server: Server, content: bytes = TEXT, said: int | None = None, way: Any = None) -> None:
    """A connection that is lost when the content has been said but for its last octet."""
    client = server.connect()
    assert client.offset() == 0
    client.say(RCPT)
    parts = (way or by_chunks(10_000))(content)
    say_until(client, parts, sum(map(len, parts)) - 1 if said is None else said)
    client.lose()


WAYS = {"data": by_data, "chunk": by_chunks(10_000), "chunks": by_chunks(7)}
