"""The resolver: where mail for a domain goes, and under what addresses a host is reached.

Every answer is one of: records; none, for good (`DnsFailure`, not temporary); or unknown for now (`DnsFailure`,
temporary). At most twenty hosts, and twenty addresses, are used of however many there are; what an answer says of names
that nobody asked for is left out. Answers are kept as long as they say, those that there is nothing for a short while.
DNSSEC is not looked at. An MX record names a host (RFC 1035 section 3.3.9): what is an address there, this machine, or
no name at all is left out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from heapq import nsmallest
from operator import itemgetter
from pathlib import Path
from random import Random
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.names import client, dns
from twisted.names.error import AuthoritativeDomainError, DNSFormatError, DNSNameError, DomainError
from twisted.names.resolve import ResolverChain
from twisted.python.failure import Failure

from mailsuite.mail.address import domain_key
from mailsuite.mail.visible import visible
from mailsuite.net.addresses import parse_address
from mailsuite.net.answers import Answers, Known
from mailsuite.net.dns_exchange import DnsExchange, NoAnswer
from mailsuite.net.dns_reading import LONGEST, make_question, read_answer
from mailsuite.net.hosts_file import HostsFile

_log = Logger()

_MOST: Final = 20
_LOOK_INTERVAL: Final = 60.0  # seconds
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_BY_TCP: Final = 10.0  # seconds
_SERVERS_BY_TCP: Final = 2
_TRIES: Final = (2, 4, 8)  # seconds for an answer, then another try
_NOTHING: Final = 60.0  # seconds for which nothing is asked again that there is not
_HOSTS_FILE: Final = 5  # seconds for which what stands in a file of hosts is believed
_MAX_ALIASES: Final = 16

InThread = Callable[..., Awaitable[Any]]


class MX(NamedTuple):
    """A host that takes mail for a domain; lower preferences are tried first (RFC 5321 section 5.1)."""

    preference: int
    host: str


NULL_MX: Final = MX(0, "")
"""Stands alone where a domain says that it takes no mail (RFC 7505)."""


class DnsFailure(Exception):
    """A name gave nothing to use; `temporary` says that this may change by itself."""

    def __init__(self, name: str, reason: str, *, temporary: bool) -> None:
        super().__init__(visible(f"{name}: {reason}"))
        self.temporary = temporary


class NoUsableHost(DnsFailure):
    """There are MX records, and none of them names a host that mail could go to."""


class NameServers(client.Resolver):
    """Asks the name servers of a resolv.conf, or `servers`.

    The file is looked at again when a question comes, a minute after the last look. Twisted's own has a timer for that,
    which nobody can stop. Answers that no datagram can hold are read `in_thread`.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        file: Path,
        servers: Sequence[tuple[str, int]] | None = None,
        in_thread: InThread | None = None,
    ) -> None:
        self._file = None if servers else file
        self._seconds = reactor.seconds
        self._look_at = 0.0
        self._seen: float | None = None
        super().__init__(str(file), list(servers or ()), reactor=reactor)  # type: ignore[no-untyped-call]
        self._exchange = DnsExchange(reactor)
        self._in_thread = in_thread or partial(_in_pool, reactor)

    def maybeParseConfig(self) -> None:
        now = self._seconds()
        if self._file is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_INTERVAL
        try:
            changed = self._file.stat().st_mtime
            if changed != self._seen:
                self.parseConfig(self._file.read_bytes().splitlines())  # type: ignore[no-untyped-call]
                self._seen = changed
        except OSError as error:
            if not self.dynServers:
                _log.warn("{file}: {error}; asking the name server on this machine", file=self._file, error=error)
                self.parseConfig(())  # type: ignore[no-untyped-call]

    def queryTCP(self, queries: Sequence[dns.Query], timeout: float = _BY_TCP) -> Deferred[dns.Message]:
        return Deferred.fromCoroutine(self._ask_at_length(queries[0], timeout))

    async def _ask_at_length(self, query: dns.Query, seconds: float) -> dns.Message:
        question = make_question(query.name.name, query.type)
        failure: Exception = OSError("no name server is known")
        for server in [self.pickServer() for _ in range(_SERVERS_BY_TCP)]:
            if server is None:
                break
            try:
                octets = await self._exchange.by_tcp(server, question.to_wire(), bytes, seconds, longest=LONGEST)
            except NoAnswer as error:
                failure = error
                continue
            message: dns.Message = await self._in_thread(read_answer, octets, question)
            message.queries = [query]
            return message
        raise failure

    def filterAnswers(self, message: dns.Message) -> object:
        # What cannot be read is no answer; Twisted takes it for one that says that there is nothing.
        if not message.queries:
            return Failure(DNSFormatError(message))  # type: ignore[no-untyped-call]
        answers: object = super().filterAnswers(message)  # type: ignore[no-untyped-call]
        return answers

    def pickServer(self) -> tuple[str, int] | None:
        self.maybeParseConfig()
        server: tuple[str, int] | None = super().pickServer()  # type: ignore[no-untyped-call]
        return server


