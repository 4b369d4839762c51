"""A network in memory, in simulated time: next hops by address, each of which goes wrong in its own way.

`Network` is a clock and a reactor that connects. An address that nobody has is silent. A server is told how to go wrong
by a `Fault`: at a stage, in a manner.
"""

from dataclasses import dataclass, field

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

STAGES = ("greeting", "hello", "mail", "rcpt", "data", "content", "quit")
MANNERS = ("hang", "close", "reset", "garbage", "endless line", "endless reply", "trickle")


@dataclass(frozen=True)
class Fault:
    """What goes wrong: `manner` is a word that `Line.go_wrong` knows, "hang", or octets that are said there."""

    stage: str
    manner: str | bytes


@dataclass
class Server:
    """An SMTP server that takes everything, but for its fault. `replies` maps stages to what is said there."""

    fault: Fault | None = None
    offer: tuple[str, ...] = ()
    replies: dict[str, bytes] = field(default_factory=dict)
    accepted: list[bytes] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    connections: list["Line"] = field(default_factory=list)
    refuses: bool = False

    @property
    def open(self):
        return [line for line in self.connections if line.is_open]

    def reply(self, stage):
        said = {
            "greeting": b"220 mx.test ESMTP\r\n",
            "hello": b"".join(b"250-%s\r\n" % word.encode() for word in ("mx.test", *self.offer)) + b"250 HELP\r\n",
            "data": b"354 go on\r\n",
            "quit": b"221 bye\r\n",
        }
        return self.replies.get(stage, said.get(stage, b"250 2.0.0 ok\r\n"))


