"""Senders of mail that an alias passes on, rewritten so that reports find the way back: SRS.

Whoever receives what we forward looks (SPF, RFC 7208) whether we may send for the domain of the reverse-path. So that
becomes an address in a domain of ours, which has the sender in it, a day, and a hash that only we can make. What comes
back to it is for the sender; what has another hash, or is too old, was made by nobody here, and is refused: else
anybody could relay through us.

What the library makes is bound more tightly here: its own hash runs day, host and local part together, comes round
after 1024 days, has no day at all where two hosts have rewritten (SRS1), and is good in any length. So each day and
each host has a key of its own, hashes are compared whole, and only what we would write ourselves is read, but for the
case of its letters, which peers may change. Servers that share a secret are all of this kind.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Final

import srslib  # type: ignore[import-untyped]

from mailsuite.mail.address import Address, domain_key, is_domain

_HASH_LENGTH: Final = 8  # letters of base64; peers may change their case, which leaves some 40 bits
# SRS0 of hash, day, host and local part; SRS1 of hash, host, and what that host had made of it.
_REWRITTEN: Final = re.compile(r"SRS(?:0=[^=]+=[^=]+=([^=]+)=(.+)|1=[^=]+=([^=]+)=([-+=].+))", re.IGNORECASE)
_LOOKS_SO: Final = re.compile(r"SRS[01][-+=]", re.IGNORECASE)
_DAY: Final = 86400  # seconds
_DAYS: Final = 21  # for which one finds its way back
_LONGEST: Final = 256 - 2  # octets of a path without its angle brackets (RFC 5321 section 4.5.3.1.3)


class Forged(Exception):
    """An address looks rewritten, and is not of our making, or too old."""


class Rewriting:
    """Rewrites senders to `domain`. `seconds` tells the time. Nothing is rewritten before a secret is in use."""

    def __init__(self, domain: str, seconds: Callable[[], float]) -> None:
        self.domain = domain
        self._key = domain_key(domain)
        self._seconds = seconds
        self._secret = b""

    def use(self, secret: str) -> None:
        """Rewrite by this secret from now on; it has at least some twenty letters of chance."""
        self._secret = secret.encode()

    def is_rewritten(self, address: Address) -> bool:
        """Whether an address looks like one of ours."""
        return address.domain_key == self._key and _LOOKS_SO.match(address.local_part) is not None

    def forward(self, sender: Address) -> Address:
        """The reverse-path to send under in place of this one; the same where there is none that would do."""
        if not self._secret or not is_domain(sender.domain) or not _is_plain(sender):
            return sender  # a literal has brackets, which no local part may have without quotes
        today = self._today()
        # An SRS1 names another host than the one that it comes from: what it will look like tells which.
        whose = _claimed(self._made(today, sender.domain, sender))
        if whose is None:
            return sender
        rewritten = Address(self._made(today, whose.domain, sender), self.domain)
        return rewritten if len(str(rewritten)) <= _LONGEST else sender

    def reverse(self, address: Address) -> Address:
        """Whose address was rewritten to this one. Raises `Forged`."""
        whose = _claimed(address.local_part)
        if self._secret and whose is not None and is_domain(whose.domain) and _is_plain(whose):
            said = address.local_part.lower().encode()
            today = self._today()
            for day in range(today, today - _DAYS, -1):
                # Made once more, it must be the same as a whole: so there is one form of it, and one reading.
                if hmac.compare_digest(said, self._made(day, whose.domain, whose).lower().encode()):
                    return whose
        raise Forged(f"{address} was not rewritten here, or too long ago")

    def _today(self) -> int:
        return int(self._seconds() // _DAY)

    def _made(self, day: int, host: str, sender: Address) -> str:
        """The local part of a sender's rewritten address, by the key of a day (counted from 1970) and a host."""
        key = hmac.digest(self._secret, f"{day} {host.lower()}".encode(), "sha256")
        srs = srslib.SRS(key, hash_length=_HASH_LENGTH)
        srs._time_fn = lambda: (day + 0.5) * _DAY  # noqa: SLF001 - the library has no other place for a clock
        text: str = srs.forward(f"{sender.local_part}@{sender.domain}", self.domain)
        return text.rpartition("@")[0]


def _claimed(local_part: str) -> Address | None:
    """Whose address it says to be; None where it has not the form of a rewritten one."""
    match = _REWRITTEN.fullmatch(local_part)
    if match is None:
        return None
    return Address(match[2], match[1]) if match[2] is not None else Address(f"SRS0{match[4]}", match[3])


def _is_plain(address: Address) -> bool:
    """Whether the library leaves it as it is."""
    return address.is_ascii and address.local_part.isprintable()


def stands_for(rewritten: Address, sender: Address) -> bool:
    """Whether an address is a rewritten form of that one, whoever has made it: its hash is not looked at."""
    claimed = _claimed(rewritten.local_part)
    # Who was rewritten twice already stays as he is, but for the hash.
    whose = _claimed(sender.local_part) if sender.local_part[:4].upper() == "SRS1" else sender
    if claimed is None or whose is None:
        return False
    return claimed.local_part == whose.local_part and claimed.domain_key == whose.domain_key
