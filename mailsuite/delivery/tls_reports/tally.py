"""What is counted between two looks at the disk: how often each thing has happened (RFC 8460 section 4.2).

Counting is a look into a dictionary, on the reactor's thread. What does not fit any more is lost, and said so in the
log: a report is a courtesy, memory is not endless.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from twisted.logger import Logger

from mailsuite.mail.tls_policy import PolicySource, TLSPolicy, TLSResult

DAY: Final = 86400

_MOST: Final = 20_000
_LONGEST_REASON: Final = 200
_LONGEST_TEXT: Final = 16 * 1024  # octets of a policy that are kept


class Policy(NamedTuple):
    """A policy as reports quote it (RFC 8460 section 4.4): its type, its lines, the hosts that it speaks of."""

    source: str
    text: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class Event(NamedTuple):
    """What is counted. `day` is a UTC day by its number since 1970; `kind` is empty for a success, and so is the rest.

    `local` is our IP address, `address` the other one, of `host`.
    """

    day: int
    domain: str
    policy: Policy
    kind: str = ""
    local: str = ""
    host: str = ""
    address: str = ""
    reason: str = ""


class Tally:
    """Counts of events, and the results that they are made of."""

    _log = Logger()

    def __init__(self, most: int = _MOST) -> None:
        self._counts: dict[Event, int] = {}
        self._most = most
        self._lost = 0

    def __bool__(self) -> bool:
        return bool(self._counts)

    def note(self, result: TLSResult, now: float) -> None:
        """Count a result."""
        self.add([(_event(result, int(now // DAY)), 1)])

    def take(self) -> list[tuple[Event, int]]:
        """All there is; it is counted no more."""
        counts, self._counts = self._counts, {}
        if self._lost:
            self._log.warn("{count} results of TLS are in no report: there are too many kinds", count=self._lost)
            self._lost = 0
        return list(counts.items())

    def add(self, counts: Iterable[tuple[Event, int]]) -> None:
        """Count these, or count them again: they could not be written down."""
        for event, count in counts:
            if event in self._counts:
                self._counts[event] += count
            elif len(self._counts) < self._most:
                self._counts[event] = count
            else:
                self._lost += count


def _event(result: TLSResult, day: int) -> Event:
    policy = _policy(result.policy, result.host)
    if result.failure is None:
        return Event(day, result.domain, policy)
    reason = " ".join(result.reason.split())[:_LONGEST_REASON]
    return Event(day, result.domain, policy, result.failure.value, result.local, result.host, result.address, reason)


def _policy(policy: TLSPolicy, host: str) -> Policy:
    if policy.source is PolicySource.CONFIGURED:
        return Policy(policy.source.value)
    hosts = policy.mx_patterns if policy.source is PolicySource.MTA_STS else tuple(filter(None, [host]))
    return Policy(policy.source.value, _bounded(policy.text), _bounded(hosts))


def _bounded(lines: tuple[str, ...]) -> tuple[str, ...]:
    if sum(map(len, lines)) <= _LONGEST_TEXT:
        return lines
    kept, room = [], _LONGEST_TEXT
    for line in lines:
        room -= len(line)
        if room < 0:
            break
        kept.append(line)
    return tuple(kept)
