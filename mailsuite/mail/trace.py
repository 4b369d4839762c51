"""Trace lines: what we write above a message to say that it came through here (RFC 5321 section 4.4).

Whatever a peer told us of itself is cleaned before it is written: no HELO name, address or queue id can end a
line or forge another one. Lines are folded before each clause, end with CRLF, and are UTF-8 only where the
message itself came with SMTPUTF8 (RFC 6531 section 3.7.3).
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from mailsuite.mail.address import Address
from mailsuite.mail.session import Peer, TLSFacts

_NOT_IN_HELO = re.compile(r"[^A-Za-z0-9_.:\[\]\-\u00a1-\U0010ffff]")
_NOT_IN_ATOM = re.compile(r"[^A-Za-z0-9_.+\-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 5321 section 4.5.3.1.2; a literal with its brackets and tag is shorter.
_MAX_HELO = 255


@lru_cache(maxsize=64)
def with_protocol(
    *,
    lmtp: bool = False,
    extended: bool = True,
    tls: bool = False,
    authenticated: bool = False,
    smtputf8: bool = False,
) -> str:
    """The protocol of the `with` clause, as registered by RFC 3848 and RFC 6531 section 4.3.

    `extended` says that the peer greeted with EHLO; without it there is no TLS, AUTH or SMTPUTF8 to speak of.
    """
    if not (extended or lmtp):
        return "SMTP"
    suffix = ("S" if tls else "") + ("A" if authenticated else "")
    if lmtp:
        return ("UTF8LMTP" if smtputf8 else "LMTP") + suffix
    return ("UTF8SMTP" if smtputf8 else "ESMTP") + suffix


def received_line(  # noqa: PLR0913 - a line of nine facts
    *,
    helo: str,
    peer: Peer,
    peer_name: str = "",
    hostname: str,
    protocol: str,
    queue_id: str,
    now: float,
    recipient: Address | None = None,
    tls: TLSFacts | None = None,
    smtputf8: bool = False,
) -> bytes:
    """The Received line for a message that was just taken in, its CRLF included.

    `helo` is what the peer called itself, `peer_name` the host name that we know it by, if any, `hostname` what we call
    ourselves, `protocol` comes from `with_protocol`. `recipient` is given for a message with one recipient only: with
    several, each would learn of the others (RFC 5321 section 7.2).
    """
    name = _NOT_IN_HELO.sub("?", helo[:_MAX_HELO]) or "unknown"
    text = f"Received: from {name}{_tcp_info(peer, peer_name)}\r\n\tby {hostname} with {protocol}"
    if tls is not None:
        text += f" ({_CONTROL.sub('?', tls.version)} {_CONTROL.sub('?', tls.cipher)})"
    text += f"\r\n\tid {_NOT_IN_ATOM.sub('?', queue_id)}"
    # An address that cannot be said without SMTPUTF8 stays out of a message that came without.
    if recipient is not None and (smtputf8 or recipient.is_ascii):
        text += f"\r\n\tfor <{_CONTROL.sub('?', str(recipient))}>"
    text += f";\r\n\t{date_time(now)}\r\n"
    return text.encode("utf-8", "replace") if smtputf8 else text.encode("ascii", "replace")


def return_path_line(address: Address | None) -> bytes:
    """The Return-Path line that final delivery puts first, its CRLF included; None is the null path."""
    path = "" if address is None else _CONTROL.sub("?", str(address))
    return f"Return-Path: <{path}>\r\n".encode("utf-8", "replace")


def date_time(timestamp: float) -> str:
    """A moment in the form of RFC 5322 section 3.3: local time and its offset. Kept for its second."""
    return _date_time(int(timestamp))


@lru_cache(maxsize=16)
def _date_time(second: int) -> str:
    return formatdate(second, localtime=True)


@lru_cache(maxsize=256)
def _tcp_info(peer: Peer, name: str) -> str:
    if peer.is_local_socket:
        return ""
    # RFC 5321 section 4.1.3: an IPv6 literal carries its tag. A zone (%eth0) means nothing to anybody else.
    host = _NOT_IN_HELO.sub("?", peer.host.partition("%")[0])
    literal = f"[IPv6:{host}]" if ":" in host else f"[{host}]"
    name = _NOT_IN_HELO.sub("?", name[:_MAX_HELO])
    return f" ({name} {literal})" if name else f" ({literal})"


def delivered_to_line(address: Address) -> bytes:
    """The Delivered-To line that says to whom a message went on from here (RFC 9228), its CRLF included."""
    return f"Delivered-To: {_CONTROL.sub('?', str(address))}\r\n".encode("utf-8", "replace")
