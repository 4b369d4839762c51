"""DNS by a resolver that validates DNSSEC: answers, and whether they are secure (RFC 7672 section 2.1).

We validate nothing ourselves. The resolver says by the AD flag that all of an answer is secure (RFC 6840 section 5.8),
and fails what is bogus; so the way to it must be safe: that is the operator's to see to, and best it is a resolver on
this machine. Its trust anchors are set there.

Rules
- An error of any kind is `LookupFailed`: nobody may take it for "there is none" (RFC 7672 section 2.1.2).
- That there is none is an answer, with no records; it too may be secure.
- Answers are kept as long as their TTL says, and never longer than an hour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mailsuite.mail.tls_policy import TLSA
from mailsuite.mail.visible import visible
from mailsuite.net.dns_exchange import DnsExchange, NoAnswer, Server
from mailsuite.net.sharing import Shared

_log = Logger()

_TRIES: Final = (2.0, 4.0, 6.0)  # seconds for an answer, then the next server
_TCP_TIME: Final = 8.0
_LIMIT: Final = 25.0  # seconds for a question in all
_LONGEST: Final = 3600.0  # seconds that an answer is kept
_WITHOUT_SOA: Final = 30.0  # seconds for "there is none" without an SOA that says how long
_MOST_KEPT: Final = 2000
_MOST_ALIASES: Final = 8
_PAYLOAD: Final = 1232  # octets: never in fragments
_BOGUS: Final = frozenset({1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 27})  # RFC 8914 section 4: what has to do with DNSSEC
_PROOF_TIME: Final = 3600.0
_DOUBT_TIME: Final = 600.0
_LOOK_INTERVAL: Final = 60.0


class LookupFailed(Exception):
    """A question has no answer now. `bogus` says that the resolver blames the signatures (RFC 8914)."""

    def __init__(self, name: str, kind: str, reason: str, *, bogus: bool = False) -> None:
        super().__init__(visible(f"{kind} of {name}: {reason}"))
        self.bogus = bogus


class Answer(NamedTuple):
    """What a name has.

    Records are host names for MX (in lower case, no dot at the end; empty for the null MX) and CNAME, addresses for A
    and AAAA, octets for TXT (strings joined), `TLSA` for TLSA, else text. `canonical` is the name that aliases lead to.
    """

    records: tuple[Any, ...]
    secure: bool
    canonical: str
    ttl: float


class AsksDns(Protocol):
    """What is asked of this module by those who look for policies."""

    async def ask(self, name: str, kind: str) -> Answer:
        """The records of a kind (as "MX") that a name has, aliases followed. Raises `LookupFailed`."""


class ValidatingResolver:
    """Asks the `servers`, (address, port), one after the other."""

    def __init__(self, reactor: object, servers: Callable[[], Sequence[Server]]) -> None:
        self._clock = IReactorTime(reactor)
        self._reactor: Any = reactor
        self._exchange = DnsExchange(reactor)
        self.servers = servers
        self._asking: Shared[tuple[str, str], Answer] = Shared()
        self._kept: OrderedDict[tuple[str, str], tuple[float, Answer]] = OrderedDict()

    async def ask(self, name: str, kind: str) -> Answer:
        key = name.rstrip(".").lower(), kind
        kept = self._kept.get(key)
        if kept is not None and kept[0] > self._clock.seconds():
            return kept[1]
        return await self._asking.get(key, lambda: self._look_up(*key))

    async def stop(self) -> None:
        """Ask no more; whoever waits is cancelled."""
        self._asking.cancel()

    async def _look_up(self, name: str, kind: str) -> Answer:
        work = Deferred.fromCoroutine(self._follow(name, kind)).addTimeout(_LIMIT, self._clock)
        try:
            answer = await work
        except TimeoutError:
            raise LookupFailed(name, kind, "no answer in time") from None
        self._keep((name, kind), answer)
        return answer

    def _keep(self, key: tuple[str, str], answer: Answer) -> None:
        self._kept.pop(key, None)
        if answer.ttl > 0:
            self._kept[key] = self._clock.seconds() + min(answer.ttl, _LONGEST), answer
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)

    async def _follow(self, name: str, kind: str) -> Answer:
        """RFC 7672 section 2.1.3: a name that an answer leads to, but says nothing of, is asked for by itself."""
        answer, ended = await self._ask_once(name, kind)
        for _ in range(_MOST_ALIASES):
            if ended:
                return answer
            further, ended = await self._ask_once(answer.canonical, kind)
            answer = further._replace(secure=further.secure and answer.secure, ttl=min(further.ttl, answer.ttl))
        raise LookupFailed(name, kind, "too many aliases")

    async def _ask_once(self, name: str, kind: str) -> tuple[Answer, bool]:
        try:
            question = dns.message.make_query(
                dns.name.from_text(name), kind, use_edns=0, want_dnssec=True, payload=_PAYLOAD
            )
            question.flags |= dns.flags.AD  # RFC 6840 section 5.7
            wire = question.to_wire()
        except (dns.exception.DNSException, UnicodeError) as error:
            raise LookupFailed(name, kind, f"not a domain name ({error})") from None
        response = await self._transmit(name, kind, question, wire)
        return _read(name, kind, response)

    async def _transmit(self, name: str, kind: str, question: dns.message.Message, wire: bytes) -> dns.message.Message:
        def accept(data: bytes) -> dns.message.Message | None:
            try:
                response = dns.message.from_wire(data)
                return response if question.is_response(response) else None
            except Exception:  # noqa: BLE001 - of a parser, for whatever has come
                return None

        servers = list(self.servers())
        if not servers:
            raise LookupFailed(name, kind, "no name server is known")
        reason = ""
        for number, seconds in enumerate(_TRIES):
            server = servers[number % len(servers)]
            try:
                response = await self._exchange.by_udp(server, wire, accept, seconds)
                if response.flags & dns.flags.TC:
                    response = await self._ask_at_length(server, wire, accept)
            except NoAnswer as failure:
                reason = f"{server[0]}: {failure}"
                continue
            if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return response
            reason, bogus = _complaint(response)
            if bogus or number + 1 >= len(servers):
                raise LookupFailed(name, kind, f"{server[0]} says {reason}", bogus=bogus)
        raise LookupFailed(name, kind, reason)

    async def _ask_at_length(
        self, server: Server, wire: bytes, accept: Callable[[bytes], dns.message.Message | None]
    ) -> dns.message.Message:
        """By TCP. What is so long takes a while to read, so that is done in a thread."""
        octets = await self._exchange.by_tcp(server, wire, bytes, _TCP_TIME)
        threads = self._reactor.getThreadPool()
        response: dns.message.Message | None = await deferToThreadPool(self._reactor, threads, accept, octets)
        if response is None:
            raise NoAnswer("the answer makes no sense")
        return response


class Validation:
    """Finds out whether the resolver validates, and is on this machine: then its word on DNSSEC can be taken."""

    def __init__(self, resolver: ValidatingResolver, clock: IReactorTime) -> None:
        self._resolver = resolver
        self._clock = clock
        self._proved = False
        self._look_again = 0.0

    async def holds(self) -> bool:
        """Whether it is so now. What has been proved once is not doubted for want of an answer."""
        if not all(is_loopback(address) for address, _port in self._resolver.servers()):
            return False
        if self._clock.seconds() < self._look_again:
            return self._proved
        try:
            proved = (await self._resolver.ask(".", "SOA")).secure
        except LookupFailed as failure:
            _log.debug("whether the resolver validates DNSSEC cannot be told now: {failure}", failure=failure)
            return self._proved
        if proved != self._proved:
            _log.info("the resolver {does} DNSSEC", does="validates" if proved else "does not validate")
        self._proved = proved
        self._look_again = self._clock.seconds() + (_PROOF_TIME if proved else _DOUBT_TIME)
        return proved


@lru_cache(maxsize=64)
def is_loopback(address: str) -> bool:
    """Whether an IP address is on this machine, whatever the network says."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