def _in_pool(reactor: Any, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:  # noqa: ANN401 - the reactor
    return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)


def system_resolver(
    reactor: IReactorTime, servers: Sequence[tuple[str, int]] | None = None, in_thread: InThread | None = None
) -> IResolver:
    """What the machine is configured for: /etc/hosts, then the name servers of /etc/resolv.conf, or these `servers`."""
    names = NameServers(reactor, Path("/etc/resolv.conf"), servers, in_thread)
    chain: IResolver = ResolverChain([HostsFile(ttl=_HOSTS_FILE), names])  # type: ignore[no-untyped-call]
    return chain


class Resolver:
    """Asks `inner`, with a limit of `limit` seconds for each question.

    `random` orders hosts of equal preference. `ipv6_first` puts a host's IPv6 addresses before the others.
    Hosts of `own_names` are among those of an MX, however many there are: they say which others must not be used.
    """

    def __init__(
        self,
        inner: IResolver,
        clock: IReactorTime,
        random: Random,
        *,
        limit: float = 30.0,
        ipv6_first: bool = False,
        own_names: Iterable[str] = (),
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._random = random
        self._limit = limit
        self._ipv6_first = ipv6_first
        self._own_names = frozenset(map(domain_key, own_names))
        self._exchanges: Answers[list[MX]] = Answers(clock)
        self._of_hosts: Answers[list[str]] = Answers(clock)

    async def mx(self, domain: str) -> list[MX]:
        """The hosts that take mail for a domain, the first to try first.

        A domain without MX records is its own host (RFC 5321 section 5.1); one that takes no mail gives `[NULL_MX]`.
        Raises `DnsFailure`.
        """
        name = _checked(domain)
        found = await self._exchanges.get(name, lambda: self._ask_mx(name))
        if len(found) == 1:
            return found[:]
        # RFC 5321 section 5.1: hosts of the same preference are tried in random order, each time anew.
        return sorted(found, key=lambda one: (one.preference, self._random.random()))

    async def _ask_mx(self, name: str) -> Known[list[MX]]:
        try:
            answers, ttl = await self._ask(name, self._inner.lookupMailExchange)
        except DnsFailure as failure:
            if failure.temporary:
                raise
            # A name that the DNS does not know may still stand in /etc/hosts.
            try:
                await self.addresses(name)
            except DnsFailure as nowhere:
                if nowhere.temporary:
                    raise
                return Known(None, _NOTHING, nowhere)
            return Known([_itself(name)], _HOSTS_FILE)
        found = [record for record in answers if isinstance(record, dns.Record_MX)]
        return self._chosen(name, found, ttl) if found else Known([_itself(name)], ttl)

    def _chosen(self, name: str, found: Sequence[dns.Record_MX], ttl: float) -> Known[list[MX]]:
        """The hosts to keep of those that MX records name."""
        best: dict[str, int] = {}
        unusable = ""
        for record in found:
            host = record.name.name.decode("ascii", "replace").rstrip(".").lower()
            if not _may_be_mx(host):
                unusable = unusable or host
            elif record.preference < best.get(host, 65536):
                best[host] = record.preference
        if not best and unusable:
            # RFC 5321 section 5.1: where there are MX records, the domain is not its own host.
            reason = f"its MX records name no host that mail could go to, but {unusable}"
            return Known(None, ttl, NoUsableHost(name, reason, temporary=False))
        if not best:
            return Known([NULL_MX], ttl)
        chosen = nsmallest(_MOST, best.items(), key=lambda item: (item[1], self._random.random()))
        # RFC 5321 section 5.1: what is no nearer than we are must be known as such.
        ours = min((item for item in best.items() if item[0] in self._own_names), key=itemgetter(1), default=None)
        if ours is not None and ours not in chosen:
            chosen[-1] = ours
        return Known([MX(preference, host) for host, preference in chosen], ttl)

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of a host; an address stands for itself. Raises `DnsFailure`."""
        literal = parse_address(host)
        if literal is not None:
            return [host]
        name = _checked(host)
        questions = [self._inner.lookupAddress, self._inner.lookupIPV6Address]
        if self._ipv6_first:
            questions.reverse()
        kept = [self._of_hosts.kept((question, name)) for question in questions]
        if None not in kept and (found := [address for one in kept if one for address in one.value or ()]):
            return list(dict.fromkeys(found))[:_MOST]
        asked = [Deferred.fromCoroutine(self._addresses_calmly(name, question)) for question in questions]
        results = [await one for one in asked]
        found = [address for result in results if not isinstance(result, DnsFailure) for address in result]
        if found:
            return list(dict.fromkeys(found))[:_MOST]
        failures = [result for result in results if isinstance(result, DnsFailure)]
        failures.sort(key=lambda failure: not failure.temporary)
        raise failures[0] if failures else DnsFailure(name, "has no address", temporary=False)

    async def _addresses_calmly(self, name: str, question: Callable[..., Awaitable[Any]]) -> list[str] | DnsFailure:
        try:
            return await self._of_hosts.get((question, name), lambda: self._ask_address(name, question))
        except DnsFailure as failure:
            return failure

    async def _ask_address(self, name: str, question: Callable[..., Awaitable[Any]]) -> Known[list[str]]:
        try:
            answers, ttl = await self._ask(name, question)
        except DnsFailure as failure:
            if failure.temporary:
                raise
            return Known(None, _NOTHING, failure)
        found = list(dict.fromkeys(filter(None, map(_address_of, answers))))
        return Known(found[:_MOST], ttl)

    async def _ask(self, name: str, question: Callable[..., Awaitable[Any]]) -> tuple[list[Any], float]:
        """The payloads of the answers, and for how many seconds they hold.

        They are empty where the name exists without such records.
        """
        try:
            asked: Any = question(name, _TRIES)
            answers, _authority, _additional = await asked.addTimeout(self._limit, self._clock)
        except (DNSNameError, AuthoritativeDomainError):
            raise DnsFailure(name, "no such domain", temporary=False) from None
        except CancelledError:
            raise
        except TimeoutError:
            raise DnsFailure(name, "no answer from the name servers", temporary=True) from None
        except DomainError as error:
            if type(error) is DomainError:  # a file of hosts, which does not have it
                return [], _HOSTS_FILE
            raise DnsFailure(name, f"the name servers fail ({type(error).__name__})", temporary=True) from None
        except Exception as error:  # noqa: BLE001 - no socket, no memory: nothing that says there is no such name
            raise DnsFailure(name, f"cannot ask the name servers ({error})", temporary=True) from None
        return _of_name(name, answers)


def _of_name(name: str, answers: Sequence[Any]) -> tuple[list[Any], float]:
    """What is said of a name, and of those that it is an alias of; no more than that is believed."""
    aliases: dict[bytes, bytes] = {}
    for answer in answers:
        if isinstance(answer.payload, dns.Record_CNAME) and answer.payload.name is not None:
            aliases.setdefault(answer.name.name.lower(), answer.payload.name.name.lower())
    names = [name.encode("ascii")]
    while len(names) <= _MAX_ALIASES and (further := aliases.get(names[-1])) is not None and further not in names:
        names.append(further)
    told = [answer for answer in answers if answer.name.name.lower().rstrip(b".") in names]
    ttl = min((float(answer.ttl) for answer in told), default=_NOTHING)
    return [answer.payload for answer in told], ttl


def _checked(name: str) -> str:
    key = domain_key(name.rstrip("."))
    if _NAME.fullmatch(key) is None:
        raise DnsFailure(name, "not a domain name", temporary=False)
    return key


def _may_be_mx(host: str) -> bool:
    """Whether this can be a host elsewhere: an address has neither TLSA records nor a place in a policy."""
    return (
        _NAME.fullmatch(host) is not None
        and parse_address(host) is None
        and host != "localhost"
        and not host.endswith(".localhost")
    )


def _itself(name: str) -> MX:
    """A domain without MX records as its own host; "localhost" is this machine by the word of whoever wrote that."""
    if parse_address(name) is not None:
        # RFC 5321 section 4.1.3: one that takes mail is written in brackets.
        raise DnsFailure(name, "an address, not a domain name", temporary=False)
    return MX(0, name)


def _address_of(record: object) -> str | None:
    if isinstance(record, dns.Record_A) and record.address is not None:
        return inet_ntop(AF_INET, record.address)
    if isinstance(record, dns.Record_AAAA):
        return inet_ntop(AF_INET6, record.address)
    return None
