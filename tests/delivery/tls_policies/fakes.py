"""The neighbours of the policies: DNS, the web, threads, and what reports are told."""

from twisted.internet.defer import Deferred

from mailsuite.net.dnssec import Answer, LookupFailed
from mailsuite.net.https import FetchFailed, Page

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmx: *.backup.example\r\nmax_age: 604800\r\n"


def now(coroutine):
    """What a coroutine that need not wait comes to."""
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    [result] = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


class Dns:
    """Answers from a table; what is not in it does not exist, securely. A Deferred in it is waited for."""

    def __init__(self, table=()):
        self.table = dict(table)
        self.asked = []

    async def ask(self, name, kind):
        self.asked.append((name, kind))
        found = self.table.get((name, kind))
        if isinstance(found, Deferred):
            found = await found
        if isinstance(found, Exception):
            raise found
        return found or secure(canonical=name)


def secure(*records, canonical="", ttl=300.0):
    return Answer(records, True, canonical, ttl)


def insecure(*records, canonical="", ttl=300.0):
    return Answer(records, False, canonical, ttl)


def failing(name="x", kind="A"):
    return LookupFailed(name, kind, "SERVFAIL")


class Web:
    """Has one page for each host."""

    def __init__(self):
        self.pages = {}
        self.fetched = []

    async def get(self, host, path):
        assert path == "/.well-known/mta-sts.txt"
        self.fetched.append(host)
        page = self.pages.get(host, FetchFailed(f"{host} is away"))
        if isinstance(page, Deferred):
            page = await page
        if isinstance(page, Exception):
            raise page
        return page


def page(body=POLICY, status=200, media_type="text/plain"):
    return Page(status, media_type, body)


async def in_no_thread(function, *arguments):
    return function(*arguments)
