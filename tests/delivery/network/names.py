"""A DNS server of twisted.names' on a real socket, whose names can be broken one by one.

A message of the DNS has 64 KiB at most: there are no more than some three thousand MX records in the longest one.
"""

from twisted.names import dns
from twisted.names.server import DNSServerFactory

MANNERS = ("servfail", "refused", "silence", "slow", "garbage", "spoofed", "other names", "wrong kind")
SLOW = 25.0  # seconds; whoever asked has asked again by then, and given up
_MOST_BY_UDP = 512


class Names(DNSServerFactory):
    """`zone` is a dictionary from names to lists of records; `broken` from names to what is wrong with them.

    A name that stands nowhere does not exist.
    """

    def __init__(self, reactor):
        super().__init__()
        self.reactor = reactor
        self.zone = {}
        self.broken = {}
        self.asked = []
        self.noisy = False
        self._datagrams = dns.DNSDatagramProtocol(self, reactor=reactor)
        self._tcp = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port = self._tcp.getHost().port
        self._udp = reactor.listenUDP(self.port, self._datagrams, interface="127.0.0.1", maxPacketSize=65535)

    def buildProtocol(self, addr):
        protocol = dns.DNSProtocol(self, reactor=self.reactor)
        protocol.factory = self
        return protocol

    def stop(self):
        self._tcp.stopListening()
        self._udp.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()

    def mx(self, domain, *hosts, ttl=300):
        """Hosts of a domain in their order: names, which get the addresses that stand behind them."""
        self.zone[domain] = []
        for preference, (host, address) in enumerate(hosts):
            self.zone[domain].append(dns.RRHeader(domain, dns.MX, ttl=ttl, payload=dns.Record_MX(preference, host)))
            if address is not None:
                self.zone[host] = [dns.RRHeader(host, dns.A, ttl=ttl, payload=dns.Record_A(address))]

    # --------------------------------------------------------------------------------------------- answers

    def handleQuery(self, message, protocol, address):
        name = message.queries[0].name.name.decode().lower()
        self.asked.append(name)
        manner = self.broken.get(name)
        if manner is None:
            self._answer(message, protocol, address, name)
        elif manner == "slow":
            self.reactor.callLater(SLOW, self._answer, message, protocol, address, name)
        elif manner != "silence":
            self._go_wrong(message, protocol, address, name, manner)

    def _answer(self, message, protocol, address, name, *, identity=None, rcode=dns.OK, answers=None):
        kind = message.queries[0].type
        if answers is None:
            answers = [record for record in self.zone.get(name, ()) if record.type in (kind, dns.CNAME)]
            rcode = rcode if rcode or name in self.zone else dns.ENAME
        response = self._responseFromMessage(message, rCode=rcode, answers=answers)
        if identity is not None:
            response.id = identity
        if address is not None and len(response.toStr()) > _MOST_BY_UDP:
            response.trunc, response.answers = 1, []
        if protocol.transport is not None:
            self.sendReply(protocol, response, address)

    def _go_wrong(self, message, protocol, address, name, manner):
        if manner in ("servfail", "refused"):
            code = dns.ESERVER if manner == "servfail" else dns.EREFUSED
            self._answer(message, protocol, address, name, rcode=code, answers=[])
        elif manner == "spoofed":
            self._answer(message, protocol, address, name, identity=message.id ^ 1)
        elif manner == "other names":
            lie = dns.RRHeader("somebody.else.test", dns.MX, ttl=300, payload=dns.Record_MX(0, "thief.test"))
            self._answer(message, protocol, address, name, answers=[lie])
        elif manner == "wrong kind":
            lie = dns.RRHeader(name, dns.TXT, ttl=300, payload=dns.Record_TXT(b"\xff" * 200))
            self._answer(message, protocol, address, name, answers=[lie])
        elif manner == "garbage":
            self._write(protocol, address, message.id.to_bytes(2, "big") + b"\x81\x80" + b"\xff" * 40)

    def _write(self, protocol, address, octets):
        if address is not None:
            protocol.transport.write(octets, address)
        else:
            protocol.transport.write(len(octets).to_bytes(2, "big") + octets)
