"""The whole of it over real sockets: DNS, HTTPS by an authority of our own, the cache in threads, TLS with the host."""

from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from mailsuite.delivery.tls_policies import Dane, MtaSts, StsCache, TLSPolicies
from mailsuite.interfaces import Barred
from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import TLSFailureKind
from mailsuite.net.dnssec import ValidatingResolver
from mailsuite.net.https import HttpsClient
from mailsuite.net.tls import ClientTLS, ServerTLS
from tests.delivery.tls_policies.fakes import POLICY
from tests.net.authority import Authority
from tests.net.nameserver import NameServer

HOST, DOMAIN = "mx.example.org", "example.org"


class Policy(Resource):
    isLeaf = True
    body, code, kind, slow = POLICY, 200, b"text/plain", False

    def render_GET(self, request):
        request.setResponseCode(self.code)
        request.setHeader(b"content-type", self.kind)
        request.setHeader(b"location", b"https://mta-sts.example.org/.well-known/mta-sts.txt")
        if self.slow:
            request.write(b"version: STSv1\n")
            return NOT_DONE_YET
        return self.body


class Place:
    """Where mail is to go, and we who ask."""

    def __init__(self, reactor, directory):
        self.reactor, self.directory = reactor, directory
        self.authority = Authority(directory)
        self.names = NameServer(reactor)
        place = self.names.start()
        self.names.secure = False
        self.names.zone = {
            (DOMAIN, "MX"): [f"{DOMAIN} 0 MX 10 {HOST}."],
            (HOST, "A"): [f"{HOST} 0 A 192.0.2.1"],
            (f"_mta-sts.{DOMAIN}", "TXT"): [f'_mta-sts.{DOMAIN} 0 TXT "v=STSv1; id=1;"'],
        }
        self.page = Policy()
        site = Site(self.page)
        site.noisy = False
        tls = ServerTLS(*self.authority.issue(f"mta-sts.{DOMAIN}"))
        factory = TLSMemoryBIOFactory(tls, False, site, reactor)
        factory.noisy = False
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.resolver = ValidatingResolver(reactor, lambda: [place])
        self.noted = []
        self.restart()

    def restart(self):
        tls = ClientTLS(self.authority.file)
        web = HttpsClient(self.reactor, tls, self.addresses, port=self.port.getHost().port, seconds=0.5)
        cache = StsCache(self.directory / "mta-sts.db", self.in_thread)
        sts = MtaSts(self.resolver, web, cache, self.reactor, note=self.noted.append)
        dane = Dane(self.resolver, self.always)
        self.policies = TLSPolicies(dane, sts, self.reactor, sink=self.noted.append, chance=lambda: 0.5)

    async def addresses(self, host):
        assert host == f"mta-sts.{DOMAIN}"
        return ["127.0.0.1"]

    async def always(self):
        return True

    def in_thread(self, function, *arguments):
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)

    async def policy(self, host=HOST):
        return await self.policies.policy(DOMAIN, NextHop(host))

    async def stop(self):
        await self.policies.stop()
        await self.resolver.stop()
        self.names.stop()
        self.port.stopListening()


@pytest.fixture
def place(reactor, run, tmp_path):
    place = Place(reactor, tmp_path)
    yield place
    run(place.stop())


def test_policy_is_fetched_enforced_and_outlives_a_restart(place, run):
    assert run(place.policy()).mode == "verified"
    with pytest.raises(Barred, match="does not name"):
        run(place.policy("mx.evil.example"))
    place.page.code = 500
    place.names.zone.clear()
    place.restart()
    assert run(place.policy()).mode == "verified"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"code": 302}, TLSFailureKind.POLICY_FETCH),
        ({"kind": b"text/html"}, TLSFailureKind.POLICY_FETCH),
        ({"body": b"x" * 70_000}, TLSFailureKind.POLICY_FETCH),
        ({"slow": True}, TLSFailureKind.POLICY_FETCH),
        ({"body": b"<html>"}, TLSFailureKind.POLICY_INVALID),
    ],
)
def test_hostile_policies_are_as_none(place, run, fault, kind):
    vars(place.page).update(fault)
    policy = run(place.policy())
    assert (policy.mode, policy.mx_proved) == ("opportunistic", False)
    assert [result.failure for result in place.noted] == [kind]


def test_web_server_that_does_not_prove_its_name_is_told(place, run, tmp_path):
    (tmp_path / "stranger").mkdir()
    place.authority = Authority(tmp_path / "stranger", "Stranger")
    place.restart()
    assert run(place.policy()).mode == "opportunistic"
    assert [result.failure for result in place.noted] == [TLSFailureKind.WEBPKI_INVALID]


def test_reactor_goes_on_while_a_policy_is_waited_for(place, reactor, run):
    place.page.slow = True
    turns = []

    def tick():
        turns.append(reactor.seconds())
        if len(turns) < 40:
            reactor.callLater(0.005, tick)

    reactor.callLater(0, tick)
    run(place.policy())
    assert len(turns) == 40
    assert max(after - before for before, after in pairwise(turns)) < 0.2


class _Speaks(Protocol):
    def connectionMade(self):
        self.transport.write(b"220 hello\r\n")


def test_creator_of_the_policy_is_what_a_connection_needs(place, reactor, run):
    """From the policy to a verified handshake with the host."""
    heard = Deferred()

    class Client(Protocol):
        def dataReceived(self, data):
            heard.callback(data)
            self.transport.abortConnection()

    server = Factory.forProtocol(_Speaks)
    server.noisy = False
    tls = TLSMemoryBIOFactory(ServerTLS(*place.authority.issue(HOST)), False, server, reactor)
    tls.noisy = False
    port = reactor.listenTCP(0, tls, interface="127.0.0.1")

    async def visit():
        creator = ClientTLS(place.authority.file).for_policy(HOST, await place.policy())
        client = Factory.forProtocol(Client)
        client.noisy = False
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await endpoint.connect(TLSMemoryBIOFactory(creator, True, client, reactor))
        return await heard, creator.problem

    assert run(visit()) == (b"220 hello\r\n", None)
    port.stopListening()