class Talk:
    """What a server does on one connection. Whoever has that says `begun` and `heard`, and can `say` and `end`."""

    _verbs = {b"EHLO": "hello", b"HELO": "hello", b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data", b"QUIT": "quit"}  # noqa: RUF012
    most = 4 * 1024 * 1024
    is_writable = True  # there is somebody who reads

    def __init__(self, clock, server):
        self.clock = clock
        self.server = server
        self.is_open = True
        self.said = 0
        self.content = None
        self.buffer = b""
        self.stuck = False

    def begun(self):
        self.server.connections.append(self)
        self.clock.callLater(0, self.at, "greeting")

    def heard(self, data):
        self.buffer += data
        self.clock.callLater(0, self.look)

    def look(self):
        while self.is_open and not self.stuck:
            if self.content is not None:
                content, end, rest = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
                if self.fault_at("content") and self.buffer:
                    self.go_wrong()
                    return
                if not end:
                    return
                self.content, self.buffer = None, rest
                self.server.accepted.append(content[2:])
                self.at("end")
            else:
                line, end, rest = self.buffer.partition(b"\r\n")
                if not end:
                    return
                if line.startswith(b"BDAT"):
                    size = int(line.split()[1])
                    if self.fault_at("data") or self.fault_at("content"):
                        self.go_wrong()
                        return
                    if len(rest) < size:
                        return
                    self.server.accepted.append(rest[:size])
                    self.buffer = rest[size:]
                    self.at("end")
                    continue
                self.buffer = rest
                self.at(self._verbs.get(line[:4].upper(), "other"))

    def fault_at(self, stage):
        fault = self.server.fault
        return fault is not None and fault.stage == stage

    def at(self, stage):
        if not self.is_open or self.stuck:
            return
        self.server.seen.append(stage)
        if self.fault_at(stage):
            self.go_wrong()
            return
        if stage == "data":
            self.content = b""
        self.say(self.server.reply(stage))
        if stage == "quit":
            self.clock.callLater(0, self.end)

    def go_wrong(self):
        self.stuck = True
        manner = self.server.fault.manner
        if manner == "close":
            self.end()
        elif manner == "reset":
            self.end(error.ConnectionLost())
        elif manner == "answer, reset":
            self.say(self.server.reply(self.server.fault.stage))
            self.end(error.ConnectionLost())
        elif manner == "garbage":
            self.say(b"\xff\xfe\x00\x80 \x1b[2J\r\n" * 3)
        elif manner == "endless line":
            self.go_on_saying(b"250 " + b"x" * 8192)
        elif manner == "endless reply":
            self.go_on_saying(b"250-" + b"y" * 60 + b"\r\n")
        elif manner == "trickle":
            self.trickle()
        elif isinstance(manner, bytes):
            self.stuck = False
            self.say(manner)

    def go_on_saying(self, data):
        if self.is_open and self.said < self.most:
            is_writable = self.is_writable
            if is_writable:
                self.say(data * max(1, 8192 // len(data)))
            self.clock.callLater(0.001 if is_writable else 1.0, self.go_on_saying, data)

    def trickle(self):
        if self.is_open:
            self.say(b"2")
            self.clock.callLater(30, self.trickle)


class Line(Talk, StringTransport):
    """One connection in memory, from the server's side; for the client it is the transport."""

    def __init__(self, network, server, host, port, local):
        address = IPv6Address if ":" in host else IPv4Address
        StringTransport.__init__(
            self,
            hostAddress=address("TCP", local, 40000),
            peerAddress=address("TCP", host, port),
            lenient=True,
        )
        Talk.__init__(self, network, server)

    def begin(self, protocol):
        self.protocol = protocol
        protocol.makeConnection(self)
        self.begun()

    # What the client calls.

    def write(self, data):
        self.heard(data)

    def writeSequence(self, data):
        self.write(b"".join(data))

    def loseConnection(self):
        self.clock.callLater(0, self.end)

    abortConnection = loseConnection

    # What the server does.

    @property
    def is_writable(self):
        return self.producerState == "producing"

    def say(self, data):
        if self.is_open:
            self.said += len(data)
            self.protocol.dataReceived(data)

    def end(self, reason=None):
        if self.is_open:
            self.is_open = self.connected = False
            self.protocol.connectionLost(Failure(reason or error.ConnectionDone()))


@implementer(IReactorTCP)
class Network(Clock):
    """Connects to servers by address; `dialled` is who was, and when."""

    def __init__(self, servers=None):
        super().__init__()
        self.servers = dict(servers or {})
        self.dialled = []
        self.latency = {}

    def connectTCP(self, host, port, factory, timeout=30, bindAddress=None):
        self.dialled.append((host, self.seconds()))
        connector = Connector(self, factory)
        server = self.servers.get(host)
        if server is None:
            connector.call = self.callLater(timeout, connector.fail, error.TimeoutError())
        elif server.refuses:
            connector.call = self.callLater(0.001, connector.fail, error.ConnectionRefusedError())
        else:
            local = bindAddress[0] if bindAddress else ("2001:db8::1" if ":" in host else "192.0.2.1")
            line = Line(self, server, host, port, local)
            connector.call = self.callLater(self.latency.get(host, 0.001), connector.succeed, line)
        return connector

    def listenTCP(self, *_args, **_options):
        raise AssertionError("nobody listens here")

    def run(self, seconds):
        """Let time pass, from call to call."""
        end = self.seconds() + seconds
        while self.calls and self.calls[0].getTime() <= end:
            self.rightNow = max(self.rightNow, self.calls[0].getTime())  # no sums, which would be off by a little
            self.advance(0)
        self.rightNow = end


class Connector:
    def __init__(self, network, factory):
        self.network = network
        self.factory = factory
        self.call = None
        self.line = None
        factory.doStart()

    def succeed(self, line):
        protocol = self.factory.buildProtocol(line.getPeer())
        if protocol is not None:
            self.line = line
            line.begin(protocol)

    def fail(self, why):
        self.factory.clientConnectionFailed(self, Failure(why))

    def disconnect(self):
        if self.call.active():
            self.call.cancel()
            self.fail(error.UserError())
        elif self.line is not None:
            self.line.loseConnection()

    stopConnecting = disconnect
