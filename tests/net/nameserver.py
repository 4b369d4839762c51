"""A name server on the loopback, of records that a test gives, with faults that a test asks for."""

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.basic import Int16StringReceiver


class NameServer:
    """Answers by `answer(name, kind)`: lines of records, an rcode, octets to send as they are, or None for silence."""

    def __init__(self, reactor):
        self.reactor = reactor
        self.zone = {}
        self.secure = True
        self.truncating = False
        self.asked = []
        self.by_tcp = 0
        self.flags = None
        self.soa = True
        self.edns = ()
        self.repeat = 1

    def start(self):
        self.tcp = self.reactor.listenTCP(0, _factory(self), interface="127.0.0.1")
        port = self.tcp.getHost().port
        self.udp = self.reactor.listenUDP(port, _Udp(self), interface="127.0.0.1")
        return "127.0.0.1", port

    def stop(self):
        self.tcp.stopListening()
        self.udp.stopListening()

    def reply(self, wire, *, stream):
        question = dns.message.from_wire(wire)
        self.flags = question.flags, question.ednsflags
        name, kind = question.question[0].name.to_text(omit_final_dot=True), question.question[0].rdtype.name
        self.asked.append((name, kind))
        found = self.zone.get((name, kind), [])
        if found is None or isinstance(found, bytes):
            return found
        response = dns.message.make_response(question)
        response.flags |= dns.flags.RA
        if self.secure:
            response.flags |= dns.flags.AD
        if isinstance(found, dns.rcode.Rcode):
            response.set_rcode(found)
            response.use_edns(0, options=self.edns)
        else:
            for line in found:
                owner, ttl, rdtype, data = line.split(" ", 3)
                response.answer.append(dns.rrset.from_text(f"{owner}.", int(ttl), "IN", rdtype, data))
            if not found and self.soa:
                response.authority.append(dns.rrset.from_text("example.", 300, "IN", "SOA", "a. b. 1 1 1 1 300"))
        if self.truncating and not stream:
            response.flags |= dns.flags.TC
            response.answer.clear()
        return response.to_wire(max_size=65535)


class _Udp(DatagramProtocol):
    noisy = False

    def __init__(self, server):
        self.server = server

    def datagramReceived(self, datagram, addr):
        reply = self.server.reply(datagram, stream=False)
        if reply is not None:
            self.transport.write(reply, addr)


def _factory(server):
    class Tcp(Int16StringReceiver):
        def stringReceived(self, string):
            server.by_tcp += 1
            reply = server.reply(string, stream=True)
            if reply is not None:
                self.sendString(reply)

    factory = Factory.forProtocol(Tcp)
    factory.noisy = False
    return factory
