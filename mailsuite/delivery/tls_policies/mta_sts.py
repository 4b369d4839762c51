"""MTA-STS: finds the policies of domains, keeps them, and fetches them anew (RFC 8461 sections 3.3 and 5.1).

A delivery waits while the TXT record is asked for, and while a new policy is fetched; it never fails for that. Where
nothing can be found, what is kept holds until it expires. What could not be fetched is left alone for five minutes.
Policies that are in use are fetched anew once a day, so that nobody can wait for them to expire.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.tls_policies.sts_cache import Stored
from mailsuite.delivery.tls_policies.sts_policy import PolicyInvalid, parse_policy, policy_id
from mailsuite.mail.tls_policy import PolicySource, TLSFailureKind, TLSPolicy, TLSProblem, TLSResult
from mailsuite.net.dnssec import AsksDns, LookupFailed
from mailsuite.net.https import FetchFailed, Page
from mailsuite.net.sharing import Shared

_log = Logger()

_DOMAIN: Final = re.compile(r"(?=.{1,240}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")
_PATH: Final = "/.well-known/mta-sts.txt"  # section 3.2
_SOONEST: Final = 60.0  # seconds between two looks at a TXT record
_LATEST: Final = 3600.0
_FETCH_AGAIN: Final = 300.0  # section 3.3: five minutes or longer
_DAY: Final = 86400.0
_IN_USE: Final = 30 * _DAY  # a policy that nobody has gone by for so long is left to expire
_ROUND: Final = 200  # policies fetched anew in one go
_MOST_KNOWN: Final = 5000


class Fetches(Protocol):
    """What is asked of the web."""

    async def get(self, host: str, path: str) -> Page:
        """See `mailsuite.net.https.HttpsClient.get`."""


class Keeps(Protocol):
    """What is asked of the cache on the disk; see `mailsuite.delivery.tls_policies.sts_cache.StsCache`."""

    async def load(self, domain: str) -> Stored | None: ...
    async def store(self, domain: str, stored: Stored, now: float) -> None: ...
    async def renew(self, domain: str, stored: Stored, now: float) -> None: ...
    async def note_use(self, domain: str, now: float) -> None: ...
    async def note_try(self, domain: str, when: float) -> None: ...
    async def due(self, *, tried_before: float, used_after: float, now: float, limit: int) -> list[str]: ...


@dataclass(slots=True)
class _Known:
    """What is known of a domain; times are POSIX times."""

    stored: Stored | None
    look_again: float = 0.0
    failed_id: str = ""
    fetch_after: float = 0.0
    use_noted: float = 0.0


class MtaSts:
    """The policies of domains. `note` is told what reports want to know (section 6)."""

    def __init__(
        self, dns: AsksDns, web: Fetches, cache: Keeps, clock: IReactorTime, *, note: Callable[[TLSResult], object]
    ) -> None:
        self._dns = dns
        self._web = web
        self._cache = cache
        self._seconds = clock.seconds
        self._note = note
        self._looking: Shared[str, Stored | None] = Shared()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def policy(self, domain: str) -> Stored | None:
        """The policy that holds for a domain (a domain key) now, if there is one, be it active or not."""
        if _DOMAIN.fullmatch(domain) is None:
            return None
        known = self._known.get(domain)
        if known is not None and self._seconds() < known.look_again:
            self._known.move_to_end(domain)
            return self._valid(known)
        return await self._looking.get(domain, lambda: self._look(domain))

    async def refresh(self) -> None:
        """Fetch those policies anew that are in use and a day old (sections 3.3 and 10.2)."""
        now = self._seconds()
        due = await self._cache.due(tried_before=now - _DAY, used_after=now - _IN_USE, now=now, limit=_ROUND)
        for domain in due:
            await self._renew(domain)

    def stop(self) -> None:
        """Look for nothing more; whoever waits is cancelled."""
        self._looking.cancel()

    # -------------------------------------------------------------------------------------- looking

    def _valid(self, known: _Known) -> Stored | None:
        stored = known.stored
        return stored if stored is not None and self._seconds() < stored.expires else None

    async def _look(self, domain: str) -> Stored | None:
        """Section 5.1, step 1."""
        known = self._known.get(domain) or _Known(await self._cache.load(domain))
        self._known[domain] = known
        self._known.move_to_end(domain)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        known.stored = self._valid(known)
        # Not before all is done: until then whoever else asks waits with us.
        known.look_again = await self._look_at_record(domain, known)
        if known.stored is not None and self._seconds() - known.use_noted >= _DAY:
            known.use_noted = self._seconds()
            await self._cache.note_use(domain, known.use_noted)
        return known.stored

    async def _look_at_record(self, domain: str, known: _Known) -> float:
        """Bring up to date what is known; tell when to look again."""
        try:
            answer = await self._dns.ask(f"_mta-sts.{domain}", "TXT")
        except LookupFailed as failure:
            if known.stored is not None and known.stored.is_active:
                self._report(domain, known.stored, TLSProblem(TLSFailureKind.POLICY_FETCH, str(failure)))
            return self._seconds() + _SOONEST
        look_again = self._seconds() + min(max(answer.ttl, _SOONEST), _LATEST)
        identity = policy_id(answer.records)
        # Section 3.1: that no record is there takes nothing away.
        if identity is None or (known.stored is not None and known.stored.id == identity):
            return look_again
        # Section 3.3: not sooner than that, for the same version.
        if identity == known.failed_id and self._seconds() < known.fetch_after:
            return min(look_again, known.fetch_after)
        fetched = await self._fetch(domain, identity, known.stored)
        if fetched is None:
            known.failed_id, known.fetch_after = identity, self._seconds() + _FETCH_AGAIN
            return min(look_again, known.fetch_after)
        known.stored, known.use_noted = fetched, self._seconds()
        await self._cache.store(domain, fetched, self._seconds())
        return look_again

    async def _renew(self, domain: str) -> None:
        before = await self._cache.load(domain)
        if before is None:
            return
        identity = before.id
        try:
            identity = policy_id((await self._dns.ask(f"_mta-sts.{domain}", "TXT")).records) or identity
        except LookupFailed as failure:
            _log.debug("{failure}", failure=failure)  # section 10.2: whatever becomes of the record
        fetched = await self._fetch(domain, identity, before)
        if fetched is None:
            await self._cache.note_try(domain, self._seconds() - _DAY + 3600.0)  # again in an hour
            return
        if domain in self._known:
            self._known[domain].stored = fetched
        await self._cache.renew(domain, fetched, self._seconds())

    async def _fetch(self, domain: str, identity: str, before: Stored | None) -> Stored | None:
        """A policy from the web; None where that has failed, which is noted."""
        try:
            page = await self._web.get(f"mta-sts.{domain}", _PATH)
            problem = _problem_of(page)
            if problem is None:
                return Stored(identity, parse_policy(page.body), page.body, self._seconds())
        except FetchFailed as failure:
            kind = TLSFailureKind.WEBPKI_INVALID if failure.untrusted else TLSFailureKind.POLICY_FETCH
            problem = TLSProblem(kind, str(failure))
        except PolicyInvalid as failure:
            problem = TLSProblem(TLSFailureKind.POLICY_INVALID, str(failure))
        if before is None or before.is_active:  # section 8.3: who takes it down in good order is not to be reported
            self._tell(domain, before, problem)
        return None

    def _tell(self, domain: str, before: Stored | None, problem: TLSProblem) -> None:
        _log.warn(
            "the MTA-STS policy of {domain} cannot be fetched ({problem}); {rest}",
            domain=domain,
            problem=problem.text,
            rest="there is none as yet" if before is None else "the one that is known holds",
        )
        self._report(domain, before, problem)

    def _report(self, domain: str, before: Stored | None, problem: TLSProblem) -> None:
        policy = TLSPolicy(source=PolicySource.MTA_STS)
        if before is not None:
            policy = TLSPolicy(source=PolicySource.MTA_STS, text=before.policy.text, mx_patterns=before.policy.mx)
        self._note(TLSResult(domain, policy, failure=problem.kind, reason=problem.text))


def _problem_of(page: Page) -> TLSProblem | None:
    # Section 3.3: nothing but 200 will do, redirects are not followed.
    if page.status != 200:
        return TLSProblem(TLSFailureKind.POLICY_FETCH, f"the server answers {page.status}")
    if page.media_type != "text/plain":  # section 3.2
        return TLSProblem(TLSFailureKind.POLICY_FETCH, f"it is {page.media_type[:60]!r}, not text/plain")
    return None
