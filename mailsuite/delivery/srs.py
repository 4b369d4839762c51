"""Senders of mail that an alias passes on, rewritten so that reports find the way back: SRS.

Whoever receives what we forward looks (SPF, RFC 7208) whether we may send for the domain of the reverse-path. So that
becomes an address in a domain of ours, which has the sender in it, a day, and a hash that only we can make. What comes
back to it is for the sender; what has another hash, or is too old, was made by nobody here, and is refused: else
anybody could relay through us.

The library's own comparison takes hashes of any length, and so would take one of a single letter: here they are
compared first, whole.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Final

import srslib  # type: ignore[import-untyped]

from mailsuite.mail.address import Address, domain_key, is_domain, parse_mailbox

_HASH_LENGTH: Final = 8  # letters of base64; peers may change their case, which leaves some 40 bits
_REWRITTEN: Final = re.compile(r"SRS([01])[-+=]([^=]+)=([^=]+)=(.+)", re.IGNORECASE | re.DOTALL)
_LOOKS_SO: Final = re.compile(r"SRS[01][-+=]", re.IGNORECASE)
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
        self._srs: srslib.SRS | None = None

    def use(self, secret: str) -> None:
        """Rewrite by this secret from now on; it has at least some twenty letters of chance."""
        self._secret = secret.encode()
        self._srs = srslib.SRS(secret, hash_length=_HASH_LENGTH)
        self._srs._time_fn = self._seconds  # noqa: SLF001 - the library has no other place for a clock

    def is_rewritten(self, address: Address) -> bool:
        """Whether an address looks like one of ours."""
        return address.domain_key == self._key and _LOOKS_SO.match(address.local_part) is not None

    def forward(self, sender: Address) -> Address:
        """The reverse-path to send under in place of this one; the same where there is none that would do."""
        if self._srs is None or not is_domain(sender.domain) or not sender.is_ascii:
            return sender  # a literal has brackets, which no local part may have without quotes
        text = self._srs.forward(f"{sender.local_part}@{sender.domain}", self.domain)
        local, _, domain = text.rpartition("@")
        rewritten = Address(local, domain)
        return rewritten if len(str(rewritten)) <= _LONGEST else sender

    def reverse(self, address: Address) -> Address:
        """Whose address was rewritten to this one. Raises `Forged`."""
        match = _REWRITTEN.fullmatch(address.local_part)
        if self._srs is None or match is None or not self._is_ours(self._srs, match):
            raise Forged(f"{address} was not rewritten here")
        try:
            text: str = self._srs.reverse(f"{address.local_part}@{address.domain}")
        except srslib.Error:
            raise Forged(f"{address} was rewritten too long ago") from None
        local, _, domain = text.rpartition("@")
        if not local or not is_domain(domain):
            raise Forged(f"{address} leads to no address")
        return parse_mailbox(text) or Address(local, domain)

    def _is_ours(self, srs: srslib.SRS, match: re.Match[str]) -> bool:
        """Whether the hash is the one that we would make: SRS0 of day, host and local part, SRS1 of host and rest."""
        _kind, said, first, rest = match.groups()
        if match[1] == "0":
            host, equals, local = rest.partition("=")
            signed = first + host + local
            if not equals:
                return False
        else:
            signed = first + rest
        right: str = srs.generate_hash(signed, self._secret, _HASH_LENGTH)
        return hmac.compare_digest(said.lower().encode(), right.lower().encode())