class SystemServers:
    """The name servers of a resolv.conf, which is looked at once a minute; that on this machine where it names none."""

    def __init__(self, clock: IReactorTime, file: Path = Path("/etc/resolv.conf")) -> None:
        self._seconds = clock.seconds
        self._file = file
        self._look_at = 0.0
        self._servers: list[Server] = []

    def __call__(self) -> list[Server]:
        if not self._servers or self._seconds() >= self._look_at:
            self._look_at = self._seconds() + _LOOK_INTERVAL
            self._servers = self._read() or self._servers or [("127.0.0.1", 53)]
        return self._servers

    def _read(self) -> list[Server]:
        try:
            return [(str(server), 53) for server in dns.resolver.Resolver(str(self._file)).nameservers]
        except (dns.exception.DNSException, OSError, UnicodeError):
            return []


# ------------------------------------------------------------------------------------------- answers


def _complaint(response: dns.message.Message) -> tuple[str, bool]:
    """Why there is no answer, and whether the signatures are to blame (RFC 8914)."""
    reason, bogus = dns.rcode.to_text(response.rcode()), False
    for option in response.options:
        if isinstance(option, dns.edns.EDEOption):
            bogus = bogus or int(option.code) in _BOGUS
            said = "".join(c for c in option.text or "" if c.isprintable())[:100]
            reason = f"{reason} (extended error {int(option.code)}{': ' * bool(said)}{said})"
    return reason, bogus


def _read(name: str, kind: str, response: dns.message.Message) -> tuple[Answer, bool]:
    """The answer, and whether it is all there is: an alias that leads nowhere is not."""
    try:
        chain = response.resolve_chaining()  # type: ignore[attr-defined]
        records = tuple(_value(record) for record in chain.answer or ())
    except (dns.exception.DNSException, UnicodeError) as error:
        raise LookupFailed(name, kind, f"the answer makes no sense ({error})") from None
    has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
    ended = bool(records or has_soa or not chain.cnames or response.rcode() == dns.rcode.NXDOMAIN)
    ttl = float(chain.minimum_ttl) if records or has_soa else _WITHOUT_SOA
    secure = bool(response.flags & dns.flags.AD)
    return Answer(records, secure, _host(chain.canonical_name), min(ttl, _LONGEST)), ended


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _value(record: Any) -> Any:  # noqa: ANN401 - each kind has its own
    match record.rdtype:
        case dns.rdatatype.MX:
            return _host(record.exchange)
        case dns.rdatatype.CNAME:
            return _host(record.target)
        case dns.rdatatype.TXT:
            return b"".join(record.strings)
        case dns.rdatatype.TLSA:
            return TLSA(record.usage, record.selector, record.mtype, bytes(record.cert))
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            return record.address
        case _:
            return record.to_text()
