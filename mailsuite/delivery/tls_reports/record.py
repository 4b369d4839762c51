"""Who wants reports: the TXT record at `_smtp._tls` of a domain (RFC 8460 section 3). Pure text, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from mailsuite.mail.address import Address, is_domain, parse_mailbox

_VERSION: Final = re.compile(rb"v=TLSRPTv1[ \t]*(?:;|\Z)")
_DELIMITER: Final = re.compile(r"[ \t]*;[ \t]*")
_FIELD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,31}=[\x20-\x3a\x3c-\x7e\t]+")
_URI: Final = re.compile(r"[\x21-\x2b\x2d-\x3a\x3c-\x7e]+")  # without commas and semicolons
_MOST_ENDPOINTS: Final = 5  # of a domain are heeded


class MailTo(NamedTuple):
    """Somebody who reads reports as mail."""

    address: Address


class Https(NamedTuple):
    """Where reports are posted to. `path` begins with a slash, and has the query behind it."""

    host: str
    port: int
    path: str


Endpoint = MailTo | Https


def endpoints(records: Iterable[bytes]) -> tuple[Endpoint, ...]:
    """Whom the TXT records name; none where they ask for no reports, or there is not one such record.

    URIs of other schemes, and those that lead nowhere, are left out; so are fields that are not known.
    """
    candidates = [record for record in records if _VERSION.match(record)]
    if len(candidates) != 1 or not candidates[0].isascii():
        return ()
    fields = _DELIMITER.split(candidates[0].decode("ascii").strip(" \t"))[1:]
    if fields and not fields[-1]:
        fields.pop()
    if not all(map(_FIELD.fullmatch, fields)):
        return ()
    said = [field[4:] for field in fields if field.startswith("rua=")]
    found = [one for uri in said[0].split(",") for one in _endpoints_of(uri.strip(" \t"))] if said else []
    return tuple(dict.fromkeys(found))[:_MOST_ENDPOINTS]


def _endpoints_of(uri: str) -> Iterator[Endpoint]:
    if _URI.fullmatch(uri) is None:
        return
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "mailto":
        yield from _readers(rest)
    elif scheme.lower() == "https":
        place = _place(uri)
        if place is not None:
            yield place


def _readers(rest: str) -> Iterator[MailTo]:
    """RFC 6068 section 2: addresses, and fields for a header, which are ours to write."""
    for text in unquote(rest.partition("?")[0], errors="replace").split(","):
        address = parse_mailbox(text)
        if address is not None and address.is_ascii and is_domain(address.domain):
            yield MailTo(address)


def _place(uri: str) -> Https | None:
    try:
        parts = urlsplit(uri)
        port = parts.port or 443
    except ValueError:
        return None
    host = (parts.hostname or "").rstrip(".")
    # A name with a dot that ends in no number: strangers are not to point us at addresses, or at our own hosts.
    is_public = is_domain(host) and "." in host and not host.rpartition(".")[2].isdigit()
    if not is_public or "@" in parts.netloc:
        return None
    return Https(host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
