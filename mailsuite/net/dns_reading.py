"""Long answers of the DNS: read by dnspython, told in the records of twisted.names.

Twisted follows a thousand compression pointers in a message and takes what has more for broken; an honest answer of
some five hundred MX records has. To read 64 KiB takes a while: that is not for the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
from twisted.names import dns as records
from twisted.names.error import DNSFormatError

LONGEST: Final = 65535  # octets: what the length before an answer by TCP can say (RFC 1035 section 4.2.2)


def make_question(name: bytes, kind: int) -> dns.message.Message:
    """A question of one name and kind, for `read_answer` as well."""
    return dns.message.make_query(dns.name.from_text(name.decode("ascii")), dns.rdatatype.RdataType.make(kind))


def read_answer(octets: bytes, question: dns.message.Message) -> records.Message:
    """The answer to a question, as Twisted would have read it, with the records that mail goes by.

    Names are in text, odd octets escaped. Raises `DNSFormatError` for what is no answer to this question, or is cut.
    """
    try:
        found = dns.message.from_wire(octets)
        fits = question.is_response(found) and not found.flags & dns.flags.TC
        message = records.Message(found.id, answer=1, rCode=int(found.rcode()))
        message.answers = list(_headers(found))
    except Exception:  # noqa: BLE001 - of a parser, for whatever has come
        raise DNSFormatError(None) from None
    if not fits:
        raise DNSFormatError(None)
    return message


def _headers(found: dns.message.Message) -> Iterator[Any]:
    for rrset in found.answer:
        owner = _text(rrset.name)
        for record in rrset:
            payload = _payload(record)
            if payload is not None:
                yield records.RRHeader(owner, payload.TYPE, ttl=rrset.ttl, payload=payload)


def _payload(record: Any) -> Any:  # noqa: ANN401 - each kind has its own
    match record.rdtype:
        case dns.rdatatype.MX:
            return records.Record_MX(record.preference, _text(record.exchange))  # type: ignore[no-untyped-call]
        case dns.rdatatype.CNAME:
            return records.Record_CNAME(_text(record.target))  # type: ignore[no-untyped-call]
        case dns.rdatatype.A:
            return records.Record_A(record.address)  # type: ignore[no-untyped-call]
        case dns.rdatatype.AAAA:
            return records.Record_AAAA(record.address)  # type: ignore[no-untyped-call]
        case _:
            return None


def _text(name: dns.name.Name) -> bytes:
    return name.to_text(omit_final_dot=True).encode("ascii") if name != dns.name.root else b""
