"""Next hops on real sockets, each at an address of its own: they take everything, but for the fault of the moment."""

import struct
from socket import SO_LINGER, SOL_SOCKET

from twisted.internet import error
from twisted.internet.protocol import Factory, Protocol

from tests.delivery.agents.network import Server, Talk
from tests.peers.process import free_port


class _Socket(Protocol, Talk):
    def __init__(self, clock, server):
        Talk.__init__(self, clock, server)
        self._paused = False

    def connectionMade(self):
        self.transport.registerProducer(self, True)
        self.begun()

    def dataReceived(self, data):
        self.heard(data)

    def connectionLost(self, reason):
        self.is_open = False

    @property
    def is_writable(self):
        return not self._paused

    def pauseProducing(self):
        self._paused = True

    def resumeProducing(self):
        self._paused = False

    def stopProducing(self):
        self.is_open = False

    def say(self, data):
        if self.is_open:
            self.said += len(data)
            self.transport.write(data)

    def end(self, reason=None):
        if not self.is_open:
            return
        if isinstance(reason, error.ConnectionLost):
            # What was said before has left; then comes a RST.
            self.transport.getHandle().setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.unregisterProducer()
        self.transport.loseConnection()


class _Factory(Factory):
    noisy = False

    def __init__(self, clock, server):
        self.clock = clock
        self.server = server

    def buildProtocol(self, addr):
        return _Socket(self.clock, self.server)


class Hops:
    """Servers on the loopback, which all have the same port: that of MX hosts in this world."""

    def __init__(self, reactor):
        self.reactor = reactor
        self.port = free_port()
        self.by_address = {}
        self._listening = {}
        self._next = 1

    def address(self):
        """An address that nobody has yet."""
        self._next += 1
        return f"127.1.{self._next // 250}.{self._next % 250 + 1}"

    def open(self, server=None, address=None):
        """Begin to serve; return the address."""
        server = server or Server()
        address = address or self.address()
        self.by_address[address] = server
        self._listening[address] = self.reactor.listenTCP(self.port, _Factory(self.reactor, server), interface=address)
        return address

    def close(self, address):
        """Stop listening, as a host that goes off; connections end too."""
        self._listening.pop(address).stopListening()
        for line in self.by_address[address].open:
            line.transport.abortConnection()

    def close_all(self):
        for address in list(self._listening):
            self.close(address)
