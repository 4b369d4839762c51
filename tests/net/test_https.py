"""One page by HTTPS: over real sockets, from servers that behave and servers that do not."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import Site

from mailsuite.net.https import FetchFailed, HttpsClient, Page
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import ClientTLS, ServerTLS

HOST = "mta-sts.example.org"
PATH = "/.well-known/mta-sts.txt"


class Text(Resource):
    isLeaf = True

    def __init__(self, body=b"hello", code=200, headers=()):
        super().__init__()
        self.body, self.code, self.headers, self.seen = body, code, headers, []

    def render_GET(self, request):
        self.seen.append((request.uri, request.getHeader(b"host"), request.getHeader(b"accept-encoding")))
        request.setResponseCode(self.code)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        for name, value in self.headers:
            request.setHeader(name, value)
        return self.body


class Raw(Protocol):
    """Says its octets when it is asked, again and again if `forever`."""

    def dataReceived(self, data):
        self.transport.write(self.factory.octets)
        if self.factory.forever:
            self.factory.reactor.callLater(0, self.more)
        elif self.factory.closing:
            self.transport.loseConnection()

    def more(self):
        if self.connected and not self.factory.stopped:
            self.transport.write(self.factory.forever)
            self.factory.reactor.callLater(0, self.more)

    def connectionLost(self, reason):
        self.factory.stopped = True


@pytest.fixture
def serve(reactor, authority):
    """Listen with a site, or with raw octets, and return a client for it."""
    ports = []

    def serve(site, *, tls=None, seconds=5.0, largest=1000, addresses=None):
        tls = tls or ServerTLS(*authority.issue(HOST, file="https"))
        factory = TLSMemoryBIOFactory(tls, False, site, reactor)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        ports.append(port)

        async def here(host):
            assert host == HOST
            return addresses or ["127.0.0.1"]

        return HttpsClient(
            reactor,
            ClientTLS(authority.file),
            here,
            port=port.getHost().port,
            seconds=seconds,
            largest=largest,
        )

    serve.ports = ports
    yield serve
    for port in ports:
        port.stopListening()


def site(resource):
    made = Site(resource)
    made.noisy = False
    return made


def raw(reactor, octets=b"", *, forever=b"", closing=False):
    factory = Factory.forProtocol(Raw)
    factory.noisy = False
    factory.reactor, factory.octets, factory.forever, factory.closing = reactor, octets, forever, closing
    factory.stopped = False
    return factory


def test_page_is_fetched(serve, run):
    text = Text()
    assert run(serve(site(text)).get(HOST, PATH)) == Page(200, "text/plain", b"hello")
    assert text.seen == [(PATH.encode(), HOST.encode(), None)]


def test_next_address_is_tried(serve, run):
    client = serve(site(Text()), addresses=["127.0.0.2", "127.0.0.1"])
    assert run(client.get(HOST, PATH)).body == b"hello"


@pytest.mark.parametrize("code", [301, 302, 307, 404, 500])
def test_redirects_are_not_followed(serve, run, code):
    text = Text(code=code, headers=[(b"location", b"https://mta-sts.example.org/elsewhere")])
    assert run(serve(site(text)).get(HOST, PATH)).status == code
    assert len(text.seen) == 1


@pytest.mark.parametrize(
    ("issue", "complaint"),
    [
        ({"name": "other.example"}, "not for mta-sts.example.org"),
        ({"name": "other.example", "common": HOST}, "not for mta-sts.example.org"),  # RFC 8461 section 3.3: DNS-ID only
        ({"name": HOST, "expired": True}, "expired"),
    ],
)
def test_server_must_prove_its_name(serve, run, authority, issue, complaint):
    tls = ServerTLS(*authority.issue(**issue, file="wrong-https"))
    with pytest.raises(FetchFailed, match=complaint) as caught:
        run(serve(site(Text()), tls=tls).get(HOST, PATH))
    assert caught.value.untrusted


def test_stranger_is_not_trusted(serve, run, stranger):
    with pytest.raises(FetchFailed, match="issuer") as caught:
        run(serve(site(Text()), tls=ServerTLS(*stranger.issue(HOST))).get(HOST, PATH))
    assert caught.value.untrusted


def test_page_that_is_announced_as_too_long_is_refused(serve, run):
    with pytest.raises(FetchFailed, match="too long"):
        run(serve(site(Text(b"x" * 1001))).get(HOST, PATH))


def chunked(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("octets", "forever", "complaint"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunked(b"x" * 500), "too long"),
        (HEAD, b"X-More: more\r\n" * 100, "too much"),
        (b"HTTP/1.1 200 OK\r\n", b"x" * 5000, HOST),
        (HEAD + b"\r\n", b"x" * 500, "too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "too much"),
    ],
)
def test_what_never_ends_is_cut_off(reactor, serve, run, octets, forever, complaint):
    factory = raw(reactor, octets, forever=forever)
    with pytest.raises(FetchFailed, match=complaint):
        run(serve(factory).get(HOST, PATH))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"garbage\r\n\r\n",
        b"\x00" * 100,
        HEAD + b"Content-Length: 100\r\n\r\nshort",
        HEAD + b"Content-Length: minus\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"\r\nends with the connection",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"no last chunk"),
    ],
)
def test_what_is_no_page_is_an_error(reactor, serve, run, octets):
    with pytest.raises(FetchFailed):
        run(serve(raw(reactor, octets, closing=True)).get(HOST, PATH))


@pytest.mark.parametrize("octets", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\nshort"])
def test_slow_server_is_left(reactor, serve, run, octets):
    with pytest.raises(FetchFailed, match="took more than"):
        run(serve(raw(reactor, octets), seconds=0.2).get(HOST, PATH))


def test_server_that_never_shakes_hands_is_left(reactor, authority, run):
    silent = Factory.forProtocol(Protocol)
    silent.noisy = False
    port = reactor.listenTCP(0, silent, interface="127.0.0.1")

    async def here(_host):
        return ["127.0.0.1"]

    client = HttpsClient(reactor, ClientTLS(authority.file), here, port=port.getHost().port, seconds=0.2)
    with pytest.raises(FetchFailed, match="took more than"):
        run(client.get(HOST, PATH))
    port.stopListening()


def test_slow_dns_is_left(reactor, authority, run):
    def never(_host):
        return Deferred()

    with pytest.raises(FetchFailed, match="took more than"):
        run(HttpsClient(reactor, ClientTLS(authority.file), never, seconds=0.1).get(HOST, PATH))


def test_host_without_address_or_answer_is_an_error(reactor, authority, run):
    async def unknown(host):
        raise DnsFailure(host, "no such domain", temporary=False)

    async def none(_host):
        return []

    async def deaf(_host):
        return ["127.0.0.1"]

    tls = ClientTLS(authority.file)
    with pytest.raises(FetchFailed, match="no such domain"):
        run(HttpsClient(reactor, tls, unknown).get(HOST, PATH))
    with pytest.raises(FetchFailed, match="no address"):
        run(HttpsClient(reactor, tls, none).get(HOST, PATH))
    with pytest.raises(FetchFailed, match="refused"):
        run(HttpsClient(reactor, tls, deaf, port=1).get(HOST, PATH))


def test_fetch_that_is_cancelled_lets_go(reactor, serve, run):
    fetching = Deferred.fromCoroutine(serve(raw(reactor, HEAD)).get(HOST, PATH))
    reactor.callLater(0.1, fetching.cancel)
    with pytest.raises(CancelledError):
        run(fetching)


# --------------------------------------------------------------------------------------------------- POST


class Box(Resource):
    isLeaf = True

    def __init__(self, code=201):
        super().__init__()
        self.code, self.posted = code, []

    def render_POST(self, request):
        self.posted.append((request.uri, request.getHeader(b"host"), request.getHeader(b"content-type")))
        self.posted.append(request.content.read())
        request.setResponseCode(self.code)
        return b""


@pytest.mark.parametrize("code", [201, 307, 503])
def test_octets_are_posted(serve, run, code):
    box = Box(code)
    octets = bytes(range(256)) * 1000
    page = run(serve(site(box)).post(HOST, "/reports?of=us", octets, "application/tlsrpt+gzip"))
    assert page.status == code
    assert box.posted == [(b"/reports?of=us", HOST.encode(), b"application/tlsrpt+gzip"), octets]


def test_other_port_is_dialled_and_said(serve, run):
    box = Box()
    client = serve(site(box))
    with pytest.raises(FetchFailed, match="refused"):
        run(client.post(HOST, "/", b"x", "text/plain", port=1))
    port = serve.ports[0].getHost().port
    assert run(client.post(HOST, "/", b"x", "text/plain", port=port)).status == 201
    assert box.posted[0][1] == f"{HOST}:{port}".encode()


def test_nothing_is_posted_to_a_stranger(serve, run, stranger):
    box = Box()
    with pytest.raises(FetchFailed) as caught:
        run(serve(site(box), tls=ServerTLS(*stranger.issue(HOST))).post(HOST, "/", b"x", "text/plain"))
    assert caught.value.untrusted
    assert box.posted == []
